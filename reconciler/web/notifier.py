"""Tells each target what stands: a moment after it changed, again and again until it was heard, and then no more."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

import structlog

from reconciler.agent.books import Books
from reconciler.agent.notices import (
    Book,
    Notice,
    after,
    after_status,
    due,
    due_statuses,
    forget_unwanted,
    look_again_in,
)
from reconciler.agent.standing import Standing
from reconciler.errors import DeliveryError, NotWantedError, StateError, VectlError
from reconciler.model.seam import Clock
from reconciler.plan.words import printable
from reconciler.state.notify import SlackTarget, StatusTarget, Target, WebhookTarget
from reconciler.web import messages
from reconciler.web.client import Message, Reply, post, server_of

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_WANTED = frozenset({400, 404, 409, 410, 413, 422})
"""What a forge says of a commit that it does not have, or of a status that it has."""

_Letter: TypeAlias = tuple[Message, Book]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Units: seconds. ``gather_s`` for changes to come together; ``look_s`` between looks without any; ``first_s`` and
    ``longest_s`` the delays after what did not get there.
    """

    gather_s: float = 2.0
    look_s: float = 30.0
    first_s: float = 1.0
    longest_s: float = 300.0


@dataclass(slots=True, kw_only=True)
class Notifier:
    """Tells one target. ``look`` gives what stands, None as long as nobody knows; ``told`` hears what went wrong."""

    target: Target
    look: Callable[[], Standing | None]
    books: Books
    clock: Clock
    told: Callable[[str], None]
    pace: Pace = field(default_factory=Pace)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _book: Book = field(default_factory=Book)
    _problem: str = ""

    async def run(self) -> None:
        """Tell until cancelled."""
        self._book = self._kept()
        while True:
            await self._wait(self._look_again_in())
            self.changed.clear()
            await self._tell_all()

    async def _tell_all(self) -> None:
        """Tell what there is to tell; what cannot be told now is looked at anew before each attempt."""
        delay_s = self.pace.first_s
        while True:
            try:
                for message, book in self._letters():
                    await self._send(message)
                    self._keep(book)
            except VectlError as error:
                self._tell_problem(str(error))
                asked_s = error.wait_s if isinstance(error, DeliveryError) else self.pace.longest_s
                await asyncio.sleep(max(delay_s, min(asked_s, self.pace.longest_s)))
                delay_s = min(delay_s * 2, self.pace.longest_s)
            else:
                self._problem = ""
                return

    def _look_again_in(self) -> float:
        standing = self.look()
        soon_s = None if standing is None else look_again_in(self._book, standing, self.clock.now())
        return self.pace.look_s if soon_s is None else min(soon_s, self.pace.look_s)

    async def _wait(self, seconds: float) -> None:
        """Wait until something changed, and what else changes with it; or until it is time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()
                await asyncio.sleep(self.pace.gather_s)

    def _letters(self) -> Iterator[_Letter]:
        """Give what to send, each with what the target has been told by then."""
        standing, now = self.look(), self.clock.now()
        if standing is None:
            return
        match self.target:
            case WebhookTarget() | SlackTarget() as target:
                self._book = forget_unwanted(self._book, standing, target.topics)
                if notices := due(self._book, standing, target.topics, now):
                    yield _letter(target, standing.host, notices), after(self._book, notices, now)
            case StatusTarget() as target:
                for progress in due_statuses(self._book, standing, now):
                    message = messages.status(target, standing.host, progress)
                    yield message, after_status(self._book, progress, now)
            case _:
                assert_never(self.target)

    async def _send(self, message: Message) -> None:
        reply = await post(message)
        if not 200 <= reply.status < 300 and not self._is_settled(reply, message):
            raise _refusal(reply, message)

    def _is_settled(self, reply: Reply, message: Message) -> bool:
        """Say whether a status that was refused is not to be sent again: it is there, or its commit is not."""
        target = self.target
        if not isinstance(target, StatusTarget) or reply.status not in _NOT_WANTED:
            return False
        if not messages.is_as_told(target, reply.text):
            self._tell_problem(str(_refusal(reply, message)))
        return True

    def _tell_problem(self, problem: str) -> None:
        """Tell what went wrong, once as long as it is the same."""
        if problem != self._problem:
            self._problem = problem
            structlog.get_logger().warning("notice.not_delivered", error=problem)
            self.told(problem)

    def _kept(self) -> Book:
        try:
            return self.books.read(key_of(self.target))
        except StateError as error:
            structlog.get_logger().warning("notices.not_read", error=str(error))
            return Book()

    def _keep(self, book: Book) -> None:
        self._book = book
        try:
            self.books.write(key_of(self.target), book)
        except VectlError as error:
            structlog.get_logger().warning("notices.not_kept", error=str(error))


def key_of(target: Target) -> str:
    """Name a target, the same after each start, by what leads to it and what it wants to hear."""
    match target:
        case WebhookTarget():
            words: Sequence[str] = ("webhook", target.url, target.url_file or "", *sorted(target.topics))
        case SlackTarget():
            words = ("slack", target.url_file, *sorted(target.topics))
        case StatusTarget():
            words = ("status", target.api, target.repository)
        case _:
            assert_never(target)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _letter(target: WebhookTarget | SlackTarget, host: str, notices: Sequence[Notice]) -> Message:
    if isinstance(target, SlackTarget):
        return messages.slack(target, host, notices)
    return messages.webhook(target, host, notices)


def _refusal(reply: Reply, message: Message) -> VectlError:
    said = printable(" ".join(reply.text.split()))[:200]
    text = f"tell {server_of(message.url)}: it answers {reply.status}" + (f": {said}" if said else "")
    if reply.status in _LATER:
        return DeliveryError(text, wait_s=reply.wait_s)
    if 300 <= reply.status < 400:
        return NotWantedError(f"{text}; redirections are not followed, name the address it leads to")
    return NotWantedError(text)
