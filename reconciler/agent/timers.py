"""What is due at some time, whatever happens until then: the next snapshot of a schedule, the end of what is kept."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet
from reconciler.model.identity import VeName
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.volume import Record
from reconciler.plan.snapshots import wakes_in_s

TICK_S = 0.01
"""How long after the moment itself something due is looked at: clocks differ by less. Units: seconds."""


def due(fleet: Fleet, observed: HostObservation, *, now: float, keep_s: float) -> Iterator[tuple[VeName, float]]:
    """Yield the VEs that need a look later, and in how many seconds. Units: ``now`` seconds since the epoch."""
    for seen in observed.ves.values():
        wait_s = _due(fleet, seen, now, keep_s) if isinstance(seen.record, Record) else None
        if wait_s is not None and isinstance(seen.record, Record):
            yield seen.record.name, wait_s + TICK_S


def _due(fleet: Fleet, seen: VeObservation, now: float, keep_s: float) -> float | None:
    assert isinstance(seen.record, Record)
    spec = fleet.ves.get(seen.record.name)
    if spec is None or isinstance(seen.snapshots, Unknown):
        return None
    runs = isinstance(seen.power, PowerObservation) and seen.power.state is PowerState.RUNNING
    return wakes_in_s(spec, seen.snapshots, now=now, keep_s=keep_s, runs=runs)
