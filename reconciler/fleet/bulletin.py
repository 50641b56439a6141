"""What a host tells all others of itself and its VEs, and what they told: seen from afar, and some time ago."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.fleet.keys import Keys
from reconciler.model.facts import Json
from reconciler.model.identity import HostName
from reconciler.model.kv import Delete, Pair, Put, Store, Write

ALIVE_S = 15.0
"""How long a host counts as alive that does not say so any more. It decides nothing. Units: seconds."""

ROW_MAX = 8 << 10
"""Units: bytes."""

_WRITES = 64
"""Rows in one transaction; etcd takes 128. Source: etcd, --max-txn-ops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a host told. ``status`` empty: nothing that could be read."""

    alive: bool
    status: Mapping[str, Json]
    rows: Mapping[str, Mapping[str, Json]]


class Bulletin:
    """This host's own. What is there already is not written again, also after a restart."""

    __slots__ = ("_host", "_keys", "_lease", "_rows", "_store")

    def __init__(self, store: Store, keys: Keys, host: HostName) -> None:
        self._store, self._keys, self._host = store, keys, host
        self._rows: dict[str, bytes] | None = None
        self._lease: int | None = None

    async def tell(self, rows: Mapping[str, Mapping[str, Json]], *, whole: bool) -> int:
        """Tell of VEs by name, and with ``whole`` that there are no others; give how many were written.

        Raises: CoordinatorAwayError, OutcomeUnknownError; what was not told is told the next time.
        """
        prefix = self._keys.rows(self._host)
        if self._rows is None:
            there = (await self._store.list(prefix)).pairs
            self._rows = {pair.key.removeprefix(prefix): pair.value for pair in there}
        wanted = {name: row_bytes(row) for name, row in rows.items()}
        gone = self._rows.keys() - wanted.keys() if whole else set()
        changes: list[tuple[str, bytes | None]] = [(name, None) for name in sorted(gone)]
        changes += [(name, value) for name, value in sorted(wanted.items()) if self._rows.get(name) != value]
        for start in range(0, len(changes), _WRITES):
            await self._write(prefix, changes[start : start + _WRITES])
        return len(changes)

    async def _write(self, prefix: str, changes: list[tuple[str, bytes | None]]) -> None:
        assert self._rows is not None
        writes: list[Write] = [
            Delete(key=prefix + name) if value is None else Put(key=prefix + name, value=value)
            for name, value in changes
        ]
        try:
            await self._store.transact([], writes)
        except (CoordinatorAwayError, OutcomeUnknownError):
            self._rows = None  # nobody knows what is there now
            raise
        for name, value in changes:
            if value is None:
                self._rows.pop(name, None)
            else:
                self._rows[name] = value

    async def live(self, status: Mapping[str, Json]) -> None:
        """Say that this host is alive, and how it is; to be said again well within `ALIVE_S`.

        Raises: CoordinatorAwayError, OutcomeUnknownError.
        """
        if self._lease is None or not await self._store.keep_alive(self._lease):
            self._lease = await self._store.grant(ALIVE_S)
        key = self._keys.host(self._host)
        alive = Put(key=f"{key}alive", value=b"1", lease=self._lease)
        try:
            await self._store.transact([], [alive, Put(key=f"{key}status", value=_bytes(status))])
        except (CoordinatorAwayError, OutcomeUnknownError):
            self._lease = None
            raise


async def read_bulletins(store: Store, keys: Keys) -> Mapping[HostName, Told]:
    """Read what all hosts told.

    Raises: CoordinatorAwayError.
    """
    found: dict[HostName, _Read] = {}
    for pair in (await store.list(keys.hosts)).pairs:
        host, _, what = pair.key.removeprefix(keys.hosts).partition("/")
        found.setdefault(HostName(host), _Read()).take(what, pair)
    return {host: Told(alive=one.alive, status=one.status, rows=one.rows) for host, one in sorted(found.items())}


@dataclass(slots=True)
class _Read:
    alive: bool = False
    status: Mapping[str, Json] = field(default_factory=dict)
    rows: dict[str, Mapping[str, Json]] = field(default_factory=dict)

    def take(self, what: str, pair: Pair) -> None:
        kind, _, name = what.partition("/")
        if what == "alive":
            self.alive = True
        elif what == "status":
            self.status = _object(pair.value)
        elif kind == "rows" and (row := _object(pair.value)):
            self.rows[name] = row


def row_bytes(row: Mapping[str, Json]) -> bytes:
    """Give a row as it is kept: of one that is too long what is desired is left out, then what is observed."""
    for left_out in ((), ("desired",), ("desired", "observed")):
        data = _bytes({**row, **dict.fromkeys(left_out)})
        if len(data) <= ROW_MAX:
            return data
    kept = ("name", "uid", "host", "power")
    return _bytes({key: row.get(key) for key in kept})


def _bytes(content: Mapping[str, Json]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _object(data: bytes) -> Mapping[str, Json]:
    """Parse what another host wrote; empty, if it is no object."""
    try:
        value: Json = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
