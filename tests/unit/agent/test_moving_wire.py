"""What hosts say to each other about moves is taken apart as it was put together, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reconciler.agent.moving import wire
from reconciler.agent.moving.wire import Ask, Told
from reconciler.errors import StateError
from reconciler.model.facts import Json
from reconciler.model.identity import TemplateName, VeName
from reconciler.model.moving import Passage, SourcePhase
from reconciler.model.placement import Parcel, ParcelKind
from reconciler.model.volume import Record
from reconciler.plan.handover import Answer
from tests.support.moves import MOVE, UID

PASSAGE = Passage(move=MOVE, phase=SourcePhase.HOLDING, since=1.0, was_running=True)
RECORD = Record(
    uid=UID,
    name=VeName("web1"),
    id_base=1 << 16,
    template=TemplateName("busybox"),
    template_digest=None,
    init=("/sbin/init",),
    source="dir:/etc/fleet",
    created_at=1.0,
)


@pytest.mark.parametrize("ask", Ask)
def test_a_question_is_heard_as_it_was_asked(ask: Ask) -> None:
    heard = wire.question_from(wire.question(ask, PASSAGE, RECORD if ask is Ask.PLACE else None))
    assert (heard.ask, heard.move, heard.was_running) == (ask, MOVE, True)
    assert heard.record == (RECORD if ask is Ask.PLACE else None)


@pytest.mark.parametrize("kind", ParcelKind)
def test_a_parcel_is_announced_as_what_it_is(kind: ParcelKind) -> None:
    parcel = Parcel(kind=kind, name="2", parent="data:1")
    assert wire.header_from(wire.header(PASSAGE, parcel)) == (MOVE, parcel)


@pytest.mark.parametrize("answer", Answer)
def test_an_answer_is_heard_as_it_was_given(answer: Answer) -> None:
    told = Told(answer=answer, has=frozenset({"data:1", "memory:memory"}), why="no space")
    assert wire.told_from(wire.told(told)) == told


def _without(key: str) -> Callable[[dict[str, Json]], dict[str, Json]]:
    return lambda data: {name: value for name, value in data.items() if name != key}


BAD_QUESTIONS: tuple[Callable[[dict[str, Json]], dict[str, Json]], ...] = (
    _without("ask"),
    _without("move"),
    _without("was_running"),
    lambda data: {**data, "ask": "kill"},
    lambda data: {**data, "more": 1},
    lambda data: {**data, "move": []},
    lambda data: {**data, "record": {}},
)


@pytest.mark.parametrize("damage", BAD_QUESTIONS)
def test_a_question_that_is_not_understood_is_refused(damage: Callable[[Any], Any]) -> None:
    with pytest.raises(StateError):
        wire.question_from(damage(wire.question(Ask.OFFER, PASSAGE)))


@pytest.mark.parametrize("damage", [_without("parcel"), _without("move"), lambda data: {**data, "parcel": {}}])
def test_a_parcel_that_is_not_understood_is_refused(damage: Callable[[Any], Any]) -> None:
    with pytest.raises(StateError):
        wire.header_from(damage(wire.header(PASSAGE, Parcel(kind=ParcelKind.DATA, name="0"))))
