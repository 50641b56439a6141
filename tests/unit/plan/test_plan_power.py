"""Whether to boot, to stop, to clean up, or to leave a VE down: the whole table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model.action import Origin, Reason
from reconciler.model.identity import Uid
from reconciler.model.power import (
    SUSPENSION,
    DeleteRuntime,
    End,
    EndCause,
    MemoryObservation,
    Power,
    PowerObservation,
    PowerSpec,
    PowerState,
    RestartPolicy,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.plan import power
from reconciler.plan.power import Decision, Step
from reconciler.twin.host import ALL_CAPABILITIES

UID = Uid("00000000-0000-4000-8000-000000000001")
RUNNING, CREATED, SUSPENDED, STOPPED = (PowerObservation(state=state) for state in reversed(PowerState))
MEMORY = MemoryObservation(suspended_at=1.0)
ASLEEP = replace(SUSPENDED, memory=MEMORY)
ALWAYS, ON_FAILURE, NEVER = RestartPolicy
KILLED = End(cause=EndCause.KILLED, value=9)
HALTED = End(cause=EndCause.HALT, value=2)
REBOOTED = End(cause=EndCause.REBOOT, value=1)
EXITED = End(cause=EndCause.EXITED, value=0)
FAILED = End(cause=EndCause.EXITED, value=3)
UNSEEN = End(cause=EndCause.UNKNOWN)

AFTER_END = {
    (ALWAYS, KILLED): Step.BOOT,
    (ALWAYS, HALTED): Step.BOOT,
    (ALWAYS, REBOOTED): Step.BOOT,
    (ALWAYS, EXITED): Step.BOOT,
    (ALWAYS, FAILED): Step.BOOT,
    (ALWAYS, UNSEEN): Step.BOOT,
    (ON_FAILURE, KILLED): Step.BOOT,
    (ON_FAILURE, HALTED): Step.HOLD,
    (ON_FAILURE, REBOOTED): Step.BOOT,
    (ON_FAILURE, EXITED): Step.HOLD,
    (ON_FAILURE, FAILED): Step.BOOT,
    (ON_FAILURE, UNSEEN): Step.BOOT,
    (NEVER, KILLED): Step.HOLD,
    (NEVER, HALTED): Step.HOLD,
    (NEVER, REBOOTED): Step.BOOT,
    (NEVER, EXITED): Step.HOLD,
    (NEVER, FAILED): Step.HOLD,
    (NEVER, UNSEEN): Step.HOLD,
}


def decide(
    spec: PowerSpec,
    seen: PowerObservation,
    *,
    changed: bool = False,
    origin: Origin = Origin.DRIFT,
    leftovers: bool = False,
) -> Decision:
    return power.decide(spec, seen, spec_changed=changed, origin=origin, leftovers=leftovers)


def stopped(end: End | None, *, requested: bool = False, holdings: tuple[str, ...] = ()) -> PowerObservation:
    return PowerObservation(state=PowerState.STOPPED, last_end=end, stop_requested=requested, holdings=holdings)


@pytest.mark.parametrize(("policy", "end"), AFTER_END, ids=lambda value: str(getattr(value, "cause", value)))
def test_an_end_is_answered_as_the_policy_says(policy: RestartPolicy, end: End) -> None:
    assert decide(PowerSpec(restart=policy), stopped(end)).step is AFTER_END[policy, end]


@pytest.mark.parametrize(("policy", "end"), AFTER_END, ids=lambda value: str(getattr(value, "cause", value)))
def test_a_changed_spec_boots_whatever_the_end_was(policy: RestartPolicy, end: End) -> None:
    assert decide(PowerSpec(restart=policy), stopped(end), changed=True).step is Step.BOOT


@pytest.mark.parametrize("policy", RestartPolicy)
def test_an_end_of_our_own_doing_is_no_end_of_the_tenants(policy: RestartPolicy) -> None:
    decision = decide(PowerSpec(restart=policy), stopped(HALTED, requested=True))
    assert (decision.step, decision.reason) == (Step.BOOT, Reason.DRIFTED)


@pytest.mark.parametrize("policy", RestartPolicy)
def test_a_ve_that_did_not_run_since_the_host_booted_is_booted(policy: RestartPolicy) -> None:
    assert decide(PowerSpec(restart=policy), stopped(None)).step is Step.BOOT


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("policy", RestartPolicy)
def test_a_running_ve_that_should_run_is_kept(policy: RestartPolicy, changed: bool) -> None:
    assert decide(PowerSpec(restart=policy), RUNNING, changed=changed).step is Step.KEEP


@pytest.mark.parametrize(("wanted", "step"), [(Power.STOPPED, Step.STOP), (Power.SUSPENDED, Step.SUSPEND)])
@pytest.mark.parametrize("changed", [False, True])
def test_a_running_ve_that_should_be_down_is_brought_there(wanted: Power, step: Step, changed: bool) -> None:
    assert decide(PowerSpec(state=wanted), RUNNING, changed=changed).step is step


@pytest.mark.parametrize("policy", RestartPolicy)
def test_a_suspended_ve_that_should_run_is_resumed_whatever_its_policy_for_ends(policy: RestartPolicy) -> None:
    assert decide(PowerSpec(restart=policy), ASLEEP).step is Step.RESUME


def test_a_suspended_ve_that_should_be_stopped_is_resumed_for_that() -> None:
    assert decide(PowerSpec(state=Power.STOPPED), ASLEEP).step is Step.RESUME_AND_STOP


def test_a_suspended_ve_that_should_be_is_kept() -> None:
    assert decide(PowerSpec(state=Power.SUSPENDED), ASLEEP).step is Step.KEEP


@pytest.mark.parametrize("wanted", [Power.SUSPENDED, Power.STOPPED])
@pytest.mark.parametrize("end", [None, KILLED, HALTED])
def test_a_ve_that_is_down_without_a_memory_is_not_booted_to_be_suspended(wanted: Power, end: End | None) -> None:
    assert decide(PowerSpec(state=wanted), stopped(end)).step is Step.KEEP


@pytest.mark.parametrize("wanted", Power)
def test_a_suspension_that_was_committed_is_brought_to_its_end_whatever_is_wanted(wanted: Power) -> None:
    seen = replace(RUNNING, memory=MEMORY)
    decision = decide(PowerSpec(state=wanted), seen)
    assert (decision.step, decision.origin) == (Step.FINISH_SUSPENSION, Origin.POLICY)


@pytest.mark.parametrize(
    ("wanted", "step"),
    [(Power.RUNNING, Step.RESUME), (Power.STOPPED, Step.RESUME_AND_STOP), (Power.SUSPENDED, Step.CLEAN)],
)
def test_an_init_that_waits_to_take_up_a_memory_never_makes_it_be_forgotten(wanted: Power, step: Step) -> None:
    assert decide(PowerSpec(state=wanted), replace(CREATED, memory=MEMORY)).step is step


@pytest.mark.parametrize("wanted", Power)
def test_what_the_host_cannot_do_with_a_memory_is_held_with_the_reason(wanted: Power) -> None:
    cannot = replace(ALL_CAPABILITIES, why_not={SUSPENSION: "criu is not installed"})
    seen = RUNNING if wanted is Power.SUSPENDED else ASLEEP
    held = power.permitted(decide(PowerSpec(state=wanted), seen), cannot)
    assert (held.step, held.rule) == (Step.HOLD, "NotOnThisHost")
    assert "criu is not installed" in held.message
    assert "vectl doctor" in held.remedy


def test_a_suspended_ve_that_should_be_is_kept_on_a_host_that_cannot_suspend() -> None:
    cannot = replace(ALL_CAPABILITIES, why_not={SUSPENSION: "criu is not installed"})
    kept = decide(PowerSpec(state=Power.SUSPENDED), ASLEEP)
    assert power.permitted(kept, cannot) == kept


def test_what_was_half_suspended_is_suspended_before_it_is_cleared_away() -> None:
    effects = power.stop_effects(UID, 5.0, replace(RUNNING, memory=MEMORY))
    assert effects == (SuspendRuntime(uid=UID), DeleteRuntime(uid=UID))


@pytest.mark.parametrize(
    ("seen", "leftovers"),
    [(CREATED, False), (stopped(None), True), (stopped(KILLED, holdings=("runtime",)), False)],
    ids=["created", "cgroup", "runtime-record"],
)
def test_what_a_crash_left_of_a_ve_that_should_be_down_is_cleaned(seen: PowerObservation, leftovers: bool) -> None:
    decision = decide(PowerSpec(state=Power.STOPPED), seen, leftovers=leftovers)
    assert (decision.step, decision.reason, decision.origin) == (Step.CLEAN, Reason.UNFINISHED, Origin.POLICY)


@pytest.mark.parametrize("end", [None, KILLED, HALTED, REBOOTED])
def test_a_ve_that_is_down_and_should_be_is_kept(end: End | None) -> None:
    assert decide(PowerSpec(state=Power.STOPPED), stopped(end)).step is Step.KEEP


def test_an_init_that_was_never_let_go_is_booted_anew() -> None:
    decision = decide(PowerSpec(), CREATED)
    assert (decision.step, decision.reason) == (Step.BOOT, Reason.UNFINISHED)


@pytest.mark.parametrize("origin", [Origin.GIT, Origin.DRIFT])
@pytest.mark.parametrize(
    ("wanted", "seen"), [(Power.RUNNING, STOPPED), (Power.RUNNING, CREATED), (Power.STOPPED, RUNNING)]
)
def test_whose_wish_a_step_is_does_not_depend_on_other_fields(
    wanted: Power, seen: PowerObservation, origin: Origin
) -> None:
    assert decide(PowerSpec(state=wanted), seen, changed=True, origin=origin).origin is origin


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (KILLED, "killed by signal 9"),
        (FAILED, "exit status 3"),
        (UNSEEN, "cause unknown: nobody was there to see it"),
        (HALTED, "halt from inside"),
    ],
)
def test_a_held_end_is_told_in_words(end: End, words: str) -> None:
    assert power.describe(end) == words
    if end.cause is not EndCause.HALT:
        assert words in decide(PowerSpec(restart=NEVER), stopped(end)).message


def test_a_clean_halt_names_the_way_back() -> None:
    decision = decide(PowerSpec(), stopped(HALTED))
    assert (decision.rule, "vectl start" in decision.message) == ("HaltedInside", True)


def test_only_a_running_init_is_asked_to_stop() -> None:
    delete = DeleteRuntime(uid=UID)
    assert power.stop_effects(UID, 7.0, RUNNING) == (StopRuntime(uid=UID, timeout_s=7.0), delete)
    assert power.stop_effects(UID, 7.0, CREATED) == (delete,)
    assert power.stop_effects(UID, 7.0, STOPPED) == (delete,)


def test_a_boot_clears_only_what_is_there() -> None:
    assert power.clear_effects(UID, stopped(KILLED)) == ()
    assert power.clear_effects(UID, CREATED) == (DeleteRuntime(uid=UID),)
    assert power.clear_effects(UID, stopped(KILLED, holdings=("runtime",))) == (DeleteRuntime(uid=UID),)


def test_the_time_to_stop_outlives_the_manifest() -> None:
    assert power.stop_timeout_s({"boot.stopTimeout": 5}) == 5.0
    assert power.stop_timeout_s({}) == 30.0
