"""Claims about an exported manifest: it loads, and plans to no change, whatever the VE was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.cli import output
from reconciler.manifests import written
from reconciler.manifests.load import load_fleet
from reconciler.model.compute import Limit, SetLimit
from reconciler.model.facts import Json
from reconciler.model.fleet import Fleet
from reconciler.model.identity import NetworkName, VeName
from reconciler.model.network import AddAddress, SetHostname
from reconciler.plan import export
from reconciler.plan.field import nest, to_json
from reconciler.plan.render import is_bookkeeping
from tests.support import twins
from tests.support.rig import LAN, Rig, fleet_of, on_lan, scratch_state, ve
from tests.support.twins import ADDRESS, perform

FULL = ve(
    "full",
    "description: 'shop: front end', memory: {limit: 1000Mi, swap: unlimited, guarantee: 64Mi}, processes: unlimited, "
    'cpu: {limit: 1.5, guarantee: 0.25, cpus: "0-1", weight: 50}, disk: {size: 4097Ki}, '
    "boot: {order: -3, restart: always, stopTimeout: 90s, dependsOn: [plain]}, rlimits: {nofile: 8192, core: 1Mi}, "
    "features: {nesting: true}, hostname: web1.example.org, dns: {servers: [10.20.0.1], search: [example.org]}, "
    "devices: [{path: /dev/net/tun, access: r}, {path: /dev/fuse}, {nic: eno9}], "
    "mounts: [{source: /srv, target: /srv/a.b, readOnly: true}, {source: /usr, target: /data}], "
    f"drift: {{default: warn, fields: {{cpu: correct}}}}, {on_lan(11)}",
    "labels: {tier: web}",
)
ROUTES = ve(
    "routes",
    "interfaces: [{name: eth0, network: lan, addresses: [10.20.0.12/24], gateway: [], mtu: 1400, "
    "mac: '02:00:00:00:00:0c', routes: [{to: 10.9.0.0/16, via: 10.20.0.2}]}]",
)
FLEET = fleet_of(LAN, ve("plain"), FULL, ROUTES)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=Path(state))
        (made.state / "policy.yaml").write_text("nics: [eno9]\nmounts: [{source: /srv}, {source: /usr}]")
        made.world.add_host_link("eno9")
        made.converge(FLEET)
        yield made


def exported(rig: Rig, name: str, *, explicit: bool = False) -> str:
    """Give a VE of the twin as manifests, as `vectl export` puts them together."""
    seen, record = rig.see(name), rig.record(name)
    values = nest(export.live_values(rig.instance.name, record, seen))
    links = values.pop("interfaces", {})
    assert isinstance(links, dict)
    interfaces: list[Json] = []
    for link, parts in links.items():
        assert isinstance(parts, dict)
        gateways = () if explicit or name == "routes" else None
        routes = parts["routes"]
        assert isinstance(routes, list)
        own = (
            routes if gateways is not None else [r for r in routes if isinstance(r, dict) and "/0" not in str(r["to"])]
        )
        interfaces.append(written.interface(link, {**parts, "routes": [*own]}, mtu=1500, gateways=gateways))
    networks = [written.network_document(spec, ves={name}) for spec in FLEET.networks.values()]
    documents = [*networks, written.ve_document(name, record.uid, values, interfaces)]
    return "---\n".join(output.yaml_text(document) for document in documents)


def loaded(text: str) -> Fleet:
    fleet = load_fleet({"export.yaml": text.encode()}, revision="export")
    assert fleet.fleet is not None, [f"{finding.path}: {finding.message}" for finding in fleet.findings]
    return fleet.fleet


def changes(rig: Rig, fleet: Fleet, name: str) -> list[tuple[str, str]]:
    """Give what applying a fleet would change of one VE on the host; its record may tell of new intent."""
    made = rig.plan(fleet)
    found = [action for action in made.actions if action.ve == name and action.effects and not is_bookkeeping(action)]
    return [(action.path, f"{action.before} {action.after}") for action in found]


@pytest.mark.parametrize("name", ["plain", "full", "routes"])
@pytest.mark.parametrize("explicit", [False, True], ids=["short", "explicit"])
def test_an_exported_manifest_changes_nothing(rig: Rig, name: str, explicit: bool) -> None:
    beside = [exported(rig, other).split("---\n")[-1] for other in {"plain"} - {name}]
    fleet = loaded("---\n".join([exported(rig, name, explicit=explicit), *beside]))
    assert changes(rig, fleet, name) == []


def test_what_was_changed_by_hand_is_exported_as_it_is_now(rig: Rig) -> None:
    uid = rig.uid("plain")
    perform(
        rig.twin,
        SetLimit(uid=uid, limit=Limit.MEMORY_LIMIT, value=96 << 20),
        SetHostname(uid=uid, hostname="other"),
    )
    fleet = loaded(exported(rig, "plain"))
    spec = fleet.ves[VeName("plain")]
    assert (spec.compute.memory_limit, spec.network.hostname) == (96 << 20, "other")
    assert changes(rig, fleet, "plain") == []


def test_an_address_by_hand_is_exported(rig: Rig) -> None:
    perform(rig.twin, AddAddress(uid=rig.uid("routes"), interface="eth0", address=ADDRESS))
    values = export.live_values(rig.instance.name, rig.record("routes"), rig.see("routes"))
    assert str(ADDRESS) in str(values["interfaces.eth0.addresses"])


def test_what_is_at_its_default_is_left_out(rig: Rig) -> None:
    assert exported(rig, "plain").split("---\n")[-1].splitlines()[5:] == ["spec:", "  hostname: plain"]


def test_a_network_that_no_manifest_names_is_told_from_the_host(rig: Rig) -> None:
    seen = export.live_networks(rig.instance.name, twins.look(rig.twin), {}, ["lan", "gone"])
    declared = FLEET.networks[NetworkName("lan")]
    assert list(seen) == [NetworkName("lan")]
    found = seen[NetworkName("lan")]
    assert (found.gateways, found.nat, found.mtu) == (declared.gateways, True, declared.mtu)
    assert set(found.subnets) == set(declared.subnets)


def test_templates_are_written_as_they_were_declared() -> None:
    text = """
