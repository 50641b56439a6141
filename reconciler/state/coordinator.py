"""Who gets which ids: the coordinator of a host that has no other, and the one that only pretends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from reconciler.errors import StateError, VectlError
from reconciler.model.facts import Unknown
from reconciler.model.identity import IDS_PER_VE, Allocation, Uid, VeName
from reconciler.state import ids
from reconciler.state.ids import IdRange
from reconciler.state.inventory import Entry, Inventory, Phase

_PLACEHOLDERS = uuid.UUID("6f0a3c1e-5b7d-4f8e-9a57-1d2f6c9be004")
"""A name space of our own for the identities of VEs that are only planned. Source: RFC 9562, section 5.5."""


def random_uid() -> Uid:
    """Make an identity that nobody else has."""
    return Uid(str(uuid.uuid4()))


class LocalCoordinator:
    """A `Coordinator` for one host. An allocation is an entry of the inventory in the phase `CREATING`.

    So there is one truth about what is being made, and it is on disk before anything is made.
    """

    __slots__ = ("_existing", "_inventory", "_new_uid", "_reserved", "_slot", "_source")

    def __init__(
        self,
        inventory: Inventory,
        *,
        instance: str,
        source: str,
        existing: Callable[[], Mapping[Uid, int]],
        reserved: Callable[[], Iterable[IdRange]] = ids.read_subids,
        new_uid: Callable[[], Uid] = random_uid,
    ) -> None:
        """Shape: ``existing`` gives the first id of every record in the pool and in the trash, by uid."""
        self._inventory = inventory
        self._source = source
        self._slot = ids.first_slot(instance)
        self._existing = existing
        self._reserved = reserved
        self._new_uid = new_uid

    async def allocate(self, wanted: Mapping[VeName, Uid | None]) -> Mapping[VeName, Allocation | VectlError]:
        """Give VEs that are about to be created identities and ids; the same ones until their records exist.

        ``wanted``: the identity that a VE's manifest pins, if any. The inventory is read once for all of them, and they
        wait for the disk together.

        Raises: StateError, if an entry of the inventory cannot be read; KernelError, NoSpaceError.
        """
        existing = self._existing()
        entries = self._entries(existing)
        free = ids.free(self._slot, self._taken(existing, entries))
        given: dict[VeName, Allocation | VectlError] = {}
        new: list[Entry] = []
        for name, uid in wanted.items():
            begun = _begun(name, entries.values(), existing)
            if begun is not None and uid in (None, begun.uid):
                given[name] = Allocation(uid=begun.uid, id_base=begun.id_base)
                continue
            if begun is not None:
                # The manifest has named an identity since. Nothing was made under the other one: a record comes first.
                self._inventory.clear(entries.pop(begun.uid).uid)
            base = next(free, None)
            if base is None:
                given[name] = ids.none_left()
                continue
            new.append(self._entry(name, uid or self._new_uid(), base))
            given[name] = Allocation(uid=new[-1].uid, id_base=base)
        import asyncio  # here: who only plans asks for a placeholder, and the library takes long to load

        await asyncio.gather(*(asyncio.to_thread(self._inventory.put, entry) for entry in new))
        return given

    async def release(self, name: VeName) -> None:
        """Take back an allocation of which nothing was made; one that is in use stays.

        Raises: StateError, if an entry of the inventory cannot be read.
        """
        existing = self._existing()
        begun = _begun(name, self._entries(existing).values(), existing)
        if begun is not None:
            self._inventory.clear(begun.uid)

    def _entries(self, existing: Collection[Uid]) -> dict[Uid, Entry]:
        entries = {}
        for uid, entry in self._inventory.read().items():
            if isinstance(entry, Unknown):
                if uid in existing:  # its record tells the range
                    continue
                # Its ids may be in use: whoever gets the same range could read another VE's files.
                raise StateError(f"allocate ids: the range of {uid} is not known; {entry.reason}")
            entries[uid] = entry
        return entries

    def _taken(self, existing: Mapping[Uid, int], entries: Mapping[Uid, Entry]) -> Iterator[IdRange]:
        bases = {**existing, **{one.uid: one.id_base for one in entries.values()}}
        yield from self._reserved()
        yield from (IdRange(base) for base in bases.values())

    def _entry(self, name: VeName, uid: Uid, id_base: int) -> Entry:
        return Entry(uid=uid, name=name, source=self._source, id_base=id_base, phase=Phase.CREATING)


class DryCoordinator:
    """A `Coordinator` for plans that nobody carries out: the same placeholder for the same name, nothing written."""

    __slots__ = ()

    async def allocate(self, wanted: Mapping[VeName, Uid | None]) -> Mapping[VeName, Allocation | VectlError]:
        """Give placeholders."""
        return {name: placeholder(name, uid) for name, uid in wanted.items()}

    async def release(self, name: VeName) -> None:
        """Do nothing: nothing was given."""


def placeholder(name: VeName, uid: Uid | None = None) -> Allocation:
    """Give what stands for the allocation of a VE that is only planned. ``uid``: the one that its manifest pins."""
    slot = ids.spread(name, ids.FIRST_SLOT)
    return Allocation(uid=uid or Uid(str(uuid.uuid5(_PLACEHOLDERS, name))), id_base=slot * IDS_PER_VE)


def _begun(name: VeName, entries: Iterable[Entry], existing: Mapping[Uid, int]) -> Entry | None:
    """Find the allocation of a name of which no record exists yet."""
    for entry in entries:
        if entry.name == name and entry.phase is Phase.CREATING and entry.uid not in existing:
            return entry
    return None
