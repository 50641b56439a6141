"""The cases of tests/cases/plan: what was carried out before, what happened since, what is wanted, what is planned.

A case is one YAML file:

- ``why``: the rule that it states;
- ``before``: manifests that were carried out, none by default;
- ``since``: what happened to the host behind our back, one line each, the words of `HAPPENINGS`;
- ``desired``: the manifests now; left out, they are those of before;
- ``inputs``: ``prune``, ``pending``, ``paused``, ``removed``, ``host``, ``source``, ``consent``, ``later`` (seconds),
  ``cgroup: v1``, ``inventory: []``, ``cannot: {field: reason}``;
- ``actions``, ``refused``, ``unknown``, ``waiting``, ``warned``, ``orphans``, ``orphan_snapshots``: everything that the
  plan holds, in its order; of each action the fields that are given, but always ``ve``, ``op`` and ``path``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML

from reconciler.manifests.load import load_fleet
from reconciler.model.action import Plan
from reconciler.model.compute import ComputeUse, CreateCgroup, Limit, RemoveCgroup
from reconciler.model.facts import Json
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName, NetworkName, SnapshotName, Uid
from reconciler.model.observation import Capabilities, Facet
from reconciler.model.power import CreateRuntime, DeleteRuntime, EndCause, StopRuntime, SuspendRuntime
from reconciler.model.snapshots import RollBack
from reconciler.model.units import parse_size
from reconciler.model.volume import TrashVe
from reconciler.plan import planner
from reconciler.plan.inputs import Inputs
from reconciler.plan.render import is_bookkeeping
from reconciler.twin import host
from reconciler.twin.host import ALL_CAPABILITIES
from tests.support.rig import V1, Rig, run, scratch_state

FOLDER = Path(__file__).parents[2] / "cases" / "plan"

CaseFile: TypeAlias = Mapping[str, Any]  # checked by the keys that are allowed
KEYS = {"why", "before", "since", "desired", "inputs", "actions"}
TOLD = {"refused", "unknown", "waiting", "warned", "orphans", "orphan_snapshots"}


def _limit(rig: Rig, name: str, limit: str, value: str) -> None:
    number = None if value == "unlimited" else int(parse_size(value))
    rig.world.set_limit(rig.uid(name), Limit(limit), number)


def _use(rig: Rig, name: str, what: str, value: str) -> None:
    number = int(parse_size(value))
    if what == "disk":
        rig.world.set_use(rig.uid(name), disk=number)
    else:
        use = {"memory": ComputeUse(memory=number), "processes": ComputeUse(processes=number)}
        rig.world.set_use(rig.uid(name), use=use[what])


def _end(rig: Rig, name: str, cause: str, value: str = "") -> None:
    rig.world.end_init(rig.uid(name), EndCause(cause), int(value) if value else None)


def _move_address(rig: Rig, name: str, link: str, address: str) -> None:
    sign, interface = address[0], ip_interface(address[1:])
    change = rig.world.add_address if sign == "+" else rig.world.remove_address
    change(rig.uid(name), link, interface)


def _put_record(rig: Rig, name: str, **changes: Any) -> None:
    uid = rig.uid(name)
    rig.machine.records[uid] = replace(rig.record(name), **changes)


def _boot_only(rig: Rig, name: str) -> None:
    """Leave what a crash between create and start leaves."""
    uid, record = rig.uid(name), rig.record(name)
    launch = rig.machine.runtimes[uid].launch
    rig.world.end_init(uid, EndCause.KILLED)
    host.perform(rig.machine, CreateRuntime(uid=uid, name=record.name, hostname=name, launch=launch))


def _lose_volume(rig: Rig, name: str) -> None:
    rig.world.end_init(rig.uid(name), EndCause.KILLED)
    del rig.machine.volumes[rig.uid(name)]


def _put_volume(rig: Rig, name: str, **changes: Any) -> None:
    uid = rig.uid(name)
    rig.machine.volumes[uid] = replace(rig.machine.volumes[uid], **changes)


def _suspend(rig: Rig, name: str) -> None:
    uid = rig.uid(name)
    for effect in (SuspendRuntime(uid=uid), DeleteRuntime(uid=uid), RemoveCgroup(uid=uid)):
        host.perform(rig.machine, effect)


def _resume_only(rig: Rig, name: str) -> None:
    """Leave what a crash between the create and the start of a resumed VE leaves."""
    _suspend(rig, name)
    uid, record = rig.uid(name), rig.record(name)
    launch = rig.machine.memories[uid].launch
    host.perform(rig.machine, CreateCgroup(uid=uid, limits={}))
    host.perform(rig.machine, CreateRuntime(uid=uid, name=record.name, hostname=name, launch=launch, resume=True))


def _stop(rig: Rig, name: str) -> None:
    host.perform(rig.machine, StopRuntime(uid=rig.uid(name), timeout_s=30.0))


def _roll_back(rig: Rig, name: str, snapshot: str) -> None:
    """Go back as a rollback does of which the manifests say no more."""
    uid, boots = rig.uid(name), rig.machine.runtimes.pop(rig.uid(name))
    safety = SnapshotName(f"before-{snapshot}-20231114T221320Z")
    effect = RollBack(uid=uid, to=SnapshotName(snapshot), request="by hand", safety=safety, size=8 << 30)
    host.perform(rig.machine, effect)
    _put_record(rig, name, requests_done=("by hand",))
    rig.machine.runtimes[uid] = boots


def _trash(rig: Rig, name: str) -> None:
    uid = rig.uid(name)
    for effect in (
        StopRuntime(uid=uid, timeout_s=1.0),
        DeleteRuntime(uid=uid),
        RemoveCgroup(uid=uid),
        TrashVe(uid=uid),
    ):
        host.perform(rig.machine, effect)


HAPPENINGS: Mapping[str, Callable[..., None]] = {
    "limit": _limit,
    "instance-limit": lambda rig, limit, value: rig.world.set_instance_limit(Limit(limit), int(parse_size(value))),
    "use": _use,
    "end": _end,
    "address": _move_address,
    "created": _boot_only,
    "lose-volume": _lose_volume,
    "stop": _stop,
    "suspend": _suspend,
    "half-suspend": lambda rig, name: rig.world.interrupt(SuspendRuntime(uid=rig.uid(name))),
    "resume-only": _resume_only,
    "shares": lambda rig, name: _put_volume(rig, name, shares=True),
    "volume-size": lambda rig, name, size: rig.world.set_volume_size(rig.uid(name), int(parse_size(size))),
    "link-down": lambda rig, name, link: rig.world.set_link_down(rig.uid(name), link),
    "link-gone": lambda rig, name, link: rig.world.delete_link(rig.uid(name), link),
    "hostname": lambda rig, name, hostname: rig.world.set_hostname(rig.uid(name), hostname),
    "network-gone": lambda rig, name: rig.world.delete_network(NetworkName(name)),
    "network-down": lambda rig, name: rig.world.set_network_down(NetworkName(name)),
    "flush-filter": lambda rig: rig.world.flush_filter(),
    "reboot": lambda rig: rig.world.reboot_host(),
    "host-link": lambda rig, name: rig.world.add_host_link(name),
    "hide": lambda rig, name, facet: rig.world.hide(Facet(facet), rig.uid(name)),
    "hide-host": lambda rig, facet: rig.world.hide(Facet(facet)),
    "hide-listing": lambda rig: rig.world.hide_listing(),
    "damage-record": lambda rig, name: rig.world.damage_record(rig.uid(name)),
    "protect": lambda rig, name: _put_record(rig, name, protect=True),
    "from-source": lambda rig, name, source: _put_record(rig, name, source=source),
    "lose-snapshot": lambda rig, name, snapshot: rig.world.lose_snapshot(rig.uid(name), SnapshotName(snapshot)),
    "roll-back": _roll_back,
    "trash": _trash,
    "write": lambda rig, name, path: rig.world.write_file(rig.uid(name), path),
    "never-finished": lambda rig, name: _put_record(rig, name, applied={}),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A case, and what is wrong with its file if anything is."""

    name: str
    content: CaseFile

    @property
    def inputs(self) -> CaseFile:
        return self.content.get("inputs") or {}

    def plan(self) -> Plan:
        """Carry out what was before, let happen what happened, and plan."""
        with scratch_state() as state:
            rig = Rig(state=state, capabilities=V1 if self.inputs.get("cgroup") == "v1" else ALL_CAPABILITIES)
            if before := self.content.get("before"):
                rig.converge(_fleet(before, "before"))
            for line in self.content.get("since", ()):
                word, *arguments = line.split()
                HAPPENINGS[word](rig, *arguments)
            return planner.plan_host(run(self._gathered(rig)))

    async def _gathered(self, rig: Rig) -> Inputs:
        fleet = _fleet(self.content.get("desired", self.content.get("before")), "now")
        reconciler = rig.reconciler(fleet)
        inputs, _ = await reconciler.plan(await reconciler.observe())
        return self._with_words(inputs)

    def _with_words(self, inputs: Inputs) -> Inputs:
        words = self.inputs
        changed = replace(
            inputs,
            prune=words.get("prune", True),
            prune_pending=frozenset(words.get("pending", ())),
            removed_recently=words.get("removed", 0),
            removed_from_source=words.get("removed", 0),
            paused=words.get("paused", {}),
            host=HostName(words.get("host", inputs.host)),
            source=words.get("source", inputs.source),
            now=inputs.now + words.get("later", 0),
            observed=replace(inputs.observed, capabilities=self._capabilities(inputs.observed.capabilities)),
            inventory=frozenset(Uid(uid) for uid in words.get("inventory", inputs.inventory)),
        )
        if words.get("consent"):
            return replace(changed, consents=frozenset({planner.plan_host(changed).action_hash}))
        return changed

    def _capabilities(self, of_host: Capabilities) -> Capabilities:
        return replace(of_host, why_not={**of_host.why_not, **self.inputs.get("cannot", {})})

    def expected(self) -> dict[str, Json]:
        """Give what the case says of the plan."""
        told: dict[str, Json] = {key: self.content.get(key, []) for key in TOLD}
        told["waiting"] = self.content.get("waiting", {})
        return {**told, "actions": self.content.get("actions", [])}

    def found(self, plan: Plan) -> dict[str, Json]:
        """Give the same of a plan: of each action what the case tells of the one in its place."""
        actions = [action.to_json() for action in plan.actions if not is_bookkeeping(action)]
        asked: list[Mapping[str, Json]] = list(self.content.get("actions", []))
        asked += [{}] * (len(actions) - len(asked))
        return {
            "actions": [
                {key: value for key, value in action.items() if key in ("ve", "op", "path") or key in wanted}
                for action, wanted in zip(actions, asked, strict=False)
            ],
            "refused": [f"{refusal.ve} {refusal.rule}" for refusal in plan.refused],
            "unknown": [str(fact) for fact in plan.unknown],
            "waiting": dict(plan.waiting),
            "warned": [f"{drift.ve} {drift.path} {drift.policy}" for drift in plan.warned],
            "orphans": list(plan.orphans),
            "orphan_snapshots": list(plan.orphan_snapshots),
        }


def _fleet(text: str | None, revision: str) -> Fleet:
    loaded = load_fleet({"fleet.yaml": (text or "# nothing\n").encode()}, revision=revision)
    assert loaded.fleet is not None, loaded.findings
    return loaded.fleet


def _load(path: Path) -> Case:
    content = YAML(typ="safe", pure=True).load(path.read_text())
    return Case(path.stem, content)


CASES = [_load(path) for path in sorted(FOLDER.glob("*.yaml"))]
