"""The contract between two implementations of the seam: the same effects, failing alike, leave the same host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from deepdiff import DeepDiff

from reconciler.errors import VectlError
from reconciler.model.compute import (
    ComputeObservation,
    ComputeUse,
    HostComputeObservation,
    Limit,
    LimitValue,
    RemoveCgroup,
    SetInstanceLimit,
)
from reconciler.model.effects import Effect, effect_name
from reconciler.model.facts import Unknown
from reconciler.model.identity import Digest, Uid
from reconciler.model.network import FilterRules, InterfaceObservation, LoadFilter, RemoveNetwork, VeNetworkObservation
from reconciler.model.observation import Capabilities, HostObservation, VeObservation
from reconciler.model.placement import ClearMove, CutParcel, EndHeld, Held, HoldRuntime
from reconciler.model.power import (
    DeleteRuntime,
    End,
    EndCause,
    ForgetEnd,
    PowerObservation,
    PowerState,
    StopRuntime,
)
from reconciler.model.seam import Host
from reconciler.model.snapshots import SnapshotsObservation
from reconciler.model.volume import (
    PurgeTrash,
    Record,
    RemoveTemplate,
    RestoreVe,
    TrashEntry,
    TrashVe,
    VolumeObservation,
)

STOP_TIMEOUT_S = 0.3
MOVES = ("one", "two")
"""The moves that effects are about."""

_Known = TypeVar("_Known")

_FRESH = {Limit.CPU_WEIGHT: 100, Limit.MEMORY_GUARANTEE: 0}
_UNKNOWN = Unknown("")
_SOME_IMAGE = Digest("an image")
_SEEN_END = End(cause=EndCause.UNKNOWN)
_SOME_CAPABILITIES = Capabilities(cgroup="", enforceable=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Where two hosts part. ``effects``: those performed so far; ``what``: for people, the first host first."""

    effects: tuple[Effect, ...]
    what: str


async def first_disagreement(one: Host, other: Host, effects: Iterable[Effect]) -> Disagreement | None:
    """Perform effects on both hosts, look at both after each, and tell where they first differ."""
    done: list[Effect] = []
    effects = list(effects)
    for effect in effects:
        if isinstance(
            effect, CutParcel | HoldRuntime
        ):  # nothing that is observed tells of parcels that the sequence before has left
            clear = ClearMove(uid=effect.uid, move=effect.move)
            await _failure(one, clear)
            await _failure(other, clear)
    for effect in effects:
        done.append(effect)
        failures = await _failure(one, effect), await _failure(other, effect)
        if (failures[0] is None) != (failures[1] is None):
            texts = " / ".join("success" if failure is None else repr(failure) for failure in failures)
            return Disagreement(effects=tuple(done), what=f"{effect_name(effect)}: {texts}")
        difference = _difference(await one.observe(), await other.observe())
        if difference:
            return Disagreement(effects=tuple(done), what=f"{effect_name(effect)}: {difference}")
    return None


async def left_by_clearing(host: Host, fresh: Host) -> Disagreement | None:
    """Take everything off a host, by effects, and tell what is left that a fresh one has not.

    So the next sequence finds the host as the first one did.
    """
    try:
        await _clear(host)
    except VectlError as err:
        return Disagreement(effects=(), what=f"clearing: {err!r}")
    difference = _difference(await fresh.observe(), await host.observe())
    return Disagreement(effects=(), what=f"clearing: {difference}") if difference else None


def _difference(one: HostObservation, other: HostObservation) -> str:
    seen = normalise(one), normalise(other)
    return "" if seen[0] == seen[1] else str(DeepDiff(asdict(seen[0]), asdict(seen[1])).pretty())


async def _failure(host: Host, effect: Effect) -> VectlError | None:
    if isinstance(effect, RestoreVe | PurgeTrash):
        effect = with_real_trash_id(effect, (await host.observe()).trash)
    try:
        await host.perform(effect)
    except VectlError as err:
        return err
    return None


def with_real_trash_id(effect: Effect, trash: tuple[TrashEntry, ...] | Unknown) -> Effect:
    """Put the id that an entry has on one host in the place of its ordinal id; an unknown one stays as it is."""
    if not isinstance(effect, RestoreVe | PurgeTrash) or isinstance(trash, Unknown):
        return effect
    real = {ordinal: entry.id for ordinal, entry in _ordinals(trash)}
    return replace(effect, trash_id=real.get(effect.trash_id, effect.trash_id))


def normalise(seen: HostObservation) -> HostObservation:
    """Drop what two hosts in the same state need not share.

    That is: pids, times, digests, use, what the machine is, how a requested stop ended, and the ids of the trash.
    """
    return replace(
        seen,
        capabilities=_SOME_CAPABILITIES,
        ves={uid: _ve(ve, seen.capabilities) for uid, ve in sorted(seen.ves.items())},
        compute=_dumb(seen.compute),
        networks=_dumb(seen.networks),
        filter=_dumb(seen.filter),
        templates=_UNKNOWN if isinstance(seen.templates, Unknown) else dict.fromkeys(seen.templates, _SOME_IMAGE),
        trash=_UNKNOWN if isinstance(seen.trash, Unknown) else tuple(sorted(_trash(seen.trash), key=lambda e: e.id)),
        pool=_UNKNOWN,
        reach=_dumb(seen.reach),
    )