kind: Template
metadata: {name: debian}
spec: {source: {debootstrap: {suite: trixie, packages: [cron], variant: standard}}, init: [/sbin/init, --log]}
---
kind: Template
metadata: {name: small}
spec: {source: {builtin: busybox}}
"""
    declared = fleet_of(text).templates
    again = loaded("---\n".join(output.yaml_text(written.template_document(one)) for one in declared.values()))
    assert again.templates == declared


@pytest.mark.parametrize(
    ("title", "value", "text"),
    [
        ("size", 1000 << 20, "1000Mi"),
        ("size", 1 << 30, "1Gi"),
        ("size", 1001, 1001),
        ("size or unlimited", 0, 0),
        ("duration", 90.0, "90s"),
        ("duration", 7200.0, "2h"),
        ("duration", 0.5, "0.5s"),
        ("bit rate", 100_000_000, "100Mbit"),
        ("bit rate", 1500, "1500bit"),
        ("CPUs", 150_000, 1.5),
        ("CPUs or unlimited", 200_000, 2),
    ],
)
def test_quantities_are_written_exactly(title: str, value: int | float, text: Json) -> None:
    assert written._number(title, value) == text


def test_only_the_forwards_of_the_ve_itself_are_written() -> None:
    fleet = fleet_of(
        LAN.replace("nat: true", "nat: true, forwards: [{listen: 80, to: 'a:80'}, {listen: 81, to: 'b:80'}]"),
        ve("a", on_lan(11)),
        ve("b", on_lan(12)),
    )
    document = written.network_document(fleet.networks[NetworkName("lan")], ves={"a"})
    body = document["spec"]
    assert isinstance(body, dict)
    assert body["forwards"] == [{"listen": 80, "to": "a:80", "protocol": "tcp"}]
    assert to_json(replace(fleet.networks[NetworkName("lan")], forwards=()).mtu) == 1500
