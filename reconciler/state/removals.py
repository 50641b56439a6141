"""What was removed in the last day: the guard against mass removal counts over time, not over one plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.model.facts import Json
from reconciler.model.identity import Uid, VeName
from reconciler.state.document import Document

WINDOW_S = 24 * 3600.0
"""How far back a removal counts. Units: seconds."""

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A VE that was, or was about to be, moved to the trash. Units: ``at`` seconds since the epoch."""

    uid: Uid
    name: VeName
    source: str
    at: float


class Removals:
    """The removals of a day, in one file. A VE counts once, however often its removal was tried."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        remedy = "mend it, or remove it: then the guard against mass removal forgets the last day"
        self._document = Document(path=f"{state_dir}/removals.json", format=_FORMAT, remedy=remedy)

    def add(self, removal: Removal) -> None:
        """Remember a removal, durably, before it is done.

        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        with self._document.locked():
            others = (other for other in self._read() if other.uid != removal.uid and _counts(other, removal.at))
            self._write((*others, removal))

    def recent(self, now: float) -> tuple[Removal, ...]:
        """Read the removals that still count, oldest first.

        Raises: StateError, KernelError.
        """
        return tuple(sorted((one for one in self._read() if _counts(one, now)), key=lambda one: (one.at, one.uid)))

    def _read(self) -> tuple[Removal, ...]:
        fields = self._document.read()
        if fields is None:
            return ()
        removals = []
        for item in fields.objects("removals"):
            removal = Removal(
                uid=Uid(item.text("uid")),
                name=VeName(item.text("name")),
                source=item.text("source"),
                at=item.number("at"),
            )
            item.end()
            removals.append(removal)
        fields.end()
        return tuple(removals)

    def _write(self, removals: Iterable[Removal]) -> None:
        items: list[Json] = [{"uid": one.uid, "name": one.name, "source": one.source, "at": one.at} for one in removals]
        self._document.write({"removals": items})


def _counts(removal: Removal, now: float) -> bool:
    # One in the future, of a clock that was wrong, counts: the guard errs towards asking.
    return removal.at > now - WINDOW_S
