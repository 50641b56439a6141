"""Every declared field, changed alone, gives exactly one action, with the impact that is declared and published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from reconciler.model.action import Action, Origin
from reconciler.model.identity import VeName
from reconciler.model.settings import SYSCTLS
from reconciler.plan.render import is_bookkeeping
from reconciler.plan.spec import FIELDS, spec_values
from reconciler.twin.host import ALL_CAPABILITIES
from tests.support.rig import Rig, fleet_of, scratch_state, ve

TWO_NODES = replace(ALL_CAPABILITIES, nodes=frozenset({0, 1}))
NETS = tuple(
    f"kind: Network\nmetadata: {{name: {name}}}\nspec: {{subnets: [10.20.0.0/16], gateway: [{gateway}]{more}}}\n"
    for name, gateway, more in (("one", "10.20.0.1", ""), ("two", "10.20.0.2", ""), ("alone", "10.20.0.3", ""))
)
ETH = "interfaces: [{name: eth0, network: one, addresses: [10.20.1.1/16], gateway: []%s}]"
PLAIN = ETH % ""
POLICY = "mounts: [{source: /srv}, {source: /usr}]\nnics: ['eno*']"
MOUNT = "mounts: [{target: /data, source: %s}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The spec before and after, or what somebody does by hand. ``path``: the concrete one of the action."""

    path: str = ""
    before: str = ""
    after: str = ""
    metadata: str = ""
    networks_after: tuple[str, ...] = NETS
    drift: Callable[[Rig], None] | None = None


QUOTAS = "disk: {inodes: 9000, users: [{id: 7, hard: 1Gi}], groups: [{id: 8, hardFiles: 100}]}"
CHANGES: dict[str, Change] = {
    "power": Change(after="power: stopped"),
    "boot.order": Change(after="boot: {order: 3}"),
    "boot.restart": Change(after="boot: {restart: never}"),
    "boot.stopTimeout": Change(after="boot: {stopTimeout: 5s}"),
    "boot.dependsOn": Change(after="boot: {dependsOn: [db1]}"),
    "rlimits": Change(after="rlimits: {nofile: 8192}"),
    "features.nesting": Change(after="features: {nesting: true}"),
    "cpu.weight": Change(after="cpu: {weight: 200}"),
    "cpu.limit": Change(after="cpu: {limit: 1.5}"),
    "cpu.guarantee": Change(after="cpu: {guarantee: 0.05}"),
    "cpu.cpus": Change(after='cpu: {cpus: "0-1"}'),
    "cpu.nodes": Change(after='cpu: {nodes: "0"}'),
    "memory.limit": Change(after="memory: {limit: 1Gi}"),
    "memory.barrier": Change(after="memory: {barrier: 400Mi}"),
    "memory.guarantee": Change(after="memory: {guarantee: 64Mi}"),
    "memory.swap": Change(after="memory: {swap: 64Mi}"),
    "processes": Change(after="processes: 100"),
    "io.weight": Change(after="io: {weight: 200}"),
    "io.read": Change(after="io: {read: 50Mi}"),
    "io.write": Change(after="io: {write: 50Mi}"),
    "io.readOps": Change(after="io: {readOps: 2000}"),
    "io.writeOps": Change(after="io: {writeOps: 1000}"),
    "disk.size": Change(after="disk: {size: 16Gi}"),
    "disk.inodes": Change(before=QUOTAS, after=QUOTAS.replace("9000", "8000")),
    "disk.users.*": Change(path="disk.users.7", before=QUOTAS, after=QUOTAS.replace("1Gi", "2Gi")),
    "disk.groups.*": Change(path="disk.groups.8", before=QUOTAS, after=QUOTAS.replace("100", "200")),
    "disk.snapshots": Change(after="disk: {snapshots: 4Gi}"),
    "hostname": Change(after="hostname: shop.example.org"),
    "dns": Change(after="dns: {servers: [10.20.0.1]}"),
    "interfaces.*": Change(path="interfaces.eth0", before=PLAIN),
    "interfaces.*.network": Change(
        path="interfaces.eth0.network", before=PLAIN, after=PLAIN.replace("network: one", "network: two")
    ),
    "interfaces.*.isolated": Change(
        path="interfaces.eth0.isolated",
        before=PLAIN,
        after=PLAIN,
        networks_after=(NETS[0].replace("10.20.0.1]", "10.20.0.1], isolated: true"), *NETS[1:]),
    ),
    "interfaces.*.mtu": Change(path="interfaces.eth0.mtu", before=PLAIN, after=ETH % ", mtu: 1400"),
    "interfaces.*.mac": Change(path="interfaces.eth0.mac", before=PLAIN, after=ETH % ', mac: "02:00:00:00:00:01"'),
    "interfaces.*.rate.egress": Change(
        path="interfaces.eth0.rate.egress", before=PLAIN, after=ETH % ", rate: {egress: 1Mbit}"
    ),
    "interfaces.*.rate.ingress": Change(
        path="interfaces.eth0.rate.ingress", before=PLAIN, after=ETH % ", rate: {ingress: 1Mbit}"
    ),
    "interfaces.*.up": Change(
        path="interfaces.eth0.up",
        before=PLAIN,
        after=PLAIN,
        drift=lambda r: r.world.set_link_down(r.uid("web1"), "eth0"),
    ),
    "interfaces.*.addresses": Change(
        path="interfaces.eth0.addresses", before=PLAIN, after=PLAIN.replace("10.20.1.1", "10.20.1.2")
    ),
    "interfaces.*.routes": Change(
        path="interfaces.eth0.routes", before=PLAIN, after=ETH % ", routes: [{to: 10.9.0.0/16, via: 10.20.0.9}]"
    ),
    "loopback": Change(drift=lambda rig: rig.world.set_loopback_down(rig.uid("web1"))),
    "features.fuse": Change(path="devices./dev/fuse", after="features: {fuse: true}"),
    "devices.*": Change(path="devices./dev/fuse", after="devices: [{path: /dev/fuse}]"),
    "devices.*.access": Change(
        path="devices./dev/fuse.access",
        before="devices: [{path: /dev/fuse}]",
        after="devices: [{path: /dev/fuse, access: r}]",
    ),
    "devices.*.nic": Change(path="devices.eno9%2E1.nic", after="devices: [{nic: eno9.1}]"),
    "mounts.*": Change(path="mounts./srv/a%2Eb", after="mounts: [{source: /srv, target: /srv/a.b}]"),
    "mounts.*.source": Change(path="mounts./data.source", before=MOUNT % "/srv", after=MOUNT % "/usr"),
    "mounts.*.readOnly": Change(
        path="mounts./data.readOnly", before=MOUNT % "/srv", after=MOUNT % "/srv, readOnly: true"
    ),
    "views": Change(drift=lambda rig: rig.world.break_views(rig.uid("web1"))),
    **{
        f"ipc.{name}": Change(after=f"ipc: {{{name}: 65536}}")
        for name in ("shmall", "shmmax", "shmmni", "msgmax", "msgmnb", "msgmni", "semmni")
    },
    "ipc.semmsl": Change(path="ipc.semmni", after="ipc: {semmsl: 100}"),
    **{
        f"beancounters.{name}.limit": Change(after=f"beancounters: {{{name}: {{limit: 65536}}}}")
        for name in ("tcpsndbuf", "tcprcvbuf", "numtcpsock", "numothersock", "numpty")
    },
    "beancounters.shmpages.limit": Change(path="ipc.shmall", after="beancounters: {shmpages: {limit: 8Mi}}"),
    "beancounters.lockedpages.limit": Change(path="rlimits", after="beancounters: {lockedpages: {limit: 64Ki}}"),
    "beancounters.numsiginfo.limit": Change(path="rlimits", after="beancounters: {numsiginfo: {limit: 100}}"),
    **{f"sysctls.{name}": Change(after=f'sysctls: {{{name}: "1"}}') for name in SYSCTLS},
    "snapshots.*": Change(path="snapshots.golden%2E1", after="snapshots: [{name: golden.1}]"),
    "snapshotSchedule": Change(after="snapshotSchedule: {every: 1h, keep: 3}"),
    "rollback": Change(
        before="snapshots: [{name: a}]", after="snapshots: [{name: a}], rollback: {to: a, request: again}"
    ),
    "keep": Change(after="keep: [/home]"),
    "labels": Change(metadata="labels: {tier: web}"),
    "description": Change(after="description: shop"),
    "protect": Change(after="protect: true"),
    "spread": Change(after="spread: [tier]"),
    "drift": Change(after="drift: {default: warn}"),
    "name": Change(metadata="renamedFrom: web1"),
}
NO_ACTION = {
    "template": "a VE is made anew with consent only: see the case template-changed",
    "source": "read at creation only: see the cases clone and clone-changed",
    "beancounters.*.barrier": "somebody is told, nothing is done: see tests/unit/test_counters.py",
    "beancounters.*.limit": "somebody is told, nothing is done: see tests/unit/test_counters.py",
}


