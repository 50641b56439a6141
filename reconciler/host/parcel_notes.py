"""Where the parcels of moves lie, and what is noted beside each that was received.

Below ``moves/<uid>.<move>/`` lies at the source ``data-<number>`` for each parcel of data, a snapshot, and ``memory``,
a kept state without data, for the processes that are held; at the target ``received/<kind>-<name>/`` for each that has
arrived whole.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from reconciler.errors import StateError
from reconciler.host.site import Site
from reconciler.kernel import files
from reconciler.kernel.syscalls import file_errors
from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import Uid
from reconciler.model.placement import Parcel, ParcelKind

MEMORY = "memory"
"""The name of the one parcel of its kind, and of the directory of its files."""

_FORMAT = 1
_BYTES_MOST = 1 << 60
_FILE = "parcel.json"
_REMEDY = "let it be sent anew"
_UID = re.compile(r"[0-9a-f-]{36}")
_MOVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_DATA = re.compile(r"data-([0-9]{1,9})")
_NAMES = {
    ParcelKind.TEMPLATE: re.compile(r"[0-9a-f]{64}"),
    ParcelKind.SNAPSHOT: re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
    ParcelKind.DATA: re.compile(r"0|[1-9][0-9]{0,8}"),
    ParcelKind.MEMORY: re.compile(MEMORY),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParcelNote:
    """What is known of a parcel. ``uuid``: what the source calls its subvolume, None for one without.

    ``size``, ``total``: the limits of the VE's volume. Units: bytes, None for unlimited.
    """

    uuid: str | None = None
    size: int | None = None
    total: int | None = None
    is_image: bool = False


def directory_of(site: Site, uid: Uid, move: str) -> str:
    """Give the directory of a move.

    Raises: StateError, for what could lead out of the directory of all moves.
    """
    if _UID.fullmatch(uid) is None or _MOVE.fullmatch(move) is None:
        raise StateError(f"find move {move!r} of VE {uid!r}: expected a UUID, and letters, digits and dashes")
    return f"{site.instance.moves}/{uid}.{move}"


def data_in(directory: str, number: int) -> str:
    """Give the path of a parcel of data at the source."""
    return f"{directory}/data-{number}"


def numbers_in(directory: str) -> list[int]:
    """List the numbers of the parcels of data at the source, in order; none, if there is no such directory.

    Raises: KernelError.
    """
    return sorted(int(match[1]) for name in listed(directory) if (match := _DATA.fullmatch(name)))


def received_in(directory: str) -> str:
    """Give the directory of what has arrived of a move."""
    return f"{directory}/received"


def place_of(received: str, parcel: Parcel) -> str:
    """Give the directory of a parcel that has arrived.

    Raises: StateError, for what cannot be the name of one.
    """
    if _NAMES[parcel.kind].fullmatch(parcel.name) is None:
        raise StateError(f"find parcel {str(parcel)!r}: expected another name of one of its kind")
    return f"{received}/{parcel.kind}-{parcel.name}"


def arrived_in(received: str) -> list[Parcel]:
    """List the parcels that have arrived whole.

    Raises: KernelError.
    """
    found = []
    for entry in sorted(listed(received)):
        kind, _, name = entry.partition("-")
        if not entry.startswith(".") and kind in list(ParcelKind):
            found.append(Parcel(kind=ParcelKind(kind), name=name))
    return found


def named(words: str) -> Parcel:
    """Give the parcel of these words.

    Raises: StateError, if they are none of a parcel's.
    """
    kind, _, name = words.partition(":")
    if kind not in list(ParcelKind):
        raise StateError(f"find parcel {words!r}: there is no such kind")
    return Parcel(kind=ParcelKind(kind), name=name)


def listed(directory: str) -> list[str]:
    """List a directory; nothing, if it is not there.

    Raises: KernelError.
    """
    with file_errors("list", directory):
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []


def write(place: str, note: ParcelNote) -> None:
    """Write down what a parcel is.

    Raises: KernelError; NoSpaceError.
    """
    files.write_whole(f"{place}/{_FILE}", encode(note))


def read(place: str) -> ParcelNote:
    """Read what a parcel that has arrived is.

    Raises: StateError, if it has not; KernelError.
    """
    path = f"{place}/{_FILE}"
    data = files.read_bytes_if_exists(path)
    if data is None:
        raise StateError(f"read {path}: no such file; {_REMEDY}")
    return decode(data, where=path)


def encode(note: ParcelNote) -> bytes:
    """Give the text of a note."""
    fields: dict[str, Json] = {"uuid": note.uuid, "size": note.size, "total": note.total, "is_image": note.is_image}
    return render_object(fields, format=_FORMAT)


def decode(data: bytes, *, where: str) -> ParcelNote:
    """Parse the text of a note; ``where``: for the error.

    Raises: StateError.
    """
    fields = parse_object(data, format=_FORMAT, where=where, remedy=_REMEDY)
    note = ParcelNote(
        uuid=fields.optional_text("uuid"),
        size=_optional_bytes(fields, "size"),
        total=_optional_bytes(fields, "total"),
        is_image=fields.flag("is_image"),
    )
    fields.end()
    return note


def _optional_bytes(fields: Fields, key: str) -> int | None:
    found = None if fields.json(key) is None else fields.integer(key)
    if found is not None and not 0 <= found < _BYTES_MOST:
        raise fields.error(f"{key} is {found}")
    return found
