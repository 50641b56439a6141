"""Read-back: whether what an action promised is there when one looks again."""

from __future__ import annotations

from reconciler.model.action import Action, Operation
from reconciler.model.fleet import VeSpec
from reconciler.model.observation import VeObservation
from reconciler.plan import ve


def unfulfilled(action: Action, spec: VeSpec, observed: VeObservation | None, context: ve.Context) -> str:
    """Say what an action of a VE failed to bring about, or "" if all of it is so.

    A removal is fulfilled when the VE is not seen any more; every other action, when planning anew from what is seen
    no longer asks for it.
    """
    if action.op is Operation.DESTROY:
        return "" if observed is None else f"{action.ve} is still there"
    if observed is None:
        return f"{action.ve} is not there"
    part = ve.plan_existing(spec, observed, context)
    if part.unknown:
        return f"cannot tell: {part.unknown[0]}"
    for again in part.actions:
        same = again.path == action.path or (action.op is not Operation.UPDATE and again.op is not Operation.UPDATE)
        if same and again.effects:
            return f"{action.path or action.op.value} is still {again.before!r}, not {again.after!r}"
    return ""
