"""What the two hosts of a move say to each other, as JSON. What comes in is not to be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.model.moving import Passage
from reconciler.model.ownership import Move, move_from_fields, move_to_json
from reconciler.model.placement import Parcel, ParcelKind
from reconciler.model.record import record_from_fields, record_to_json
from reconciler.model.volume import Record
from reconciler.plan.handover import Answer


class Ask(StrEnum):
    """What the source asks. `GO` and `DISCARD` are hints: the target reads what has become of the move."""

    OFFER = "offer"
    PLACE = "place"
    RESTORE = "restore"
    STAGE = "stage"
    GO = "go"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``record``: of the VE, where it is to be placed. ``was_running``: whether its processes come along."""

    ask: Ask
    move: Move
    was_running: bool
    record: Record | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the target answers. ``has``: the parcels that are there; ``why``: for what reason it refuses."""

    answer: Answer
    has: frozenset[str] = frozenset()
    why: str = ""


def question(ask: Ask, passage: Passage, record: Record | None = None) -> dict[str, Json]:
    """Give a question."""
    placed: dict[str, Json] = {} if record is None else {"record": record_to_json(record)}
    move = move_to_json(passage.move)
    return {"ask": ask.value, "move": move, "was_running": passage.was_running, **placed}


def question_from(data: Mapping[str, Json]) -> Question:
    """Take a question apart.

    Raises: StateError.
    """
    fields = _fields(data)
    asked = Question(
        ask=fields.word("ask", Ask),
        move=move_from_fields(fields.fields("move")),
        was_running=fields.flag("was_running"),
        record=record_from_fields(fields.fields("record")) if fields.has("record") else None,
    )
    fields.end()
    return asked


def header(passage: Passage, parcel: Parcel) -> dict[str, Json]:
    """Give what goes ahead of a parcel's bytes."""
    sent: dict[str, Json] = {"kind": parcel.kind.value, "name": parcel.name, "parent": parcel.parent}
    return {"move": move_to_json(passage.move), "parcel": sent}


def header_from(data: Mapping[str, Json]) -> tuple[Move, Parcel]:
    """Take apart what goes ahead of a parcel's bytes.

    Raises: StateError.
    """
    fields = _fields(data)
    move, sent = move_from_fields(fields.fields("move")), fields.fields("parcel")
    parcel = Parcel(kind=sent.word("kind", ParcelKind), name=sent.text("name"), parent=sent.optional_text("parent"))
    sent.end()
    fields.end()
    return move, parcel


def told(answer: Told) -> dict[str, Json]:
    """Give an answer."""
    return {"answer": answer.answer.value, "has": list[Json](sorted(answer.has)), "why": answer.why}


def told_from(data: Mapping[str, Json]) -> Told:
    """Take an answer apart.

    Raises: StateError.
    """
    fields = _fields(data)
    answer = Told(answer=fields.word("answer", Answer), has=frozenset(fields.texts("has")), why=fields.text("why"))
    fields.end()
    return answer


def _fields(data: Mapping[str, Json]) -> Fields:
    return Fields(dict(data), where="what another host says of a move")
