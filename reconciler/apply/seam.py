"""Wrappers of the seam: counting, failing on purpose and logging, each around whatever performs effects.

Failpoints are written as in gofail: ``SetLimit:before=kill;CreateRuntime:after=30%error(EIO)``. A failpoint is an
effect's name, or ``*``, and ``before`` or ``after`` it; then terms joined by ``->``, the first of which that applies
is carried out. A term is ``off``, ``kill``, ``error(ERRNO)`` or ``sleep(SECONDS)``; ``30%`` before it lets it apply
in so many cases of a hundred, ``2*`` only twice. So ``CreateVolume:after=2*off->kill`` kills after the third one.
An error *after* an effect is the ambiguous failure: it was done, and nobody said so.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, NoReturn, TypeAlias, assert_never

from reconciler.errors import ConfigError, InjectedFailureError, VectlError
from reconciler.model.effects import EFFECT_TYPES, Effect, effect_name
from reconciler.model.seam import Effects

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

ANY_EFFECT = "*"

_NAMES = frozenset(kind.__name__ for kind in EFFECT_TYPES)
_POINT = re.compile(r"\s*(?P<effect>[A-Za-z]+|\*):(?P<moment>[a-z]+)=(?P<terms>.+?)\s*")
_TERM = re.compile(
    r"(?:(?P<times>\d+)\*)?(?:(?P<percent>\d+(?:\.\d+)?)%)?(?P<deed>[a-z]+)(?:\((?P<argument>[^()]*)\))?"
)
_EXAMPLE = "expected for example SetLimit:before=kill or CreateRuntime:after=30%error(EIO)"


class Moment(StrEnum):
    """On which side of an effect a failpoint lies."""

    BEFORE = "before"
    AFTER = "after"


class Simple(StrEnum):
    """What a term does that takes no argument."""

    OFF = "off"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise an error. ``number``: one of errno(3)."""

    number: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Units: seconds."""

    seconds: float


Deed: TypeAlias = Simple | Fail | Sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What to do, how many times at most, and in how many cases of a hundred."""

    deed: Deed
    times: int | None = None
    percent: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """A place in the stream of effects, and what happens there: the first of the terms that applies."""

    effect: str
    moment: Moment
    terms: tuple[Term, ...]


def parse_failpoints(text: str) -> tuple[Failpoint, ...]:
    """Parse failpoints, as this module's docstring describes them.

    Raises: ConfigError.
    """
    return tuple(_parse_point(part) for part in text.split(";") if part.strip())


def _parse_point(text: str) -> Failpoint:
    match = _POINT.fullmatch(text)
    if match is None:
        raise ConfigError(f"parse failpoint {text.strip()!r}: {_EXAMPLE}")
    if match["effect"] not in _NAMES and match["effect"] != ANY_EFFECT:
        raise ConfigError(f"parse failpoint {text.strip()!r}: there is no effect {match['effect']!r}")
    if match["moment"] not in tuple(Moment):
        raise ConfigError(f"parse failpoint {text.strip()!r}: expected before or after, got {match['moment']!r}")
    terms = tuple(_parse_term(term.strip()) for term in match["terms"].split("->"))
    return Failpoint(effect=match["effect"], moment=Moment(match["moment"]), terms=terms)


def _parse_term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        raise ConfigError(f"parse failpoint's term {text!r}: {_EXAMPLE}")
    percent = 100.0 if match["percent"] is None else float(match["percent"])
    if percent > 100:
        raise ConfigError(f"parse failpoint's term {text!r}: expected at most 100%")
    times = None if match["times"] is None else int(match["times"])
    return Term(deed=_parse_deed(match["deed"], match["argument"], text), times=times, percent=percent)


def _parse_deed(name: str, argument: str | None, text: str) -> Deed:
    match name, argument:
        case (("off" | "kill"), None):
            return Simple(name)
        case "error", str():
            return Fail(_parse_errno(argument, text))
        case "sleep", str():
            return Sleep(_parse_seconds(argument, text))
        case _:
            raise ConfigError(f"parse failpoint's term {text!r}: expected off, kill, error(EIO) or sleep(0.5)")


