"""Doubt about what is kept of former plans: each answer from there is compared with a plan that is made anew."""

from __future__ import annotations

from reconciler.model.fleet import VeSpec
from reconciler.model.observation import VeObservation
from reconciler.plan import ve
from reconciler.plan.actions import Context
from reconciler.plan.settled import Settled
from reconciler.plan.ve import VePlan


class Doubting(Settled):
    """Gives only answers that planning anew would give as well."""

    def plan(self, spec: VeSpec, observed: VeObservation, context: Context) -> VePlan:
        known = self._ves.get(observed.uid)
        given = super().plan(spec, observed, context)
        if known is not None and self._ves.get(observed.uid) is known:  # nothing was planned anew
            anew = ve.plan_existing(spec, observed, context)
            assert given == anew, f"{spec.name}: what was kept of former plans says {given}, a new one {anew}"
        return given
