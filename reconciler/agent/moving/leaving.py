"""What is done at the source to a VE that leaves: it is made to stand still, and in the end it goes."""

from __future__ import annotations

from dataclasses import replace

from reconciler.agent.moving.looking import Seen
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.moving import Passage
from reconciler.model.ownership import Strategy
from reconciler.model.placement import EndHeld, Held, HoldRuntime
from reconciler.model.power import DeleteRuntime, PowerState, StopRuntime
from reconciler.model.seam import Effects
from reconciler.model.volume import Record, TrashVe
from reconciler.plan import power


def is_live(passage: Passage) -> bool:
    """Say whether a VE's processes come along as they are."""
    return passage.move.strategy is Strategy.LIVE and passage.was_running


def serves(passage: Passage) -> str:
    """Name the action that the effects of a move serve."""
    return f"{passage.move.name}:move"


async def hold(effects: Effects, passage: Passage, seen: Seen, *, number: int) -> None:
    """Make a VE stand still that runs. ``number``: of the parcel of its data as they are then.

    Raises: VectlError, and then one that is held goes on as if nothing had been.
    """
    uid, observed = passage.uid, seen[1]
    if is_live(passage):
        await effects.perform(HoldRuntime(uid=uid, move=passage.move.id, number=number, serves=serves(passage)))
        return
    for effect in power.stop_effects(uid, _stop_timeout_s(seen), observed):
        await effects.perform(replace(effect, serves=serves(passage)))


async def let_go(effects: Effects, passage: Passage, seen: Seen) -> None:
    """Put a VE in the trash that is another host's now.

    Raises: VectlError.
    """
    uid, observed = passage.uid, seen[1]
    ended: tuple[Effect, ...] = ()
    if observed.held is Held.LEAVING:
        ended = (EndHeld(uid=uid, move=passage.move.id),)
    elif observed.state is PowerState.RUNNING:
        ended = (StopRuntime(uid=uid, timeout_s=_stop_timeout_s(seen)),)
    for effect in (*ended, DeleteRuntime(uid=uid), RemoveCgroup(uid=uid), TrashVe(uid=uid)):
        await effects.perform(replace(effect, serves=serves(passage)))


def _stop_timeout_s(seen: Seen) -> float:
    record = seen[0].record
    assert isinstance(record, Record)  # looking refuses what cannot be read
    return power.stop_timeout_s(record.applied)