def _ve(ve: VeObservation, capabilities: Capabilities) -> VeObservation:
    return replace(
        ve,
        record=_record(ve.record) if isinstance(ve.record, Record) else _UNKNOWN,
        power=_power(ve.power) if isinstance(ve.power, PowerObservation) else _UNKNOWN,
        compute=_compute(ve.compute, capabilities) if isinstance(ve.compute, ComputeObservation) else _dumb(ve.compute),
        volume=_volume(ve.volume) if isinstance(ve.volume, VolumeObservation) else _UNKNOWN,
        network=_network(ve.network) if isinstance(ve.network, VeNetworkObservation) else _dumb(ve.network),
        mounts=_dumb(ve.mounts),
        devices=_dumb(ve.devices),
        settings=_dumb(ve.settings),
        snapshots=_snapshots(ve.snapshots) if isinstance(ve.snapshots, SnapshotsObservation) else _UNKNOWN,
    )


def _snapshots(seen: SnapshotsObservation) -> SnapshotsObservation:
    mark = None if seen.mark is None else replace(seen.mark, template_digest=_SOME_IMAGE)
    kept = {
        name: replace(it, taken_at=0.0, template_digest=_SOME_IMAGE, used=None)
        for name, it in sorted(seen.snapshots.items())
    }
    return SnapshotsObservation(snapshots=kept, mark=mark)


def _dumb(value: _Known | Unknown) -> _Known | Unknown:
    return _UNKNOWN if isinstance(value, Unknown) else value


def _volume(volume: VolumeObservation) -> VolumeObservation:
    return replace(volume, used=None, held=None, room=None, files=None, quota_use={}, shares=False)


def _record(record: Record) -> Record:
    return replace(record, template_digest=_SOME_IMAGE if record.template_digest else None)


def _power(power: PowerObservation) -> PowerObservation:
    end = _SEEN_END if power.last_end is not None and power.stop_requested else power.last_end
    return replace(
        power,
        pid=None,
        start_time=None,
        started_at=None,
        last_end=end,
        holdings=("runtime",) if power.holdings else (),
    )


def _compute(compute: ComputeObservation, capabilities: Capabilities) -> ComputeObservation:
    limits = {limit: _all_is_none(limit, value, capabilities) for limit, value in sorted(compute.limits.items())}
    return replace(compute, limits=limits, use=ComputeUse())


def _all_is_none(limit: Limit, value: LimitValue, capabilities: Capabilities) -> LimitValue:
    """Let "all CPUs" and the set of all CPUs be the same: cgroup v1 cannot tell them apart."""
    whole = {Limit.CPUS: capabilities.cpus, Limit.NODES: capabilities.nodes}.get(limit)
    return None if value == whole else value


def _network(network: VeNetworkObservation) -> VeNetworkObservation:
    interfaces = {name: _interface(seen) for name, seen in sorted(network.interfaces.items())}
    return replace(network, interfaces=interfaces)


def _interface(seen: InterfaceObservation) -> InterfaceObservation:
    return replace(seen, addresses=frozenset(address for address in seen.addresses if not address.ip.is_link_local))


def _trash(trash: tuple[TrashEntry, ...]) -> Iterator[TrashEntry]:
    for ordinal, entry in _ordinals(trash):
        yield replace(entry, id=ordinal, trashed_at=0.0, record=_record(entry.record), used=None)


def _ordinals(trash: tuple[TrashEntry, ...]) -> Iterator[tuple[str, TrashEntry]]:
    counted: dict[Uid, int] = {}
    for entry in sorted(trash, key=lambda entry: (entry.trashed_at, entry.id)):
        uid = entry.record.uid
        counted[uid] = counted.get(uid, -1) + 1
        yield f"{uid}.{counted[uid]}", entry


async def _clear(host: Host) -> None:
    for uid, ve in (await host.observe()).ves.items():
        if isinstance(ve.power, PowerObservation) and ve.power.held is Held.LEAVING:
            failures = [await _failure(host, EndHeld(uid=uid, move=move)) for move in MOVES]
            assert None in failures, failures
    for effect in _removals(await host.observe()):
        await host.perform(effect)
    left = await host.observe()
    assert not isinstance(left.trash, Unknown)
    for entry in left.trash:
        await host.perform(PurgeTrash(trash_id=entry.id))
    assert not isinstance(left.templates, Unknown)
    for key in left.templates:
        await host.perform(RemoveTemplate(key=key))


def _removals(seen: HostObservation) -> Iterator[Effect]:
    yield LoadFilter(rules=FilterRules())
    assert isinstance(seen.compute, HostComputeObservation)
    for limit in seen.compute.limits:
        yield SetInstanceLimit(limit=limit, value=_FRESH[limit])
    for uid, ve in seen.ves.items():
        if isinstance(ve.power, PowerObservation) and ve.power.state is PowerState.RUNNING:
            yield StopRuntime(uid=uid, timeout_s=STOP_TIMEOUT_S)
        yield DeleteRuntime(uid=uid)
        yield ForgetEnd(uid=uid)
        yield RemoveCgroup(uid=uid)
        yield TrashVe(uid=uid)
    assert not isinstance(seen.networks, Unknown)
    for network in seen.networks:
        yield RemoveNetwork(network=network)