@pytest.mark.parametrize("path", CHANGES)
def test_a_field_changed_alone_is_one_action_of_its_impact(path: str) -> None:
    change = CHANGES[path]
    declared = next(field for field in FIELDS if field.path == path)
    with scratch_state() as state:
        actions = actions_of(Rig(state=state, capabilities=TWO_NODES), change)
    by_hand = change.drift is not None
    assert [(action.path, action.impact, action.origin) for action in actions] == [
        (change.path or path, declared.impact, Origin.DRIFT if by_hand else Origin.GIT)
    ]


def actions_of(rig: Rig, change: Change) -> list[Action]:
    """Make a VE, change one field of it, and give what is planned for it."""
    rig.world.add_host_link("eno9.1")
    (rig.state / "policy.yaml").write_text(POLICY)
    rig.converge(fleet_of(*NETS, ve("db1"), ve("web1", change.before)))
    if change.drift is not None:
        change.drift(rig)
    named = ve("web2", "hostname: web1", change.metadata) if "renamedFrom" in change.metadata else ""
    fleet = fleet_of(*change.networks_after, ve("db1"), named or ve("web1", change.after, change.metadata))
    plan = rig.plan(fleet)
    assert (plan.refused, plan.unknown) == ((), ())
    return [a for a in plan.actions if a.uid is not None and not is_bookkeeping(a) and a.origin is not Origin.POLICY]


def test_every_field_has_its_change() -> None:
    declared = [field.path for field in FIELDS]
    assert len(declared) == len(set(declared))
    assert set(declared) == CHANGES.keys() | NO_ACTION.keys()


def test_an_unset_field_is_at_its_published_default() -> None:
    values = spec_values(fleet_of(ve("web1")).ves[VeName("web1")])
    derived = {"hostname", "name", "template", "protect"}
    for field in FIELDS:
        if "*" not in field.path and field.path not in derived and field.path in values:
            assert values[field.path] == field.default, field.path


def test_a_removed_field_returns_to_its_default() -> None:
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(ve("web1", "memory: {limit: 1Gi}, processes: 10")))
        found = {action.path: action.after for action in rig.plan(fleet_of(ve("web1"))).actions}
    assert {path: found[path] for path in ("memory.limit", "processes")} == {
        "memory.limit": 512 << 20,
        "processes": 4096,
    }
