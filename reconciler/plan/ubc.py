"""The text of ``/proc/user_beancounters``, byte by byte as OpenVZ's kernels of RHEL 6 print it on 64-bit machines.

The file has a line for each of its 24 old numbers, dummies among them; what is counted in pages is in pages, and
what is unlimited is the greatest number of a long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconciler.model.counters import PAGE, Resource, Row

_UNLIMITED = (1 << 63) - 1
_DUMMY = None
_LINES: tuple[Resource | None, ...] = (
    Resource.KMEMSIZE,
    Resource.LOCKEDPAGES,
    Resource.PRIVVMPAGES,
    Resource.SHMPAGES,
    _DUMMY,
    Resource.NUMPROC,
    Resource.PHYSPAGES,
    Resource.VMGUARPAGES,
    Resource.OOMGUARPAGES,
    Resource.NUMTCPSOCK,
    Resource.NUMFLOCK,
    Resource.NUMPTY,
    Resource.NUMSIGINFO,
    Resource.TCPSNDBUF,
    Resource.TCPRCVBUF,
    Resource.OTHERSOCKBUF,
    Resource.DGRAMRCVBUF,
    Resource.NUMOTHERSOCK,
    Resource.DCACHESIZE,
    Resource.NUMFILE,
    _DUMMY,
    _DUMMY,
    _DUMMY,
    Resource.NUMIPTENT,
)
_COLUMNS = ("held", "maxheld", "barrier", "limit", "failcnt")
_NOTHING_BELOW = frozenset({Resource.PHYSPAGES, Resource.SWAPPAGES})
"""Resources whose barrier is 0 where VSwap limits them."""

_IDS_PER_VE = 16


def number(id_base: int) -> int:
    """Give the integer that stands for a VE: that of its range of ids, the same for life and for no other VE."""
    return id_base >> _IDS_PER_VE


def render(tables: Iterable[tuple[int, Sequence[Row]]]) -> str:
    """Give the text of the file for several VEs, each given by its number and its rows."""
    head = "".join(f" {name:>20}" for name in _COLUMNS)
    text = f"Version: 2.5\n{'uid':>10}  {'resource':<12}{head}\n"
    return text + "".join(_table(uid, {row.resource: row for row in rows}) for uid, rows in tables)


def _table(uid: int, rows: Mapping[Resource, Row]) -> str:
    return "".join(
        _line(f"{uid}:" if place == 0 else "", resource, None if resource is None else rows.get(resource))
        for place, resource in enumerate(_LINES)
    )


def _line(uid: str, resource: Resource | None, row: Row | None) -> str:
    name = "dummy" if resource is None else resource.value
    return f"{uid:>10}  {name:<12}" + "".join(f" {value:>20}" for value in _values(row)) + "\n"


def _values(row: Row | None) -> tuple[int, ...]:
    if row is None:
        return (0,) * len(_COLUMNS)
    barrier = row.barrier
    if barrier is None:
        barrier = 0 if row.resource in _NOTHING_BELOW else row.limit
    amounts = (row.held or 0, row.maxheld, barrier, row.limit)
    return (*(_amount(row.resource, amount) for amount in amounts), row.failcnt)


def _amount(resource: Resource, value: int | None) -> int:
    if value is None:
        return _UNLIMITED
    return -(-value // PAGE) if resource.is_pages else value
