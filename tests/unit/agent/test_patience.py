"""How long to wait after failures, and when to stop fighting."""

from __future__ import annotations

import pytest

from reconciler.agent.backoff import LONGEST_DELAY_S, STABLE_S, Backoff
from reconciler.agent.patience import COOL_DOWN_S, HEALS, RESTART_BURST, Patience
from reconciler.apply.applier import Outcome
from reconciler.errors import KernelError
from reconciler.model.action import Action, Impact, Operation, Origin, Reason
from reconciler.model.identity import Uid
from reconciler.model.power import StartRuntime

UID = Uid("00000000-0000-4000-8000-000000000001")


def steady() -> Backoff:
    return Backoff(random=lambda: 0.0)


def fix(path: str = "processes", *, reason: Reason = Reason.DRIFTED, origin: Origin = Origin.DRIFT) -> Action:
    return Action(
        ve="web1",
        uid=UID,
        op=Operation.UPDATE,
        path=path,
        before=7,
        after=4096,
        reason=reason,
        impact=Impact.LIVE,
        origin=origin,
        effects=(StartRuntime(uid=UID),),
    )


BOOT = fix("power", reason=Reason.INIT_ENDED)


def done(action: Action) -> Outcome:
    return Outcome(action=action, elapsed_s=0.1)


def test_delays_double_up_to_five_minutes() -> None:
    backoff, now, delays = steady(), 0.0, []
    for _ in range(12):
        delays.append(backoff.failed("a", "KernelError", now))
        now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_failures_for_days_do_not_overflow() -> None:
    backoff, now = steady(), 0.0
    for _ in range(3000):
        now += backoff.failed("a", "KernelError", now)
    assert backoff.failed("a", "KernelError", now) == LONGEST_DELAY_S


def test_jitter_only_lengthens_and_by_a_tenth_at_most() -> None:
    assert Backoff(random=lambda: 1.0).failed("a", "x", 0.0) == pytest.approx(1.1)


def test_keys_and_reasons_wait_apart() -> None:
    backoff = steady()
    assert [backoff.failed("a", "x", 0.0), backoff.failed("a", "x", 1.0)] == [1, 2]
    assert [backoff.failed("a", "y", 1.0), backoff.failed("b", "x", 1.0)] == [1, 1]


def test_a_success_or_a_stable_time_begins_anew() -> None:
    backoff = steady()
    backoff.failed("a", "x", 0.0)
    backoff.succeeded("a")
    assert (backoff.left("a", 0.0), backoff.failed("a", "x", 0.5)) == (0.0, 1)
    until = 0.5 + 1
    assert backoff.is_failing("a", "x", until + STABLE_S)
    assert not backoff.is_failing("a", "x", until + STABLE_S + 0.1)
    assert backoff.failed("a", "x", until + STABLE_S + 0.1) == 1


def test_what_is_left_is_the_longest_of_a_keys_delays() -> None:
    backoff = steady()
    backoff.failed("a", "x", 0.0)
    backoff.failed("a", "y", 0.0)
    backoff.failed("a", "y", 0.0)
    assert (backoff.left("a", 0.5), backoff.left("a", 5.0), backoff.left("b", 0.5)) == (1.5, 0.0, 0.0)


def test_ten_corrections_within_a_minute_are_one_too_many() -> None:
    patience, now = Patience(steady()), 0.0
    for _ in range(HEALS):
        assert patience.hold(fix(), now) is None
        patience.note(done(fix()), now)
        now += 5
    hold = patience.hold(fix(), now)
    assert hold is not None
    assert (hold.reason, hold.stalled) == ("DriftLoop", True)
    assert "7" in hold.message
    assert "4096" in hold.message
    assert patience.hold(fix(), now - 5 + COOL_DOWN_S) is None


def test_corrections_that_come_seldom_are_made_for_ever() -> None:
    patience, now = Patience(steady()), 0.0
    for _ in range(100):
        assert patience.hold(fix(), now) is None
        patience.note(done(fix()), now)
        now += STABLE_S / (HEALS - 1) + 0.1


def test_only_the_field_that_is_fought_for_waits() -> None:
    patience = Patience(steady())
    for number in range(HEALS):
        patience.note(done(fix()), float(number))
    assert patience.hold(fix("memory.limit"), 10.0) is None
    assert patience.hold(fix(origin=Origin.GIT), 10.0) is None
    assert patience.hold(fix(), 10.0) is not None


def test_only_what_was_carried_out_counts() -> None:
    patience = Patience(steady())
    for number in range(3 * HEALS):
        patience.note(Outcome(action=fix(), elapsed_s=0.1, error=KernelError("no")), float(number))
        patience.note(Outcome(action=fix(), elapsed_s=0.0, skipped="an earlier action failed"), float(number))
        patience.note(done(fix(origin=Origin.GIT)), float(number))
    assert patience.hold(fix(), 3.0 * HEALS) is None


def test_an_init_that_goes_on_dying_waits_twice_as_long_each_time() -> None:
    patience, now, waits = Patience(steady()), 0.0, []
    for _ in range(RESTART_BURST + 9):
        hold = patience.hold(BOOT, now)
        waits.append(hold.wait_s if hold else 0.0)
        now += waits[-1]
        patience.note(done(BOOT), now)
        now += 0.5
    assert waits[:RESTART_BURST] == [0.0] * RESTART_BURST
    assert [round(wait + 0.5) for wait in waits[RESTART_BURST:]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_an_init_that_lived_is_started_at_once_again() -> None:
    patience, now = Patience(steady()), 0.0
    for _ in range(RESTART_BURST + 3):
        hold = patience.hold(BOOT, now)
        now += hold.wait_s if hold else 0.0
        patience.note(done(BOOT), now)
        now += 0.5
    now += 300.0
    assert patience.hold(BOOT, now) is None
    patience.note(done(BOOT), now)
    assert patience.hold(BOOT, now + 1) is None


def test_a_held_start_names_the_crash_loop_and_stalls_nobody() -> None:
    patience = Patience(steady())
    for _ in range(RESTART_BURST):
        patience.note(done(BOOT), 0.0)
    hold = patience.hold(BOOT, 0.0)
    assert hold is not None
    assert (hold.reason, hold.stalled, hold.wait_s) == ("CrashLoop", False, 1.0)
