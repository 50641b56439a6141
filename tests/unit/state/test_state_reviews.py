"""What was reviewed outlives a restart as it was; a consent from a repository ends when it said, however often seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.model.action import Impact, Operation
from reconciler.plan.review import Deed, Ledger, Step
from reconciler.state.approvals import VALID_S, Approvals, noted
from reconciler.state.reviews import Reviews

ONE, TWO = "1" * 64, "2" * 64
DEED = Deed(op=Operation.RESTART, path="rlimits", after={"rlimits": {"nofile": 9}}, impact=Impact.RESTART)
STEP = Step(revision="r1", hash=ONE, hashes={"a": TWO}, deeds={"a": (DEED,)}, open=frozenset({"a"}))
LEDGER = Ledger(source="git:x", base="r0", head="r1", steps=(STEP,), whole=STEP, settled={"network/lan": (DEED, DEED)})


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    Reviews(str(tmp_path)).put(LEDGER)
    assert Reviews(str(tmp_path)).read() == LEDGER


def test_without_a_file_nothing_was_reviewed(tmp_path: Path) -> None:
    assert Reviews(str(tmp_path)).read() == Ledger()
    assert Reviews(str(tmp_path)).reviewed.read() is None


@pytest.mark.parametrize("text", ['{"format": 1}', "{", '{"format": 2, "source": ""}'])
def test_a_damaged_ledger_is_told_and_not_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / "reviews.json").write_text(text)
    with pytest.raises(StateError, match="nothing counts as reviewed"):
        Reviews(str(tmp_path)).read()


def test_a_ledger_that_did_not_change_is_not_written(tmp_path: Path) -> None:
    reviews = Reviews(str(tmp_path))
    reviews.put(LEDGER)
    (tmp_path / "reviews.json").unlink()
    reviews.put(LEDGER)
    assert not (tmp_path / "reviews.json").exists()


def test_a_consent_from_a_commit_ends_a_day_after_that_whenever_it_is_seen(tmp_path: Path) -> None:
    approvals = Approvals(str(tmp_path))
    for now in (100.0, 5000.0, VALID_S + 99):
        approvals.note([ONE, TWO], noted(ONE, by="ann", at=100.0, now=now), now=now)
        assert {(one.hash, one.expires) for one in approvals.in_force(now)} == {
            (ONE, 100.0 + VALID_S),
            (TWO, 100.0 + VALID_S),
        }
    assert not approvals.note([ONE], noted(ONE, by="ann", at=100.0, now=VALID_S + 101), now=VALID_S + 101)
    assert approvals.in_force(VALID_S + 101) == ()


def test_a_consent_that_is_dated_ahead_begins_when_it_is_seen(tmp_path: Path) -> None:
    approvals = Approvals(str(tmp_path))
    assert approvals.note([ONE], noted(ONE, by="ann", at=9000.0, now=100.0), now=100.0)
    [given] = approvals.in_force(100.0)
    assert (given.at, given.expires, given.by) == (100.0, 100.0 + VALID_S, "ann")


def test_a_longer_consent_is_not_cut_short_by_one_that_comes_along(tmp_path: Path) -> None:
    approvals = Approvals(str(tmp_path))
    approvals.approve(ONE, by="root", now=1000.0)
    assert not approvals.note([ONE], noted(ONE, by="ann", at=10.0, now=1000.0), now=1000.0)
    [given] = approvals.in_force(1000.0)
    assert (given.by, given.expires) == ("root", 1000.0 + VALID_S)
