"""The wrappers of the seam: failpoints, counting, logging."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from random import Random

import pytest
import structlog
from structlog.testing import LogCapture

from reconciler.apply.seam import (
    CountingEffects,
    Fail,
    Failpoint,
    FailpointEffects,
    LoggingEffects,
    Moment,
    Simple,
    Sleep,
    Term,
    parse_failpoints,
)
from reconciler.errors import ConfigError, InjectedFailureError, KernelError
from reconciler.model.compute import Limit, RemoveCgroup, SetLimit
from reconciler.model.effects import Effect
from reconciler.model.seam import Effects
from reconciler.model.volume import TrashVe
from reconciler.twin.host import Crash, crash
from tests.support.twins import A

SET = SetLimit(uid=A, limit=Limit.PROCESSES, value=1, serves="web1:processes")
TRASH = TrashVe(uid=A)


class Recorder:
    """Effects that only remember."""

    def __init__(self) -> None:
        self.done: list[Effect] = []

    async def perform(self, effect: Effect) -> None:
        self.done.append(effect)


class Refuser:
    """Effects that all fail."""

    async def perform(self, effect: Effect) -> None:
        raise KernelError(f"perform {type(effect).__name__}: no")


def perform(effects: Effects, *many: Effect) -> None:
    async def perform_all() -> None:
        for effect in many:
            await effects.perform(effect)

    asyncio.run(perform_all())


def failing(text: str, inner: Effects, *, seed: int = 0) -> FailpointEffects:
    return FailpointEffects(inner, parse_failpoints(text), random=Random(seed), kill=crash)


def outcomes(text: str, *, times: int, seed: int = 0) -> str:
    """Tell which of several equal effects failed, one letter each."""
    effects, told = failing(text, Recorder(), seed=seed), ""
    for _ in range(times):
        try:
            perform(effects, SET)
            told += "."
        except InjectedFailureError:
            told += "E"
        except Crash:
            told += "K"
    return told


def test_failpoints_are_parsed_as_gofail_writes_them() -> None:
    assert parse_failpoints(" SetLimit:before=kill; CreateRuntime:after=2*30%error(EIO) -> off -> sleep(0.5) ;") == (
        Failpoint(effect="SetLimit", moment=Moment.BEFORE, terms=(Term(deed=Simple.KILL),)),
        Failpoint(
            effect="CreateRuntime",
            moment=Moment.AFTER,
            terms=(Term(deed=Fail(5), times=2, percent=30.0), Term(deed=Simple.OFF), Term(deed=Sleep(0.5))),
        ),
    )
    assert parse_failpoints("") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SetLimit", "expected for example"),
        ("SetLimit:before", "expected for example"),
        ("SetLimits:before=kill", "no effect 'SetLimits'"),
        ("SetLimit:during=kill", "before or after, got 'during'"),
        ("SetLimit:before=die", "expected off, kill"),
        ("SetLimit:before=kill(9)", "expected off, kill"),
        ("SetLimit:before=error", "expected off, kill"),
        ("SetLimit:before=error(5)", "name of an errno"),
        ("SetLimit:before=error(ENOSUCH)", "name of an errno"),
        ("SetLimit:before=error(errorcode)", "name of an errno"),
        ("SetLimit:before=sleep(5s)", "expected seconds"),
        ("SetLimit:before=101%kill", "at most 100%"),
        ("SetLimit:before=30%2*kill", "expected for example"),
        ("SetLimit:before=kill->", "expected for example"),
    ],
)
def test_a_failpoint_that_is_not_one_is_told_what_was_expected(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"parse failpoint.*{complaint}"):
        parse_failpoints(text)


def test_without_failpoints_every_effect_passes() -> None:
    inner = Recorder()
    perform(failing("", inner), SET, TRASH)
    assert inner.done == [SET, TRASH]


def test_an_error_before_an_effect_keeps_it_from_happening() -> None:
    inner = Recorder()
    effects = failing("SetLimit:before=error(EIO)", inner)
    with pytest.raises(InjectedFailureError, match="EIO") as caught:
        perform(effects, SET)
    assert isinstance(caught.value.__cause__, OSError)
    perform(effects, TRASH)
    assert inner.done == [TRASH]


def test_an_error_after_an_effect_is_ambiguous() -> None:
    inner = Recorder()
    with pytest.raises(InjectedFailureError):
        perform(failing("SetLimit:after=error(ENOSPC)", inner), SET)
    assert inner.done == [SET]


@pytest.mark.parametrize(("moment", "done"), [("before", []), ("after", [SET])])
def test_a_kill_ends_everything_there_and_then(moment: str, done: list[Effect]) -> None:
    inner = Recorder()
    effects = failing(f"SetLimit:{moment}=kill", inner)
    with pytest.raises(Crash):
        perform(effects, SET)
    with pytest.raises(Crash):
        perform(effects, TRASH)
    assert inner.done == done


def test_a_star_stands_for_every_effect() -> None:
    with pytest.raises(InjectedFailureError):
        perform(failing("*:before=error(EIO)", Recorder()), RemoveCgroup(uid=A))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SetLimit:before=2*error(EIO)", "EE.."),
        ("SetLimit:before=2*off->1*error(EIO)", "..E."),
        ("SetLimit:after=1*error(EIO)->1*off->kill", "E.KK"),
        ("SetLimit:before=0%error(EIO)", "...."),
        ("SetLimit:before=100%error(EIO)", "EEEE"),
        ("TrashVe:before=kill", "...."),
        ("SetLimit:before=1*error(EIO);SetLimit:before=1*error(EIO)", "EE.."),
    ],
)
def test_terms_take_their_turn(text: str, expected: str) -> None:
    assert outcomes(text, times=4) == expected


def test_a_share_of_failures_is_drawn_from_the_given_randomness() -> None:
    runs = [outcomes("*:before=30%error(EIO)", times=200, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert 30 < runs[0].count("E") < 90


def test_a_sleep_takes_the_time_that_it_says() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    inner = Recorder()
    points = parse_failpoints("*:before=sleep(1.5);*:after=sleep(2)")
    perform(FailpointEffects(inner, points, random=Random(0), sleep=sleep), SET)
    assert slept == [1.5, 2.0]
    assert inner.done == [SET]


def test_a_real_kill_is_sigkill() -> None:
    program = "from reconciler.apply import seam; seam.kill_this_process()"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == -9


def test_effects_are_counted_by_name_whatever_came_of_them() -> None:
    counting = CountingEffects(failing("SetLimit:after=1*error(EIO)", Recorder()))
    with pytest.raises(InjectedFailureError):
        perform(counting, SET)
    perform(counting, SET, TRASH)
    assert dict(counting.begun) == {"SetLimit": 2, "TrashVe": 1}
    assert dict(counting.failed) == {"SetLimit": 1}
    assert counting.total == 3


def test_each_effect_is_one_line_of_the_log() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    perform(LoggingEffects(Recorder(), log), SET)
    with pytest.raises(KernelError):
        perform(LoggingEffects(Refuser(), log), TRASH)
    assert lines.entries == [
        {
            "event": "effect.performed",
            "effect": "SetLimit",
            "serves": "web1:processes",
            "uid": A,
            "log_level": "debug",
        },
        {
            "event": "effect.failed",
            "effect": "TrashVe",
            "serves": "",
            "uid": A,
            "error": "perform TrashVe: no",
            "log_level": "debug",
        },
    ]
