"""Scenarios of change on one host, each of which may be cut short at every effect: from where, to where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from reconciler.model.compute import CreateCgroup, Limit
from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet
from reconciler.model.identity import Digest, NetworkName, TemplateName, Uid, VeName
from reconciler.model.observation import Capabilities
from reconciler.model.power import CreateRuntime, EndCause, Launch, StartRuntime, SuspendRuntime
from reconciler.model.volume import BuildTemplate, BuiltinSource, CreateVolume, Record, TemplateSpec, WriteRecord
from reconciler.twin import host
from reconciler.twin.clock import StoppedClock
from reconciler.twin.host import ALL_CAPABILITIES
from tests.support.rig import LAN, V1, Rig, fleet_of, on_lan, ve

STRANGER = Uid("ffffffff-ffff-4fff-8fff-ffffffffffff")
"""A running VE that another source made."""

NOT_OURS = ("eno1", "tw-foreign")
_LAN2 = LAN.replace("lan}", "two}").replace("10.20.0", "10.21.0").replace("fd00:20", "fd00:21")
_ROUTED = "kind: Network\nmetadata: {name: lan}\nspec: {mode: routed, subnets: [10.20.0.0/24, 'fd00:20::/64']}\n"
_TRIXIE = "kind: Template\nmetadata: {name: trixie}\nspec: {source: {debootstrap: {suite: trixie}}}\n"
_DATA = 12_345


def _nothing(rig: Rig) -> None:
    """Let nothing happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``before`` was carried out, then ``happens`` happened; ``after`` is wanted.

    ``consent``: a person agrees to the plan, whatever it is.
    """

    name: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    happens: Callable[[Rig], object] = _nothing
    capabilities: Capabilities = ALL_CAPABILITIES
    consent: bool = False

    def wanted(self) -> Fleet:
        """Give the fleet that is to be reached."""
        return fleet_of(*self.after, revision="after")

    def prepare(self, rig: Rig) -> None:
        """Bring a new host to where the scenario begins, with things on it that are not ours."""
        rig.desk()
        for link in NOT_OURS:
            rig.world.add_host_link(link)
        make_stranger(rig)
        if self.before:
            rig.converge(fleet_of(*self.before, revision="before"))
        for uid in rig.machine.volumes:
            rig.world.set_use(uid, disk=_DATA + len(uid))
        self.happens(rig)


def make_stranger(rig: Rig) -> None:
    """Let another source have a VE that runs here."""
    template = TemplateSpec(name=TemplateName("old"), key=Digest("0" * 64), source=BuiltinSource())
    record = Record(
        uid=STRANGER,
        name=VeName("stranger"),
        id_base=1 << 30,
        template=template.name,
        template_digest=None,
        init=template.init,
        source="dir:/elsewhere",
        created_at=0.0,
        applied={"description": "of somebody else"},
    )
    for effect in (
        BuildTemplate(template=template),
        WriteRecord(record=record, template_key=template.key),
        CreateVolume(uid=STRANGER, size=None),
        CreateCgroup(uid=STRANGER, limits={}),
        CreateRuntime(uid=STRANGER, name=record.name, hostname="stranger", launch=Launch(id_base=1 << 30)),
        StartRuntime(uid=STRANGER),
    ):
        host.perform(rig.machine, effect)


def _pinned(name: str, spec: str = "", metadata: str = "") -> str:
    """Give a VE whose uid is the same in every run."""
    number = sum(map(ord, name))
    uid = f"uid: 00000000-0000-4000-8000-{number:012d}"
    return ve(name, spec, f"{uid}, {metadata}" if metadata else uid)


def _advance(rig: Rig, seconds: float) -> None:
    assert isinstance(rig.clock, StoppedClock)
    rig.clock.advance(seconds)


def _drift(rig: Rig) -> None:
    uid = rig.uid("a")
    rig.world.set_limit(uid, Limit.MEMORY_LIMIT, 1 << 20)
    rig.world.set_volume_size(uid, 1 << 20)
    rig.world.add_address(uid, "eth0", ip_interface("192.0.2.1/24"))
    rig.world.set_hostname(uid, "strange")
    rig.world.delete_link(rig.uid("b"), "eth0")
    rig.world.set_network_down(NetworkName("lan"))
    rig.world.flush_filter()


def _trash_b(rig: Rig) -> None:
    rig.converge(fleet_of(*_AB[:2], revision="between"))


def _trash_and_wait(rig: Rig) -> None:
    _trash_b(rig)
    _advance(rig, 8 * 86_400.0)


def _kill_a(rig: Rig) -> None:
    rig.world.end_init(rig.uid("a"), EndCause.KILLED)


def _suspend_a(rig: Rig) -> None:
    """Suspend the VE a by its manifest."""
    rig.converge(fleet_of(*_AB_SUSPENDED, revision="between"))


def _suspend_and(then: Callable[[Rig], None]) -> Callable[[Rig], None]:
    def happens(rig: Rig) -> None:
        _suspend_a(rig)
        then(rig)

    return happens


def _trash_a(rig: Rig) -> None:
    rig.converge(fleet_of(LAN, _B, revision="without"))


def _half_suspend_a(rig: Rig) -> None:
    rig.world.interrupt(SuspendRuntime(uid=rig.uid("a")))


def _leave_half(rig: Rig) -> None:
    """Leave a VE of which the first process only wrote the record."""
    uid = rig.uid("a")
    record = rig.machine.records[uid]
    assert not isinstance(record, Unknown)
    rig.world.end_init(uid, EndCause.KILLED)
    del rig.machine.volumes[uid]
    rig.machine.records[uid] = replace(record, applied={})


def _write(*paths: str) -> Callable[[Rig], None]:
    """Let root of VE a make files."""

    def happens(rig: Rig) -> None:
        for path in paths:
            rig.world.write_file(rig.uid("a"), path)

    return happens


def _write_and_wait(rig: Rig) -> None:
    _write("/late")(rig)
    _advance(rig, 3 * 3600.0)


def _put_aside_and_wait(rig: Rig) -> None:
    """Go back once, and let the time pass for which the data of then is kept."""
    rig.converge(fleet_of(_BACK, revision="between"))
    _advance(rig, 8 * 86_400.0)


def _write_and_trash_a(rig: Rig) -> None:
    _write("/late")(rig)
    rig.converge(fleet_of(_pinned("b"), revision="between"))


_A, _B = _pinned("a", on_lan(11)), _pinned("b", on_lan(12))
_AB = (LAN, _A, _B)
_A_SUSPENDED = _pinned("a", f"{on_lan(11)}, power: suspended")
_AB_SUSPENDED = (LAN, _A_SUSPENDED, _B)
_SET = f"{on_lan(11)}, disk: {{inodes: 9000, users: [{{id: 7, hard: 1Mi}}]}}, sysctls: {{net.ipv4.ip_forward: '1'}}"

_GOLDEN = "snapshots: [{name: golden}]"
_ALONE, _BACK = (_pinned("a", f"{_GOLDEN}{more}") for more in ("", ", rollback: {to: golden, request: again}"))
_KEPT = _pinned("a", f"{on_lan(11)}, {_GOLDEN}")
_ROLLED = _pinned("a", f"{on_lan(11)}, {_GOLDEN}, rollback: {{to: golden, request: again}}")
_HOURLY = "snapshotSchedule: {every: 1h, keep: 2}"
_ANEW = _pinned("a", "template: trixie, keep: [/home], rlimits: {nofile: 9}")

SCENARIOS = tuple(
    Scenario(**fields)
    for fields in (
        {"name": "create", "after": (_pinned("a"),)},
        {"name": "create-stopped", "after": (_pinned("a", "power: stopped"),)},
        {"name": "create-on-v1", "after": (LAN, _A), "capabilities": V1},
        {"name": "create-with-network", "after": (LAN, _A)},
        {"name": "create-routed", "after": (_ROUTED, _A)},
        {"name": "create-from-template", "after": (_TRIXIE, _pinned("a", "template: trixie"))},
        {
            "name": "create-with-dependency",
            "after": (_pinned("app", "boot: {dependsOn: [db]}"), _pinned("db")),
        },
        {
            "name": "create-with-everything",
            "after": (
                LAN,
                _pinned(
                    "a",
                    f"{on_lan(11)}, dns: {{servers: [10.20.0.1]}}, rlimits: {{nofile: 99}},"
                    " features: {nesting: true}, protect: true, hostname: a.example.org",
                ),
            ),
        },
        {"name": "finish-creation", "before": (_pinned("a"),), "happens": _leave_half, "after": (_pinned("a"),)},
        {
            "name": "grow",
            "before": _AB,
            "after": (
                LAN,
                _pinned("a", f"{on_lan(11)}, memory: {{limit: 1Gi}}, processes: 9999, disk: {{size: 9Gi}}"),
                _B,
            ),
        },
        {
            "name": "shrink",
            "before": _AB,
            "after": (
                LAN,
                _pinned("a", f"{on_lan(11)}, memory: {{limit: 64Mi}}, processes: 99, disk: {{size: 1Gi}}"),
                _B,
            ),
        },
        {"name": "renumber", "before": _AB, "after": (LAN, _pinned("a", on_lan(21)), _B)},
        {"name": "add-interface", "before": (_pinned("a"),), "after": (LAN, _A)},
        {"name": "remove-interface", "before": _AB, "after": (LAN, _pinned("a"), _B)},
        {
            "name": "move-to-another-network",
            "before": _AB,
            "after": (
                LAN,
                _LAN2,
                _pinned("a", on_lan(11).replace("lan", "two").replace("10.20", "10.21").replace("00:20", "00:21")),
                _B,
            ),
        },
        {"name": "stop", "before": _AB, "after": (LAN, _pinned("a", f"{on_lan(11)}, power: stopped"), _B)},
        {"name": "start", "before": (_pinned("a", "power: stopped"),), "after": (_pinned("a"),)},
        {"name": "restart", "before": _AB, "after": (LAN, _pinned("a", f"{on_lan(11)}, rlimits: {{nofile: 9}}"), _B)},
        {
            "name": "restart-two-and-shrink",
            "before": _AB,
            "after": (
                LAN,
                _pinned("a", f"{on_lan(11)}, rlimits: {{nofile: 9}}, disk: {{size: 1Gi}}, memory: {{limit: 64Mi}}"),
                _pinned("b", f"{on_lan(12)}, features: {{nesting: true}}"),
            ),
        },
        {"name": "prune", "before": (*_AB, _pinned("c")), "after": _AB},
        {"name": "prune-the-last-of-a-network", "before": (LAN, _A, _pinned("b")), "after": (_pinned("b"),)},
        {"name": "prune-many", "before": (*_AB, _pinned("c")), "after": (LAN, _A), "consent": True},
        {"name": "restore", "before": _AB, "happens": _trash_b, "after": _AB},
        {
            "name": "restore-and-change",
            "before": _AB,
            "happens": _trash_b,
            "after": (LAN, _A, _pinned("b", f"{on_lan(22)}, memory: {{limit: 64Mi}}")),
        },
        {"name": "purge", "before": _AB, "happens": _trash_and_wait, "after": _AB[:2]},
        {
            "name": "rename",
            "before": (LAN, ve("old", on_lan(11))),
            "after": (LAN, ve("new", on_lan(11), "renamedFrom: old")),
        },
        {"name": "protect", "before": (_pinned("a"),), "after": (_pinned("a", "protect: true"),)},
        {"name": "unprotect", "before": (_pinned("a", "protect: true"),), "after": (_pinned("a", "protect: false"),)},
        {"name": "record-only", "before": (_pinned("a"),), "after": (_pinned("a", "description: new"),)},
        {"name": "gateway", "before": _AB, "after": (LAN.replace("0.1,", "0.254,"), _A, _B)},
        {
            "name": "mtu-and-isolation",
            "before": _AB,
            "after": (LAN.replace("nat: true", "mtu: 1400, isolated: true"), _A, _B),
        },
        {"name": "network-becomes-routed", "before": _AB, "after": (_ROUTED, _A, _B)},
        {"name": "uplink", "before": _AB, "after": (LAN.replace("nat: true", "uplink: eno1"), _A, _B), "consent": True},
        {
            "name": "forward",
            "before": _AB,
            "after": (LAN.replace("nat: true", "nat: true, forwards: [{listen: 80, to: 'a:80'}]"), _A, _B),
        },
        {
            "name": "snapshot",
            "before": (_pinned("a"),),
            "after": (_pinned("a", "snapshots: [{name: x}, {name: y, memory: true}]"),),
            "happens": _write("/early"),
        },
        {"name": "snapshot-removed", "before": (_ALONE,), "after": (_pinned("a"),), "consent": True},
        {"name": "rollback", "before": (LAN, _KEPT, _B), "happens": _write("/late"), "after": (LAN, _ROLLED, _B)},
        {
            "name": "rollback-of-a-stopped-one",
            "before": (_ALONE.replace("golden}]", "golden}], power: stopped"),),
            "happens": _write("/late"),
            "after": (_BACK.replace("golden}]", "golden}], power: stopped"),),
        },
        {
            "name": "rollback-and-stop-and-take-another",
            "before": (_ALONE,),
            "happens": _write("/late"),
            "after": (_BACK.replace("golden}]", "golden}, {name: late}], power: stopped"),),
        },
        {
            "name": "rollback-asked-again",
            "before": (_BACK,),
            "happens": _write("/late"),
            "after": (_BACK.replace("request: again", "request: once more"),),
        },
        {
            "name": "restore-while-a-rollback-stands",
            "before": (_ALONE, _pinned("b")),
            "happens": _write_and_trash_a,
            "after": (_BACK, _pinned("b")),
        },
        {"name": "schedule", "before": (_pinned("a"),), "after": (_pinned("a", _HOURLY),)},
        {
            "name": "schedule-due-again",
            "before": (_pinned("a", _HOURLY),),
            "happens": _write_and_wait,
            "after": (_pinned("a", _HOURLY.replace("keep: 2", "keep: 1")),),
        },
        {
            "name": "schedule-removed",
            "before": (_pinned("a", _HOURLY),),
            "after": (_pinned("a"),),
            "consent": True,
        },
        {
            "name": "put-aside-for-long",
            "before": (_ALONE,),
            "happens": _put_aside_and_wait,
            "after": (_BACK,),
        },
        {
            "name": "rollback-with-memory",
            "before": (LAN, _KEPT.replace("golden", "golden, memory: true"), _B),
            "happens": _write("/late"),
            "after": (LAN, _ROLLED.replace("name: golden", "name: golden, memory: true"), _B),
        },
        {
            "name": "rollback-of-a-suspended-one",
            "before": (_ALONE.replace("golden}]", "golden}], power: suspended"),),
            "happens": _write("/late"),
            "after": (_BACK,),
        },
        {
            "name": "clone",
            "before": (_ALONE,),
            "happens": _write("/late"),
            "after": (_ALONE, _pinned("c", "source: {clone: a}")),
        },
        {
            "name": "clone-of-a-snapshot",
            "before": (_ALONE,),
            "happens": _write("/late"),
            "after": (_ALONE, _pinned("c", "source: {clone: a, snapshot: golden}")),
        },
        {
            "name": "clone-of-a-snapshot-that-is-yet-to-be-taken",
            "before": (_pinned("a"),),
            "happens": _write("/late"),
            "after": (_ALONE, _pinned("c", "power: stopped, source: {clone: a, snapshot: golden}")),
        },
        {
            "name": "fresh",
            "before": (_ALONE, _pinned("b")),
            "happens": _write_and_trash_a,
            "after": (
                ve("a", "source: {fresh: true}"),
                _pinned("b"),
            ),
        },
        {
            "name": "recreate",
            "before": (_pinned("a"),),
            "happens": _write("/home/a", "/etc/b"),
            "after": (
                _TRIXIE,
                _ANEW,
            ),
            "consent": True,
        },
        {
            "name": "recreate-and-stop",
            "before": (_pinned("a"),),
            "happens": _write("/home/a", "/etc/b"),
            "after": (
                _TRIXIE,
                _ANEW.replace("trixie", "trixie, power: stopped"),
            ),
            "consent": True,
        },
        {"name": "drift", "before": _AB, "happens": _drift, "after": _AB},
        {"name": "init-killed", "before": _AB, "happens": _kill_a, "after": _AB},
        {"name": "host-rebooted", "before": _AB, "happens": lambda rig: rig.world.reboot_host(), "after": _AB},
        {"name": "suspend", "before": _AB, "after": _AB_SUSPENDED},
        {
            "name": "suspend-and-change",
            "before": _AB,
            "after": (
                LAN,
                _pinned("a", f"{on_lan(21)}, power: suspended, rlimits: {{nofile: 9}}, memory: {{limit: 64Mi}}"),
                _B,
            ),
        },
        {"name": "resume", "before": _AB, "happens": _suspend_a, "after": _AB},
        {
            "name": "resume-with-settings-and-quotas",
            "before": (LAN, _pinned("a", _SET), _B),
            "happens": lambda rig: rig.converge(fleet_of(LAN, _pinned("a", f"{_SET}, power: suspended"), _B)),
            "after": (LAN, _pinned("a", _SET), _B),
        },
        {
            "name": "resume-and-change",
            "before": _AB,
            "happens": _suspend_a,
            "after": (
                LAN,
                _pinned("a", f"{on_lan(21)}, memory: {{limit: 64Mi}}, processes: 99, disk: {{size: 1Gi}}"),
                _B,
            ),
        },
        {
            "name": "resume-and-restart",
            "before": _AB,
            "happens": _suspend_a,
            "after": (LAN, _pinned("a", f"{on_lan(11)}, rlimits: {{nofile: 9}}"), _B),
        },
        {
            "name": "resume-after-a-reboot",
            "before": _AB,
            "happens": _suspend_and(lambda rig: rig.world.reboot_host()),
            "after": _AB,
        },
        {
            "name": "suspended-over-a-reboot",
            "before": _AB,
            "happens": _suspend_and(lambda rig: rig.world.reboot_host()),
            "after": _AB_SUSPENDED,
        },
        {
            "name": "resume-and-stop",
            "before": _AB,
            "happens": _suspend_a,
            "after": (LAN, _pinned("a", f"{on_lan(11)}, power: stopped"), _B),
        },
        {"name": "half-suspended-and-resumed", "before": _AB, "happens": _half_suspend_a, "after": _AB},
        {"name": "half-suspended", "before": _AB, "happens": _half_suspend_a, "after": _AB_SUSPENDED},
        {"name": "half-suspended-and-pruned", "before": _AB, "happens": _half_suspend_a, "after": (LAN, _B)},
        {"name": "prune-suspended", "before": _AB, "happens": _suspend_a, "after": (LAN, _B)},
        {"name": "restore-suspended", "before": _AB, "happens": _suspend_and(_trash_a), "after": _AB_SUSPENDED},
        {"name": "restore-and-resume", "before": _AB, "happens": _suspend_and(_trash_a), "after": _AB},
        {
            "name": "everything-at-once",
            "before": (*_AB, _pinned("c"), _pinned("d", "power: stopped")),
            "after": (
                LAN,
                _pinned("a", f"{on_lan(31)}, rlimits: {{nofile: 7}}"),
                _B,
                _pinned("d"),
                _pinned("e", on_lan(15)),
            ),
        },
    )
)
