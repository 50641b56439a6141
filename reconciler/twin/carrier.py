"""The carrier of the in-memory host: its parcels are what lies in the machine's tables, as bytes."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Mapping

from reconciler.errors import StateError
from reconciler.manifests.canonical import template_key
from reconciler.model.identity import Digest, SnapshotName, Uid
from reconciler.model.placement import Cargo, Parcel, ParcelKind
from reconciler.model.volume import ImageObservation, ImageSource
from reconciler.twin import placement, snapshots, volume
from reconciler.twin.machine import Arrived, Kept, Machine, Memory, Volume

_PIECES = 3


class TwinCarrier:
    """Implements `model.fleet_seam.Carrier`. A parcel comes in pieces, so that it may be cut off within."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def cargo(self, uid: Uid) -> Cargo:
        """Say what a VE is, as the seam says."""
        machine, doing = self._machine, f"look what VE {uid} takes to move"
        record, present = volume.require_record(machine, uid, doing), volume.require_volume(machine, uid, doing)
        return Cargo(
            record=record,
            template=snapshots.base_of(machine, uid, doing)[1],
            data=present.used or 0,
            snapshots=sum(kept.volume.used or 0 for kept in machine.snapshots.get(uid, {}).values()),
            memory=0 if uid in machine.runtimes or uid in machine.memories else None,
            is_image=present.is_image,
        )

    async def parcels(self, uid: Uid, move: str) -> tuple[Parcel, ...]:
        """Give what there is to be sent, as the seam says."""
        machine, doing = self._machine, f"list the parcels of VE {uid}"
        volume.require_record(machine, uid, doing)
        kept, cut = machine.snapshots.get(uid, {}), machine.cut.get((uid, move), {})
        needed = {snapshots.base_of(machine, uid, doing)[1], *(it.template_digest for it in kept.values())}
        found = [Parcel(kind=ParcelKind.TEMPLATE, name=digest) for digest in sorted(needed)]
        parent = None
        for kind, name in (*((ParcelKind.SNAPSHOT, name) for name in _by_time(kept)), *_numbers(cut)):
            found.append(Parcel(kind=kind, name=name, parent=parent))
            parent = str(found[-1])
        if self._memory(uid, cut) is not None:
            found.append(Parcel(kind=ParcelKind.MEMORY, name=placement.MEMORY))
        return tuple(found)

    async def received(self, uid: Uid, move: str) -> frozenset[str]:
        """Name the parcels that are here, as the seam says."""
        images = {str(Parcel(kind=ParcelKind.TEMPLATE, name=digest)) for digest in self._machine.images}
        return frozenset({*images, *self._machine.arrived.get((uid, move), {})})

    async def send(self, uid: Uid, move: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Give a parcel's bytes, as the seam says."""
        content = pickle.dumps(self._content(uid, move, parcel))
        length = -(-len(content) // _PIECES)
        for start in range(0, len(content), length):
            yield content[start : start + length]

    async def receive(self, uid: Uid, move: str, parcel: Parcel, chunks: AsyncIterator[bytes]) -> None:
        """Take a parcel, as the seam says."""
        machine, doing = self._machine, f"receive {parcel} of VE {uid}"
        data = b"".join([chunk async for chunk in chunks])
        arrived = machine.arrived.get((uid, move), {})
        if parcel.parent is not None and parcel.parent not in arrived:
            raise StateError(f"{doing}: {parcel.parent} is to be here before it")
        volume.require_space(machine, doing)
        try:
            content = pickle.loads(data)  # noqa: S301  # it comes from another twin in this process
        except (EOFError, pickle.UnpicklingError, IndexError) as err:
            raise StateError(f"{doing}: it is not whole") from err
        if isinstance(content, ImageObservation):
            _adopt(machine, Digest(parcel.name), content)
        else:
            machine.arrived[uid, move] = {**arrived, str(parcel): content}

    def _content(self, uid: Uid, move: str, parcel: Parcel) -> Arrived | ImageObservation:
        machine, cut = self._machine, self._machine.cut.get((uid, move), {})
        content: Arrived | ImageObservation | None = None
        match parcel.kind:
            case ParcelKind.TEMPLATE:
                content = machine.images.get(Digest(parcel.name))
            case ParcelKind.SNAPSHOT:
                kept = machine.snapshots.get(uid, {}).get(SnapshotName(parcel.name))
                content = None if kept is None else Arrived(kept=kept)
            case ParcelKind.DATA:
                data = cut.get(str(parcel))
                if isinstance(data, Volume):
                    content = Arrived(volume=data, ledger=machine.ledgers.get(uid))
            case ParcelKind.MEMORY:
                memory = self._memory(uid, cut)
                content = None if memory is None else Arrived(memory=memory)
        if content is None:
            raise StateError(f"send {parcel} of VE {uid}: there is no such parcel")
        return content

    def _memory(self, uid: Uid, cut: Mapping[str, Volume | Memory]) -> Memory | None:
        held = cut.get(str(Parcel(kind=ParcelKind.MEMORY, name=placement.MEMORY)))
        return held if isinstance(held, Memory) else self._machine.memories.get(uid)


def _by_time(kept: Mapping[SnapshotName, Kept]) -> list[SnapshotName]:
    return sorted(kept, key=lambda name: (kept[name].taken_at, name))


def _numbers(cut: Mapping[str, Volume | Memory]) -> list[tuple[ParcelKind, str]]:
    numbers = sorted(int(words.partition(":")[2]) for words, it in cut.items() if isinstance(it, Volume))
    return [(ParcelKind.DATA, str(number)) for number in numbers]


def _adopt(machine: Machine, digest: Digest, image: ImageObservation) -> None:
    """Make an image known by its own digest: what a stranger says it was built from is not relied on."""
    machine.images[digest] = image
    machine.templates[template_key(ImageSource(digest=digest))] = digest
