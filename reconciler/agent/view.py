"""VEs as commands and other hosts see them: what the host holds, what the manifests name, and what was said of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reconciler.errors import KernelError, StateError
from reconciler.model.identity import VeName

if TYPE_CHECKING:
    from reconciler.agent.desk import Desk
    from reconciler.agent.session import Session
    from reconciler.host.site import Site
    from reconciler.model.condition import Condition
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet, VeSpec
    from reconciler.model.identity import Uid
    from reconciler.model.observation import HostObservation, VeObservation
    from reconciler.model.power import PowerObservation
    from reconciler.model.volume import Record
    from reconciler.state.config import Config


class Standpoint(Protocol):
    """From where VEs are looked at: the books of an instance."""

    @property
    def desk(self) -> Desk:
        """Its stores."""
        ...

    @property
    def config(self) -> Config:
        """Its configuration."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A VE, as far as it is there and as far as a manifest names it."""

    name: str
    spec: VeSpec | None
    seen: VeObservation | None
    conditions: tuple[Condition, ...]

    @property
    def record(self) -> Record | None:
        """Its record, if that could be read."""
        from reconciler.model.facts import Unknown

        return None if self.seen is None or isinstance(self.seen.record, Unknown) else self.seen.record

    @property
    def power(self) -> PowerObservation | None:
        """What was seen of its power, if that could be read."""
        from reconciler.model.facts import Unknown

        return None if self.seen is None or isinstance(self.seen.power, Unknown) else self.seen.power

    @property
    def power_word(self) -> str:
        """The observed power; what was never made does not run."""
        if self.seen is None:
            return "stopped"
        return self.power.state.value if self.power is not None else "unknown"

    @property
    def ready(self) -> Condition:
        """Its condition Ready."""
        from reconciler.model.condition import ConditionType

        return next(condition for condition in self.conditions if condition.type is ConditionType.READY)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels: those of the manifest, else those that it was last given."""
        if self.spec is not None:
            return dict(self.spec.labels)
        applied = self.record.applied.get("labels") if self.record is not None else None
        return {key: str(value) for key, value in applied.items()} if isinstance(applied, dict) else {}


def rows(session: Standpoint, fleet: Fleet | None, observed: HostObservation, *, revision: str = "") -> list[Row]:
    """Give all VEs of this host and of the manifests that name it, by name.

    ``fleet`` None: the manifests are not at hand; those of a ``revision`` that something was said of are enough.
    Raises: StateError, KernelError.
    """
    from reconciler.plan.inputs import is_here

    stored = session.desk.conditions.read_all()
    seen = dict(_by_name(observed))
    host = session.config.instance.host
    specs = {str(n): spec for n, spec in (fleet.ves if fleet else {}).items() if is_here(spec, host)}
    ves = {name: found for name, found in stored.items() if "." not in name}  # those of networks have a dot
    told = {name for name, found in ves.items() if fleet is None and _speaks_of(found, revision)}
    return [
        Row(name=name, spec=specs.get(name), seen=seen.get(name), conditions=_with_ready(stored.get(name, ())))
        for name in sorted(seen.keys() | specs.keys() | told)
    ]


def _speaks_of(conditions: Iterable[Condition], revision: str) -> bool:
    """Say whether conditions are of a VE of a revision; the source's own say nothing of any VE."""
    from reconciler.model.condition import ConditionType

    return bool(revision) and any(c.type is ConditionType.READY and c.revision == revision for c in conditions)


def row(session: Session, observed: HostObservation, name: str) -> Row | None:
    """Give one VE, as far as the host holds it or anything was said of it; None if neither.

    Raises: KernelError, if not all VEs could be seen: then nobody can say that it is not there.
    """
    seen = dict(_by_name(observed)).get(name)
    stored = session.desk.conditions.read(name)
    if seen is None and not observed.complete:
        raise KernelError(f"find VE {name}: not all VEs of this host could be read; try again")
    if seen is None and not stored:
        return None
    return Row(
        name=name, spec=session.reconciler.fleet.ves.get(VeName(name)), seen=seen, conditions=_with_ready(stored)
    )


def _by_name(observed: HostObservation) -> Iterator[tuple[str, VeObservation]]:
    from reconciler.model.facts import Unknown

    for uid, ve in observed.ves.items():
        yield (str(uid) if isinstance(ve.record, Unknown) else str(ve.record.name)), ve


def _with_ready(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Add what is said of a VE that nobody has looked at since the host booted."""
    from reconciler.model.condition import Condition, ConditionType, Status

    if any(condition.type is ConditionType.READY for condition in conditions):
        return conditions
    message = "no pass was made over it since the host booted"
    ready = Condition(type=ConditionType.READY, status=Status.UNKNOWN, reason="NotReconciled", message=message)
    return (ready, *conditions)


def select(found: Iterable[Row], names: Sequence[str], *, asked: str) -> list[Row]:
    """Give the rows that were named, all if none was.

    Raises: StateError, naming the first that is not there.
    """
    by_name = {row.name: row for row in found}
    for name in names:
        if name not in by_name:
            raise StateError(f"{asked} {name}: neither a manifest nor this host has a VE of that name")
    return [by_name[name] for name in names] if names else list(by_name.values())


def item(session: Standpoint, row: Row) -> dict[str, Json]:
    """Give the stable form of a VE in `vectl get -o json`."""
    from reconciler.plan.field import nest
    from reconciler.plan.spec import observed_values, spec_values, unknown_paths

    seen = row.seen
    uid = seen.uid if seen is not None else (row.spec.uid if row.spec else None)
    return {
        "name": row.name,
        "uid": uid,
        "host": session.config.instance.host,
        "power": row.power_word,
        "conditions": [condition.to_json() for condition in row.conditions],
        "desired": nest(spec_values(row.spec)) if row.spec else None,
        "observed": nest(observed_values(seen)) if seen else None,
        "runtime": _runtime(session, row),
        "unknown": [*(unknown_paths(seen) if seen else {})],
    }


def _runtime(session: Standpoint, row: Row) -> Json:
    pid = row.power.pid if row.power else None
    return {
        "pid": pid,
        "cgroup": session.config.instance.ve_cgroup(row.seen.uid) if row.seen else None,
        "netns": f"/proc/{pid}/ns/net" if pid else None,
        "rootfs": f"/proc/{pid}/root" if pid else None,
        "idBase": row.record.id_base if row.record else None,
    }


def find(site: Site, name: str) -> Uid:
    """Find a VE of this host by its name.

    Raises: StateError, if there is none.
    """
    for uid in site.uids():
        record = site.read_record(uid)
        if record is not None and record.name == name:
            return uid
    raise StateError(f"find VE {name}: this host has none of that name; see `vectl get`")
