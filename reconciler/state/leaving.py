"""VEs whose data this host deletes for good, until the fleet's coordinator has been told that they are gone."""

from __future__ import annotations

from reconciler.model.identity import Uid
from reconciler.state.document import Document

_FORMAT = 1


class Leaving:
    """A list of identities in a file of the directory of state."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        path = f"{state_dir}/leaving.json"
        self._document = Document(
            path=path, format=_FORMAT, remedy="remove it; what is listed stays taken in the fleet"
        )

    def read(self) -> frozenset[Uid]:
        """Read it.

        Raises: StateError, KernelError.
        """
        fields = self._document.read()
        if fields is None:
            return frozenset()
        uids = frozenset(map(Uid, fields.texts("uids")))
        fields.end()
        return uids

    def add(self, uid: Uid) -> None:
        """Note that a VE's data is about to be deleted.

        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        with self._document.locked():
            self._write(self.read() | {uid})

    def drop(self, uid: Uid) -> None:
        """Forget one of which the coordinator was told; absent is success.

        Raises: as `add`.
        """
        with self._document.locked():
            if uid in (known := self.read()):
                self._write(known - {uid})

    def _write(self, uids: frozenset[Uid]) -> None:
        self._document.write({"uids": [str(uid) for uid in sorted(uids)]})
