"""The tables of the handover, for every combination of what a host may know."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from reconciler.model.moving import SourcePhase, TargetPhase
from reconciler.plan.handover import (
    Answer,
    Arriving,
    Leaving,
    Owner,
    SourceFacts,
    SourceStep,
    Standing,
    TargetFacts,
    TargetStep,
    answer_of,
    source_step,
    target_step,
)

_FLAGS = (False, True)
_UNISSUED = (SourcePhase.PREPARING, SourcePhase.HOLDING, SourcePhase.RETURNING)


def _every_source() -> Iterator[SourceFacts]:
    for phase, here, owner, move, answer, is_live, is_copied, gives_up in product(
        SourcePhase, Leaving, Owner, Standing, Answer, _FLAGS, _FLAGS, _FLAGS
    ):
        yield SourceFacts(
            phase=phase,
            here=here,
            owner=owner,
            move=move,
            answer=answer,
            is_live=is_live,
            is_copied=is_copied,
            gives_up=gives_up,
        )


def _every_target() -> Iterator[TargetFacts]:
    for phase, here, owner, move, is_live, has_failed in product(
        TargetPhase, Arriving, Owner, Standing, _FLAGS, _FLAGS
    ):
        yield TargetFacts(phase=phase, here=here, owner=owner, move=move, is_live=is_live, has_failed=has_failed)


def test_every_combination_has_exactly_one_answer() -> None:
    assert {source_step(facts) for facts in _every_source()} == set(SourceStep)
    assert {target_step(facts) for facts in _every_target()} == set(TargetStep)
    assert {answer_of(facts) for facts in _every_target()} == set(Answer) - {Answer.UNKNOWN}


def test_the_source_lets_go_on_only_what_cannot_leave_by_this_move_any_more() -> None:
    for facts in _every_source():
        step = source_step(facts)
        if step is SourceStep.THAW:
            assert facts.phase is SourcePhase.RETURNING, facts
            assert facts.owner not in (Owner.TARGET, Owner.OTHER), facts
        if step is SourceStep.RETURN and facts.phase not in _UNISSUED:
            assert (facts.owner, facts.move) == (Owner.SOURCE, Standing.GONE), facts


def test_the_source_throws_away_only_what_it_read_to_be_anothers() -> None:
    for facts in _every_source():
        if source_step(facts) is SourceStep.LET_GO:
            assert facts.owner in (Owner.TARGET, Owner.OTHER), facts
            assert facts.phase in (SourcePhase.COMMITTED, SourcePhase.ENDING), facts
            if facts.phase is SourcePhase.COMMITTED and facts.owner is Owner.TARGET:
                assert facts.answer is Answer.RUNNING, facts


def test_ownership_is_handed_over_only_while_the_ve_stands_still_and_the_target_is_ready() -> None:
    for facts in _every_source():
        if source_step(facts) is SourceStep.HAND_OVER:
            assert (facts.owner, facts.move) == (Owner.SOURCE, Standing.STANDS), facts
            assert facts.answer is Answer.READY, facts
            if facts.phase is SourcePhase.HOLDING:
                assert facts.here is (Leaving.HELD if facts.is_live else Leaving.DOWN), facts


def test_the_target_lets_run_only_what_it_read_to_be_its_own() -> None:
    for facts in _every_target():
        if target_step(facts) in (TargetStep.OPEN, TargetStep.RESTORE, TargetStep.HAND_BACK):
            assert facts.owner is Owner.TARGET, facts


def test_the_target_throws_away_only_what_it_read_not_to_come_and_never_what_may_have_run() -> None:
    for facts in _every_target():
        if target_step(facts) is TargetStep.DISCARD:
            is_gone = facts.owner is Owner.SOURCE and facts.move is Standing.GONE
            assert is_gone or facts.owner is Owner.OTHER, facts
            assert facts.phase is not TargetPhase.OPENING, facts
            assert facts.here is not Arriving.RUNNING, facts


def test_ownership_goes_back_only_while_nothing_may_have_run() -> None:
    for facts in _every_target():
        if target_step(facts) is TargetStep.HAND_BACK:
            assert facts.phase in (TargetPhase.RECEIVING, TargetPhase.REFUSING), facts
            assert facts.phase is TargetPhase.REFUSING or facts.here in (
                Arriving.NOTHING,
                Arriving.PLACED,
                Arriving.REMEMBERED,
            ), facts


def test_what_is_not_known_leads_to_nothing_that_cannot_be_taken_back() -> None:
    for facts in _every_source():
        if facts.owner is Owner.UNKNOWN and facts.phase not in _UNISSUED:
            assert source_step(facts) in (SourceStep.READ, SourceStep.FINISH), facts
            if source_step(facts) is SourceStep.FINISH:
                assert facts.here is Leaving.GONE, facts
    for target in _every_target():
        if target.owner is Owner.UNKNOWN and target.phase is not TargetPhase.DONE:
            assert target_step(target) in (TargetStep.READ, TargetStep.FORGET), target
