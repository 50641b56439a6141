"""The members of a cluster of etcd, asked one after another until one answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar

from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError, VectlError
from reconciler.fleet import etcd_wire as wire
from reconciler.fleet.etcd_http import TRY_S, Connection, Member, NotAnsweredError, NotSentError
from reconciler.fleet.etcd_login import Login
from reconciler.model.etcd import EtcdAddress

_LINE_MAX = 64 << 20
_FAILURES = (NotSentError, NotAnsweredError, wire.EtcdRefusalError)

_T = TypeVar("_T")


class Stream:
    """An answer of one message a line, without an end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._buffer = bytearray()

    async def next(self, *, limit_s: float) -> wire.WatchNews | None:
        """Give the next message; None, if none came in time or none will come. Units: seconds.

        Raises: EtcdRefusalError.
        """
        try:
            line = await self._line(limit_s)
        except NotAnsweredError:
            return None
        return wire.news_of(wire.parse_line(line)) if line else None

    def close(self) -> None:
        """End it."""
        self._connection.close()

    async def _line(self, limit_s: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            chunk = await self._connection.chunk_within(limit_s)
            if not chunk or len(self._buffer) > _LINE_MAX:
                return b""
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


class Members:
    """The members, that first which answered last."""

    def __init__(self, address: EtcdAddress) -> None:
        self.all = tuple(Member(endpoint, address) for endpoint in address.endpoints)
        self._login = Login(address)
        self._first = 0

    async def ask(self, path: str, message: wire.Message, read: Callable[[wire.Message], _T]) -> _T:
        """Ask what may be asked twice. ``read``: of the answer; raises EtcdRefusalError, if it is none of etcd's.

        Raises: CoordinatorAwayError.
        """

        async def ask_and_read(member: Member) -> _T:
            return read(await self.ask_member(member, path, message))

        return await self._in_turn(ask_and_read, _go_on)

    async def ask_once(self, path: str, message: wire.Message) -> wire.Message:
        """Ask what must not be done twice: another member is asked only if it surely was not done.

        Raises: CoordinatorAwayError; OutcomeUnknownError, if it may have been done.
        """
        return await self._in_turn(lambda member: self.ask_member(member, path, message), _expect_no_effect)

    async def watch(self, prefix: str, *, since: int) -> tuple[Stream, wire.WatchNews]:
        """Begin to be told what changes, and give the first message: it names the cluster.

        Raises: CoordinatorAwayError.
        """
        return await self._in_turn(lambda member: self._watch_at(member, wire.watch_request(prefix, since)), _go_on)

    async def ask_member(self, member: Member, path: str, message: wire.Message) -> wire.Message:
        """Ask one member; log in where that is needed.

        Raises: NotSentError, NotAnsweredError, EtcdRefusalError; VectlError, if the password cannot be read.
        """
        body = wire.encode(message)
        headers = await self._login.headers(member)
        try:
            return wire.parse_answer(*await member.ask(path, body, headers))
        except wire.EtcdRefusalError as err:
            if not self._login.can_help(err, headers):
                raise
        return wire.parse_answer(*await member.ask(path, body, await self._login.headers(member)))

    def turn_from(self, member: Member) -> None:
        """Begin with the next one from now on."""
        self._first = (self.all.index(member) + 1) % len(self.all)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for member in self.all:
            member.close()

    async def _in_turn(self, ask: Callable[[Member], Awaitable[_T]], judge: Callable[[Exception, str], None]) -> _T:
        """Ask until one answers. ``judge`` raises where no other one may be asked."""
        told: list[str] = []
        for member in self._order():
            try:
                answer = await ask(member)
            except _FAILURES as err:
                self.turn_from(member)
                told.append(f"{member.endpoint}: {err}")
                judge(err, told[-1])
            except VectlError as err:
                raise CoordinatorAwayError(f"ask the coordinator: {err}") from err
            else:
                self._first = self.all.index(member)
                return answer
        raise CoordinatorAwayError(f"ask the coordinator: expected an answer of a quorum: {'; '.join(told)}")

    def _order(self) -> Iterator[Member]:
        return iter(self.all[self._first :] + self.all[: self._first])

    async def _watch_at(self, member: Member, message: wire.Message) -> tuple[Stream, wire.WatchNews]:
        headers = await self._login.headers(member)
        try:
            return await self._begin(member, message, headers)
        except wire.EtcdRefusalError as err:
            if not self._login.can_help(err, headers):
                raise
        return await self._begin(member, message, await self._login.headers(member))

    async def _begin(
        self, member: Member, message: wire.Message, headers: Mapping[str, str]
    ) -> tuple[Stream, wire.WatchNews]:
        stream = Stream(await member.stream("/v3/watch", wire.encode(message), headers))
        try:
            first = await stream.next(limit_s=TRY_S)
            if first is None:
                raise NotAnsweredError("the watch did not begin")
        except BaseException:
            stream.close()
            raise
        return stream, first


def _go_on(err: Exception, told: str) -> None:
    """Let the next member be asked, unless it would say the same."""
    if isinstance(err, wire.EtcdRefusalError) and err.is_final:
        raise CoordinatorAwayError(f"ask the coordinator: refused: {told}") from err


def _expect_no_effect(err: Exception, told: str) -> None:
    """Let the next member be asked if this one surely did nothing."""
    _go_on(err, told)
    if isinstance(err, NotAnsweredError) or (isinstance(err, wire.EtcdRefusalError) and not err.is_without_effect):
        raise OutcomeUnknownError(
            f"ask the coordinator: {told}; it may have been done, read what became of it"
        ) from err
