"""A cluster of etcd in memory: what the hosts of one simulation share.

Source: etcd, api/etcdserverpb/rpc.proto, and what its servers were seen to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.model.kv import Change, Delete, Listing, Pair, Put, Unchanged, Write


class RefusedByEtcdError(Exception):
    """The cluster answered that it will not: nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a cluster held at a revision."""

    revision: int
    pairs: tuple[Pair, ...]


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    ends_at: float
    keys: set[str] = field(default_factory=set)


class TwinEtcd:
    """The cluster's one truth. ``cluster`` is its id; a restored one has another.

    ``compacted``: events before this revision cannot be told any more. ``generation`` counts restorations.
    """

    def __init__(self, *, cluster: str = "c1") -> None:
        self.cluster = cluster
        self.revision = 1
        self.compacted = 0
        self.generation = 0
        self._pairs: dict[str, Pair] = {}
        self._history: list[tuple[int, Change]] = []
        self._leases: dict[int, _Lease] = {}
        self._granted = 0
        self._news = asyncio.Event()

    def get(self, key: str) -> Pair | None:
        """Read one key."""
        return self._pairs.get(key)

    def list(self, prefix: str) -> Listing:
        """Read all keys below a prefix."""
        found = sorted((pair for key, pair in self._pairs.items() if key.startswith(prefix)), key=lambda one: one.key)
        return Listing(revision=self.revision, cluster=self.cluster, pairs=tuple(found))

    def transact(self, guards: Sequence[Unchanged], writes: Sequence[Write]) -> int | None:
        """Make all writes if all guards hold.

        Raises: RefusedByEtcdError, as etcd does for a key that is written twice, and for a lease that has ended.
        """
        self._check(writes)
        if not all(self._modified(guard.key) == guard.modified for guard in guards):
            return None
        self._write(writes)
        return self.revision

    def grant(self, ttl_s: float) -> int:
        """Make a lease."""
        self._granted += 1
        now = asyncio.get_running_loop().time()
        self._leases[self._granted] = _Lease(ttl_s, now + ttl_s)
        self._await_end(self._granted)
        return self._granted

    def keep_alive(self, lease: int) -> bool:
        """Begin a lease's time anew; False, if it has ended."""
        found = self._leases.get(lease)
        if found is None:
            return False
        found.ends_at = asyncio.get_running_loop().time() + found.ttl_s
        return True

    def changes(self, prefix: str, *, since: int) -> Sequence[Change]:
        """Give what changed below a prefix after a revision that is not compacted."""
        return [change for at, change in self._history if at > since and change.key.startswith(prefix)]

    async def news(self) -> None:
        """Wait until anything changes, or `wake` is called."""
        await self._news.wait()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._news.set()
        self._news = asyncio.Event()

    def compact(self) -> None:
        """Forget how what is there came to be."""
        self.compacted = self.revision
        self._history = [(at, change) for at, change in self._history if at >= self.compacted]

    def backup(self) -> Backup:
        """Remember what is there."""
        return Backup(revision=self.revision, pairs=tuple(self._pairs.values()))

    def restore(self, backup: Backup, *, cluster: str) -> None:
        """Be what a backup says; with the same ``cluster`` as when a disk is put back, with another by etcd's tool."""
        self.cluster, self.revision, self.compacted = cluster, backup.revision, 0
        self.generation += 1
        self._pairs = {pair.key: pair for pair in backup.pairs}
        self._history, self._leases = [], {}
        self.wake()

    def _check(self, writes: Sequence[Write]) -> None:
        puts = [write for write in writes if isinstance(write, Put)]
        deleted = {write.key for write in writes if isinstance(write, Delete)}
        if len({put.key for put in puts} - deleted) < len(puts):
            raise RefusedByEtcdError("etcdserver: duplicate key given in txn request")
        if any(put.lease is not None and put.lease not in self._leases for put in puts):
            raise RefusedByEtcdError("etcdserver: requested lease not found")

    def _modified(self, key: str) -> int:
        pair = self._pairs.get(key)
        return pair.modified if pair else 0

    def _write(self, writes: Sequence[Write]) -> None:
        """Make writes at one new revision; a deletion of what is absent is none."""
        absent = {write.key for write in writes} - self._pairs.keys()
        effective = [write for write in dict.fromkeys(writes) if isinstance(write, Put) or write.key not in absent]
        if not effective:
            return
        self.revision += 1
        for write in effective:
            self._history.append((self.revision, self._put(write) if isinstance(write, Put) else self._delete(write)))
        self.wake()

    def _put(self, put: Put) -> Change:
        self._detach(put.key)
        if put.lease is not None:
            self._leases[put.lease].keys.add(put.key)
        old = self._pairs.get(put.key)
        created = old.created if old else self.revision
        pair = Pair(key=put.key, value=put.value, created=created, modified=self.revision)
        self._pairs[put.key] = pair
        return Change(key=put.key, pair=pair)

    def _delete(self, delete: Delete) -> Change:
        self._detach(delete.key)
        del self._pairs[delete.key]
        return Change(key=delete.key, pair=None)

    def _detach(self, key: str) -> None:
        for lease in self._leases.values():
            lease.keys.discard(key)

    def _await_end(self, lease: int) -> None:
        asyncio.get_running_loop().call_at(self._leases[lease].ends_at, self._end_if_due, lease, self.generation)

    def _end_if_due(self, lease: int, generation: int) -> None:
        if generation != self.generation:
            return
        if self._leases[lease].ends_at > asyncio.get_running_loop().time():
            self._await_end(lease)
            return
        self._write([Delete(key=key) for key in sorted(self._leases[lease].keys)])
        del self._leases[lease]
