"""Changes that could cut the host off, each in a directory of its own until it is settled.

Several processes meet here: who carries a change out, who takes it back, and whoever confirms it. What becomes of one
is decided once, by whoever comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from reconciler.errors import StateError
from reconciler.kernel import files
from reconciler.model import exchange
from reconciler.model.facts import Json
from reconciler.model.host_risk import RiskyChange, Ruling, Standing, Undone, Verdict
from reconciler.state import layout
from reconciler.state.document import Document

_FORMAT = 1
_REMEDY = "remove its directory: then the change stays as it is"
_CHANGE, _APPLIED, _RULING, _UNDONE = "change", "applied", "ruling", "undone"
LOCK = "deadman.lock"
LOG = "deadman.log"


class HostRisks:
    """The changes of an instance that were not settled, and those that were taken back."""

    __slots__ = ("_directory",)

    def __init__(self, state_dir: str) -> None:
        self._directory = f"{state_dir}/hostrisk"

    def directory(self, id_: str) -> str:
        """Give the directory of a change."""
        return f"{self._directory}/{id_}"

    def begin(self, change: RiskyChange) -> None:
        """Write down durably how a change is to be taken back, before any of it is carried out.

        Raises: KernelError, NoSpaceError.
        """
        self._document(change.id, _CHANGE).write({"change": exchange.to_json(change)})

    def note_applied(self, id_: str, *, deadline: float) -> None:
        """Note that a change was carried out whole: from now on checks may confirm it, until the deadline.

        Units: as in `Standing`.
        Raises: KernelError, NoSpaceError.
        """
        self._document(id_, _APPLIED).write({"deadline": deadline})

    def rule(self, id_: str, verdict: Verdict, *, by: str, at: float) -> Ruling:
        """Decide what becomes of a change, unless that is decided; give what holds.

        Units: ``at`` seconds since the epoch.
        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        document = self._document(id_, _RULING)
        with document.locked():
            known = self._ruling(id_)
            if known is not None:
                return known
            document.write({"verdict": verdict.value, "by": by, "at": at})
        return Ruling(verdict=verdict, by=by, at=at)

    def conclude(self, id_: str, undone: Undone) -> None:
        """Note how taking a change back ended.

        Raises: KernelError, NoSpaceError.
        """
        self._document(id_, _UNDONE).write({"problem": undone.problem, "at": undone.at})

    def all(self) -> tuple[Standing, ...]:
        """Read how all changes stand, oldest first.

        Raises: StateError, KernelError.
        """
        return tuple(sorted(self._all(), key=lambda standing: standing.change.at))

    def _all(self) -> Iterator[Standing]:
        for id_ in layout.names_in(self._directory):
            standing = self.read(id_)
            if standing is not None:
                yield standing

    def read(self, id_: str) -> Standing | None:
        """Read how a change stands; None, if there is none.

        Raises: StateError, KernelError.
        """
        fields = self._document(id_, _CHANGE).read()
        if fields is None:
            return None
        body = fields.json("change")
        fields.end()
        try:
            change = exchange.from_json(RiskyChange, body, "change")
        except ValueError as err:
            raise fields.error(str(err)) from err
        return Standing(
            change=change,
            deadline=self._deadline(id_),
            ruling=self._ruling(id_),
            undone=self._undone(id_),
        )

    def _deadline(self, id_: str) -> float | None:
        fields = self._document(id_, _APPLIED).read()
        if fields is None:
            return None
        found = fields.number("deadline")
        fields.end()
        return found

    def _ruling(self, id_: str) -> Ruling | None:
        fields = self._document(id_, _RULING).read()
        if fields is None:
            return None
        found = Ruling(verdict=fields.word("verdict", Verdict), by=fields.text("by"), at=fields.number("at"))
        fields.end()
        return found

    def _undone(self, id_: str) -> Undone | None:
        fields = self._document(id_, _UNDONE).read()
        if fields is None:
            return None
        found = Undone(problem=fields.text("problem"), at=fields.number("at"))
        fields.end()
        return found

    def drop(self, id_: str) -> None:
        """Forget a change; absent is success.

        Raises: KernelError.
        """
        directory = self.directory(id_)
        names = layout.names_in(directory)
        for name in sorted(names, key=lambda name: name != f"{_CHANGE}.json"):  # without that one there is no change
            layout.drop_file(f"{directory}/{name}")
        if names:
            os.rmdir(directory)
            files.sync_directory(self._directory)

    def find(self, beginning: str) -> Standing:
        """Find the one change that is not settled whose hash, of the plan or of an object's part, begins so.

        Raises: StateError, if there is none or more than one.
        """
        found = [standing for standing in self.all() if standing.is_pending and _has(standing.change, beginning)]
        if len(found) != 1:
            number = "no change waits" if not found else f"{len(found)} changes wait"
            raise StateError(f"confirm {beginning}: {number} for a confirmation by a hash that begins so")
        return found[0]

    def _document(self, id_: str, name: str) -> Document:
        return Document(path=f"{self.directory(id_)}/{name}.json", format=_FORMAT, remedy=_REMEDY)


def _has(change: RiskyChange, beginning: str) -> bool:
    hashes: list[Json] = [change.whole, *change.hashes.values()]
    return any(str(one).startswith(beginning) for one in hashes)
