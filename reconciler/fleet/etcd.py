"""`Store` over etcd's JSON gateway.

A transaction whose answer was lost is never repeated here: guards that its first copy made false would make it seem
refused.

Source: etcd, "Why gRPC gateway"; etcd, "KV API guarantees": reads are linearizable unless asked otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from reconciler.errors import CoordinatorAwayError, VectlError
from reconciler.fleet import etcd_wire as wire
from reconciler.fleet.etcd_http import Member, NotAnsweredError, NotSentError
from reconciler.fleet.etcd_members import Members, Stream
from reconciler.model.etcd import EtcdAddress
from reconciler.model.kv import Change, Listing, Pair, StoreStatus, Unchanged, Write

_SILENCE_S = 60.0
"""After it a watch is begun anew: a member that stands still keeps its connections."""
_PAUSE_S = 0.2


class EtcdStore:
    """Implements `Store`. Holds a few connections; `close` closes them."""

    def __init__(self, address: EtcdAddress) -> None:
        self._members = Members(address)
        self._probe = f"/vectl/{address.fleet}/format"

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._members.close()

    async def get(self, key: str) -> Pair | None:
        """Read one key."""
        found = await self._members.ask("/v3/kv/range", wire.get_request(key), wire.pairs_of)
        return found[0] if found else None

    async def list(self, prefix: str) -> Listing:
        """Read all keys below a prefix."""
        return await self._members.ask("/v3/kv/range", wire.list_request(prefix), wire.listing_of)

    async def transact(self, guards: Sequence[Unchanged], writes: Sequence[Write]) -> int | None:
        """Make all writes if all guards hold."""
        answer = await self._members.ask_once("/v3/kv/txn", wire.txn_request(guards, writes))
        return wire.revision_of(answer) if answer.get("succeeded") else None

    async def grant(self, ttl_s: float) -> int:
        """Make a lease. One whose answer was lost ends by itself."""
        return await self._members.ask("/v3/lease/grant", wire.grant_request(ttl_s), wire.lease_of)

    async def keep_alive(self, lease: int) -> bool:
        """Begin a lease's time anew."""
        return await self._members.ask("/v3/lease/keepalive", wire.lease_request(lease), wire.is_kept)

    async def watch(self, prefix: str, *, since: int) -> AsyncIterator[Change]:
        """Tell what changes, from one member after another."""
        told, cluster = since, ""
        while True:
            stream, first = await self._members.watch(prefix, since=told)
            cluster = cluster or first.cluster
            news: wire.WatchNews | None = first
            try:
                while news is not None:
                    if news.is_compacted or news.cluster != cluster:
                        return
                    for change in news.changes:
                        yield change
                    told = max(told, news.revision)
                    news = await _next(stream)
            finally:
                stream.close()
            await asyncio.sleep(_PAUSE_S)

    async def status(self) -> tuple[StoreStatus, ...]:
        """Ask each member how it is."""
        return tuple(await asyncio.gather(*(self._status_of(member) for member in self._members.all)))

    async def asks_for_login(self) -> bool:
        """Tell whether the cluster wants to know who asks.

        Raises: CoordinatorAwayError.
        """
        try:
            return await self._members.ask("/v3/auth/status", {}, lambda answer: bool(answer.get("enabled")))
        except CoordinatorAwayError as err:
            if isinstance(err.__cause__, wire.EtcdRefusalError) and err.__cause__.is_final:
                return True
            raise

    async def _status_of(self, member: Member) -> StoreStatus:
        found = StoreStatus(endpoint=member.endpoint, version="", cluster="", revision=0, healthy=False)
        try:
            found = replace(found, version=wire.version_of(*await member.ask("/version", b"", {})))
            now = time.time()
            found = replace(found, clock_ahead_s=(wire.time_of(member.date) or now) - now)
            found = replace(found, problem=wire.illness_of(*await member.ask("/health", b"", {})))
            asked_at = asyncio.get_running_loop().time()
            answer = await self._members.ask_member(member, "/v3/kv/range", wire.get_request(self._probe))
        except (NotSentError, NotAnsweredError, wire.EtcdRefusalError, VectlError) as err:
            return replace(found, problem=str(err))
        answered_in_s = asyncio.get_running_loop().time() - asked_at
        revision, cluster = wire.revision_of(answer), wire.cluster_of(answer)
        return replace(found, healthy=True, cluster=cluster, revision=revision, answered_in_s=answered_in_s)


async def _next(stream: Stream) -> wire.WatchNews | None:
    """Give a watch's next message; None, if it has to be begun anew."""
    try:
        return await stream.next(limit_s=_SILENCE_S)
    except wire.EtcdRefusalError:
        return None
