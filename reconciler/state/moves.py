"""What this host knows of the moves that it takes part in: written down before each step that cannot be taken back."""

from __future__ import annotations

from typing import assert_never

from reconciler.errors import StateError
from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.model.identity import Uid
from reconciler.model.moving import Passage, Phase, SourcePhase, TargetPhase
from reconciler.model.ownership import move_from_fields, move_to_json
from reconciler.state import layout
from reconciler.state.document import Document

_FORMAT = 1
_SUFFIX = ".json"
_SOURCE, _TARGET = "source", "target"
_REMEDY = "ask the coordinator who owns the VE before anything of it is started or removed"


class Moves:
    """One file for each VE that is on its way. What is written lasts over a power cut."""

    __slots__ = ("_directory",)

    def __init__(self, state_dir: str) -> None:
        self._directory = f"{state_dir}/moves"

    def read(self, uid: Uid) -> Passage | None:
        """Read how far the move of a VE is; None, if it is on none.

        Raises: StateError, if it is damaged; KernelError.
        """
        fields = self._document(uid).read()
        if fields is None:
            return None
        passage = _parse(fields)
        if passage.uid != uid:
            raise fields.error(f"expected the move of the VE that it is named after, got that of {passage.uid!r}")
        return passage

    def uids(self) -> tuple[Uid, ...]:
        """Name the VEs that are on their way, readable or not.

        Raises: KernelError.
        """
        names = layout.names_in(self._directory)
        return tuple(Uid(name.removesuffix(_SUFFIX)) for name in names if _is_entry(name))

    def write(self, passage: Passage) -> None:
        """Remember how far a move is, durably.

        Raises: KernelError, NoSpaceError.
        """
        self._document(passage.uid).write(_render(passage))

    def forget(self, uid: Uid) -> None:
        """Forget a move that is over; absent is success.

        Raises: KernelError.
        """
        layout.remove_file(self._document(uid).path)

    def _document(self, uid: Uid) -> Document:
        if not uid or "/" in uid or uid.startswith("."):
            raise StateError(f"find the move of VE {uid!r}: expected its uid")
        return Document(path=f"{self._directory}/{uid}{_SUFFIX}", format=_FORMAT, remedy=_REMEDY)


def _is_entry(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _render(passage: Passage) -> dict[str, Json]:
    return {
        "role": _role(passage.phase),
        "phase": passage.phase.value,
        "move": move_to_json(passage.move),
        "since": passage.since,
        "cut": passage.cut,
        "was_running": passage.was_running,
        "why": passage.why,
    }


def _role(phase: Phase) -> str:
    match phase:
        case SourcePhase():
            return _SOURCE
        case TargetPhase():
            return _TARGET
        case _:
            assert_never(phase)


def _parse(fields: Fields) -> Passage:
    passage = Passage(
        move=move_from_fields(fields.fields("move")),
        phase=_phase(fields),
        since=fields.number("since"),
        cut=fields.integer("cut"),
        was_running=fields.flag("was_running"),
        why=fields.text("why"),
    )
    fields.end()
    return passage


def _phase(fields: Fields) -> Phase:
    match fields.text("role"):
        case "source":
            return fields.word("phase", SourcePhase)
        case "target":
            return fields.word("phase", TargetPhase)
        case role:
            raise fields.error(f"expected source or target, got the role {role!r}")
