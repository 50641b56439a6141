"""The inventory: what this host made, is making or is removing. Only what is in it may ever be pruned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.errors import StateError
from reconciler.kernel.parsed import ParsedFiles
from reconciler.model.decode import parse_object
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid, VeName
from reconciler.state import layout
from reconciler.state.document import Document, Durability

_FORMAT = 1
_REMEDY = "mend it, or remove it: then its VE is never pruned"
_FILE = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json\Z")


class Phase(StrEnum):
    """`CREATING` is written before the first effect, `REMOVING` before the first one of a removal."""

    CREATING = "creating"
    PRESENT = "present"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One VE. ``source`` names the source that it came from. Units: ``id_base`` first id of its range."""

    uid: Uid
    name: VeName
    source: str
    id_base: int
    phase: Phase


class Inventory:
    """The entries, one file each below ``directory``: one that is damaged leaves the others readable."""

    __slots__ = ("_directory", "_parsed")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._parsed = ParsedFiles()

    def read(self) -> Mapping[Uid, Entry | Unknown]:
        """Read all entries; a damaged one is `Unknown`, and its VE is neither changed nor pruned.

        Raises: KernelError.
        """
        found = (_FILE.match(name) for name in layout.names_in(self._directory))
        entries = {uid: self._read(uid) for uid in (Uid(match[1]) for match in found if match)}
        return {uid: entry for uid, entry in entries.items() if entry is not None}

    def get(self, uid: Uid) -> Entry | Unknown | None:
        """Read one entry; None if there is none.

        Raises: KernelError.
        """
        return self._read(uid)

    def put(self, entry: Entry) -> None:
        """Write an entry before what it announces is done.

        That a VE is removed is on disk for sure then. One that is made has a record with the same ids, and without
        that nothing of it is there.

        Raises: KernelError, NoSpaceError.
        """
        durability = Durability.LASTING if entry.phase is Phase.REMOVING else Durability.WHOLE
        self._document(entry.uid, durability=durability).write(
            {
                "uid": entry.uid,
                "name": entry.name,
                "source": entry.source,
                "id_base": entry.id_base,
                "phase": entry.phase.value,
            }
        )

    def clear(self, uid: Uid) -> None:
        """Forget an entry, after its VE was observed to be gone; absent is success.

        Raises: KernelError.
        """
        layout.remove_file(self._document(uid).path)

    def _document(self, uid: Uid, *, durability: Durability = Durability.LASTING) -> Document:
        path = f"{self._directory}/{uid}.json"
        if _FILE.match(f"{uid}.json") is None:
            raise StateError(f"write {path}: expected a UUID in lower case, got {uid!r}")
        return Document(path=path, format=_FORMAT, remedy=_REMEDY, durability=durability)

    def _read(self, uid: Uid) -> Entry | Unknown | None:
        try:
            return self._parsed.read(self._document(uid).path, _parse)
        except StateError as err:
            return Unknown(str(err))


def _parse(data: bytes, *, where: str) -> Entry:
    fields = parse_object(data, format=_FORMAT, where=where, remedy=_REMEDY)
    entry = Entry(
        uid=Uid(fields.text("uid")),
        name=VeName(fields.text("name")),
        source=fields.text("source"),
        id_base=fields.integer("id_base"),
        phase=fields.word("phase", Phase),
    )
    fields.end()
    if not where.endswith(f"/{entry.uid}.json"):
        raise fields.error(f"expected the entry of its name, got that of {entry.uid!r}")
    return entry
