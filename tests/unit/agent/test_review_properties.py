"""Any change that was reviewed as a whole is done without another word; of one that was not, nothing is."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from reconciler.agent.between import plan_between
from reconciler.agent.reconciler import Reconciler, Result
from reconciler.model.action import Origin, Refusal
from reconciler.model.fleet import Fleet
from reconciler.plan import review
from reconciler.plan.review import Ledger
from reconciler.twin.host import ALL_CAPABILITIES
from tests.support.fleets import edits
from tests.support.rig import NODE, V1, Rig, run, scratch_state

pytestmark = pytest.mark.timeout(600)  # many small cases, on a machine that may be busy

PATIENT = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def ledger_of(base: Fleet, head: Fleet, *, heard: bool) -> Ledger:
    step = review.step_of(plan_between(base, head, NODE), head.revision)
    ledger = review.taken(Ledger(base=base.revision, head=base.revision), [step], step)
    return review.accepted(ledger, {step.hash} if heard else ())


def reviewing(rig: Rig, edit: tuple[Fleet, Fleet], *, heard: bool) -> Reconciler:
    """Give what a host that is as the first says makes of the second, from when its root began to ask for reviews."""
    base, head = edit
    assume(run(passes(rig.reconciler(base)))[-1].converged)
    (rig.state / "policy.yaml").write_text("requireReviewed: true\n")
    reconciler = rig.reconciler(head)
    reconciler.desk.reviews.put(ledger_of(base, head, heard=heard))
    return reconciler


def changed(refusals: tuple[Refusal, ...]) -> list[str]:
    return [f"{refusal.ve}: {refusal.message}" for refusal in refusals if refusal.rule == review.RULE]


async def passes(reconciler: Reconciler) -> list[Result]:
    return await reconciler.converge()


@PATIENT
@given(edits(), st.booleans())
def test_what_was_reviewed_is_what_is_done(edit: tuple[Fleet, Fleet], old_kernel: bool) -> None:
    with scratch_state() as state:
        rig = Rig(state=state, capabilities=V1 if old_kernel else ALL_CAPABILITIES)
        reconciler = reviewing(rig, edit, heard=True)
        assert [text for result in run(passes(reconciler)) for text in changed(result.plan.refused)] == []


@PATIENT
@given(edits())
def test_what_nobody_reviewed_is_not_done(edit: tuple[Fleet, Fleet]) -> None:
    with scratch_state() as state:
        rig = Rig(state=state)
        reconciler = reviewing(rig, edit, heard=False)
        done = [outcome.action for result in run(passes(reconciler)) for outcome in result.outcomes]
        assert [action.id for action in done if action.origin is Origin.GIT and action.effects] == []
