"""The inits of the twin, and what is remembered of their ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.errors import BusyError, KernelError, StateError, TemplateError
from reconciler.model.compute import CreateCgroup, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.network import VeNetworkObservation
from reconciler.model.power import (
    DeleteRuntime,
    End,
    EndCause,
    ForgetEnd,
    PowerObservation,
    PowerState,
    StartRuntime,
    StopRuntime,
)
from reconciler.twin.world import World
from tests.support.effect_choices import TEMPLATE
from tests.support.twins import A, created, data, launch, look, perform, running, see, see_power, twin_after

CGROUP = CreateCgroup(uid=A, limits={})
START, STOP, DELETE, FORGET = (
    StartRuntime(uid=A),
    StopRuntime(uid=A, timeout_s=1),
    DeleteRuntime(uid=A),
    ForgetEnd(uid=A),
)
LAUNCH = launch(A)
OTHER_LAUNCH = replace(LAUNCH, launch=replace(LAUNCH.launch, nesting=True))


@pytest.mark.parametrize(
    ("before", "effect", "error"),
    [
        pytest.param((), LAUNCH, StateError, id="create-without-record"),
        pytest.param((*data(A)[:2], CGROUP), LAUNCH, StateError, id="create-without-volume"),
        pytest.param(data(A), LAUNCH, StateError, id="create-without-cgroup"),
        pytest.param(created(A), OTHER_LAUNCH, BusyError, id="create-launched-otherwise"),
        pytest.param(running(A), LAUNCH, BusyError, id="create-while-running"),
        pytest.param((*data(A), CGROUP), replace(LAUNCH, hostname="x" * 65), KernelError, id="long-hostname"),
        pytest.param((*data(A), CGROUP), START, KernelError, id="start-while-stopped"),
        pytest.param(created(A), STOP, BusyError, id="stop-what-was-not-started"),
        pytest.param(running(A), DELETE, BusyError, id="delete-while-running"),
        pytest.param(running(A), FORGET, BusyError, id="forget-while-running"),
        pytest.param(created(A), FORGET, BusyError, id="forget-while-created"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    before: tuple[Effect, ...], effect: Effect, error: type[Exception]
) -> None:
    twin = twin_after(*before)
    seen = look(twin)
    with pytest.raises(error):
        perform(twin, effect)
    assert look(twin) == seen


def test_a_runtime_needs_its_templates_image() -> None:
    twin = twin_after(*data(A), CGROUP)
    del twin.machine.templates[TEMPLATE.key]
    with pytest.raises(TemplateError):
        perform(twin, LAUNCH)


def test_a_created_ve_waits_with_empty_namespaces() -> None:
    twin = twin_after(*created(A), LAUNCH)
    seen = see_power(twin, A)
    assert (seen.state, seen.launch, seen.started_at) == (PowerState.CREATED, LAUNCH.launch, None)
    assert see(twin, A).network == VeNetworkObservation(hostname="ve0", interfaces={})


def test_starting_twice_keeps_the_init() -> None:
    twin = twin_after(*created(A), START)
    first = see_power(twin, A)
    perform(twin, START)
    assert first.state is PowerState.RUNNING
    assert see_power(twin, A) == first


def test_a_stop_of_ours_is_remembered_as_such_until_the_next_create() -> None:
    twin = twin_after(*running(A), STOP, STOP)
    seen = see_power(twin, A)
    assert (seen.state, seen.stop_requested) == (PowerState.STOPPED, True)
    assert seen.last_end is not None
    assert seen.holdings
    perform(twin, DELETE, DELETE)
    assert see_power(twin, A) == replace(seen, holdings=())
    perform(twin, LAUNCH)
    assert not see_power(twin, A).holdings
    assert (see_power(twin, A).last_end, see_power(twin, A).stop_requested) == (None, False)


def test_an_end_from_inside_is_not_taken_for_ours() -> None:
    twin = twin_after(*running(A))
    World(twin).end_init(A, EndCause.REBOOT)
    perform(twin, STOP)
    seen = see_power(twin, A)
    assert (seen.last_end, seen.stop_requested) == (End(cause=EndCause.REBOOT, value=1), False)


def test_a_forgotten_end_leaves_a_ve_merely_stopped() -> None:
    twin = twin_after(*running(A), STOP, DELETE, FORGET, FORGET)
    assert see_power(twin, A).last_end is None
    assert not see_power(twin, A).stop_requested


def test_an_init_that_was_never_let_go_is_killed_by_us_and_leaves_nothing() -> None:
    twin = twin_after(*created(A), DELETE)
    expected = PowerObservation(
        state=PowerState.STOPPED, last_end=End(cause=EndCause.KILLED, value=9), stop_requested=True
    )
    assert see_power(twin, A) == expected


def test_a_new_runtime_is_made_over_what_the_last_one_left() -> None:
    twin = twin_after(*running(A), STOP, LAUNCH)
    assert see_power(twin, A).state is PowerState.CREATED
    perform(twin, DELETE)
    assert not see_power(twin, A).holdings


def test_nothing_of_the_network_outlives_the_init() -> None:
    twin = twin_after(*running(A), STOP)
    assert see(twin, A).network is None
    perform(twin, DELETE, LAUNCH)
    assert see(twin, A).network == VeNetworkObservation(hostname="ve0", interfaces={})


def test_no_two_inits_share_pid_and_start_time() -> None:
    twin = twin_after(*running(A))
    first = see_power(twin, A)
    perform(twin, STOP, DELETE, LAUNCH)
    second = see_power(twin, A)
    assert (first.pid, first.start_time) != (second.pid, second.start_time)


def test_stopping_and_deleting_what_never_was_is_success() -> None:
    perform(twin_after(), STOP, DELETE, FORGET, RemoveCgroup(uid=A))
