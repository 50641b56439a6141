"""The journal of moves: what was written is what is read, and what is damaged is never taken for nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.model.identity import Uid
from reconciler.model.moving import Passage, SourcePhase, TargetPhase
from reconciler.state.moves import Moves
from tests.support.moves import MOVE, UID

PASSAGE = Passage(move=MOVE, phase=SourcePhase.PREPARING, since=1_700_000_001.0, cut=2, was_running=True, why="")


def _file(state: Path) -> Path:
    return state / "moves" / f"{UID}.json"


@pytest.mark.parametrize("phase", [*SourcePhase, *TargetPhase])
def test_every_phase_is_read_as_it_was_written(tmp_path: Path, phase: SourcePhase | TargetPhase) -> None:
    moves, passage = Moves(str(tmp_path)), replace(PASSAGE, phase=phase, why="nobody wants it")
    moves.write(passage)
    assert Moves(str(tmp_path)).read(UID) == passage
    assert moves.uids() == (UID,)


def test_a_ve_on_no_move_has_no_entry(tmp_path: Path) -> None:
    moves = Moves(str(tmp_path))
    assert moves.read(UID) is None
    assert moves.uids() == ()
    moves.write(PASSAGE)
    moves.forget(UID)
    moves.forget(UID)
    assert moves.read(UID) is None
    assert moves.uids() == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}'])
def test_a_damaged_entry_is_an_error_and_still_counts(tmp_path: Path, content: bytes) -> None:
    moves = Moves(str(tmp_path))
    moves.write(PASSAGE)
    _file(tmp_path).write_bytes(content)
    with pytest.raises(StateError, match="ask the coordinator who owns the VE"):
        moves.read(UID)
    assert moves.uids() == (UID,)


@pytest.mark.parametrize(
    ("key", "value"),
    [("role", "judge"), ("phase", "committed-perhaps"), ("phase", "receiving"), ("cut", "2"), ("new", 1), ("move", {})],
)
def test_a_field_that_is_not_understood_is_an_error(tmp_path: Path, key: str, value: object) -> None:
    moves = Moves(str(tmp_path))
    moves.write(PASSAGE)
    data = json.loads(_file(tmp_path).read_bytes())
    _file(tmp_path).write_text(json.dumps({**data, key: value}))
    with pytest.raises(StateError):
        moves.read(UID)


def test_the_entry_of_another_ve_is_an_error(tmp_path: Path) -> None:
    moves, other = Moves(str(tmp_path)), Uid("00000000-0000-4000-8000-000000000000")
    moves.write(PASSAGE)
    _file(tmp_path).rename(_file(tmp_path).with_name(f"{other}.json"))
    with pytest.raises(StateError, match="expected the move of the VE that it is named after"):
        moves.read(other)


@pytest.mark.parametrize("uid", ["", "../x", "a/b", ".hidden"])
def test_no_entry_lies_elsewhere(tmp_path: Path, uid: str) -> None:
    with pytest.raises(StateError):
        Moves(str(tmp_path)).read(Uid(uid))