def _parse_errno(name: str, text: str) -> int:
    number: object = getattr(errno, name, None) if name.startswith("E") else None
    if not isinstance(number, int):
        raise ConfigError(f"parse failpoint's term {text!r}: expected the name of an errno such as EIO, got {name!r}")
    return number


def _parse_seconds(number: str, text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", number):
        raise ConfigError(f"parse failpoint's term {text!r}: expected seconds such as 0.5, got {number!r}")
    return float(number)


def kill_this_process() -> NoReturn:
    """End this process as the kernel's OOM killer would: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(128 + signal.SIGKILL)


class FailpointEffects:
    """Lets chosen effects fail, before or after they are carried out.

    ``kill`` ends the process. Where it only raises, as in a simulation, the clean-up that this sets off finds the
    effects dead: a process killed for good would not clean up.
    """

    def __init__(
        self,
        inner: Effects,
        failpoints: Iterable[Failpoint],
        *,
        random: Random,
        kill: Callable[[], NoReturn] = kill_this_process,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inner, self._random, self._kill, self._sleep = inner, random, kill, sleep
        self._is_dead = False
        self._points: dict[tuple[str, Moment], list[_ArmedTerm]] = {}
        for point in failpoints:
            terms = [_ArmedTerm(term.deed, term.times, term.percent) for term in point.terms]
            self._points.setdefault((point.effect, point.moment), []).extend(terms)

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect, unless a failpoint forbids it. A process that was killed performs nothing any more.

        Raises: InjectedFailureError, and whatever the wrapped one raises.
        """
        if self._is_dead:
            self._kill()
        await self._pass(effect, Moment.BEFORE)
        await self._inner.perform(effect)
        await self._pass(effect, Moment.AFTER)

    async def _pass(self, effect: Effect, moment: Moment) -> None:
        name = effect_name(effect)
        for key in (name, ANY_EFFECT):
            for term in self._points.get((key, moment), ()):
                if term.applies(self._random):
                    await self._do(term.deed, f"perform {name}: failpoint {moment} it")
                    break

    async def _do(self, deed: Deed, doing: str) -> None:
        match deed:
            case Simple.OFF:
                return
            case Simple.KILL:
                self._is_dead = True
                self._kill()
            case Fail():
                word = errno.errorcode[deed.number]
                cause = OSError(deed.number, os.strerror(deed.number))
                raise InjectedFailureError(f"{doing} says {word}") from cause
            case Sleep():
                await self._sleep(deed.seconds)
            case _:
                assert_never(deed)


@dataclass(slots=True)
class _ArmedTerm:
    deed: Deed
    left: int | None
    percent: float

    def applies(self, random: Random) -> bool:
        """Say whether it is this term's turn, and count that."""
        if self.left == 0 or (self.percent < 100 and random.random() * 100 >= self.percent):
            return False
        if self.left is not None:
            self.left -= 1
        return True


class CountingEffects:
    """Counts effects by name: ``begun`` all of them, ``failed`` those that raised."""

    def __init__(self, inner: Effects) -> None:
        self._inner = inner
        self.begun: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many effects were begun."""
        return self.begun.total()

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect and count it.

        Raises: whatever the wrapped one raises.
        """
        name = effect_name(effect)
        self.begun[name] += 1
        try:
            await self._inner.perform(effect)
        except VectlError:
            self.failed[name] += 1
            raise


class LoggingEffects:
    """Writes one line at debug level for each effect, with the action that it serves."""

    def __init__(self, inner: Effects, log: FilteringBoundLogger) -> None:
        self._inner, self._log = inner, log

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect and log it.

        Raises: whatever the wrapped one raises.
        """
        fields = {"effect": effect_name(effect), "serves": effect.serves, "uid": getattr(effect, "uid", None)}
        try:
            await self._inner.perform(effect)
        except VectlError as err:
            self._log.debug("effect.failed", error=str(err), **fields)
            raise
        self._log.debug("effect.performed", **fields)
