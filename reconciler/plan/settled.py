"""What need not be planned again: a pass over hundreds of VEs of which nothing changed costs comparing, not planning.

Everything here is a function of what it is given. What is kept of former plans changes how long an answer takes, and
never the answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from reconciler.model.facts import Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Uid
from reconciler.model.observation import VeObservation
from reconciler.model.snapshots import SnapshotKind
from reconciler.plan import ve
from reconciler.plan.actions import Context
from reconciler.plan.ve import VePlan

_NOTHING = VePlan()


@dataclass(slots=True, eq=False)
class Settled:
    """The VEs that were found to be as they should, each with what that was found from."""

    _context: Context | None = None
    _ves: dict[Uid, tuple[VeSpec, VeObservation, int | None]] = field(default_factory=dict)

    def enter(self, context: Context) -> None:
        """Begin to plan in a context: what was found in another one is forgotten.

        A VE that is as it should be and waits for nobody is so whoever else runs, whatever anything took, at any time.
        """
        known = replace(context, now=0.0, running=frozenset(), measured={})
        if known != self._context:
            self._context = known
            self._ves.clear()

    def plan(self, spec: VeSpec, observed: VeObservation, context: Context) -> VePlan:
        """Plan a VE that is here, in the context that was entered."""
        known = self._ves.get(observed.uid)
        room = _room(observed)
        if known is not None and known[0] is spec and known[1] == observed and known[2] == room:
            return _NOTHING
        part = ve.plan_existing(spec, observed, context)
        if part == _NOTHING and _is_timeless(spec, observed):
            self._ves[observed.uid] = spec, observed, room
        else:
            self._ves.pop(observed.uid, None)
        return part

    def keep_only(self, uids: Collection[Uid]) -> None:
        """Forget the VEs that are no more."""
        for uid in self._ves.keys() - uids:
            del self._ves[uid]


def _room(observed: VeObservation) -> int | None:
    """Give the one thing on which a plan depends and that observations are not compared by."""
    return None if isinstance(observed.volume, Unknown) else observed.volume.room


def _is_timeless(spec: VeSpec, observed: VeObservation) -> bool:
    """Say whether a VE that is as it should be stays so by itself: nothing is to be made or deleted at some time."""
    kept = observed.snapshots
    is_dated = isinstance(kept, Unknown) or any(one.kind is not SnapshotKind.NAMED for one in kept.snapshots.values())
    return spec.snapshots.schedule is None and not is_dated and not spec.power.depends_on
