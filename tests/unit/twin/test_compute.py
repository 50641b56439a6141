"""The cgroups of the twin."""

from __future__ import annotations

import pytest

from reconciler.errors import BusyError, KernelError, StateError
from reconciler.model.compute import ComputeObservation, CreateCgroup, Limit, LimitValue, RemoveCgroup, SetLimit
from reconciler.model.observation import Capabilities
from reconciler.twin.host import TwinHost
from reconciler.twin.world import World
from tests.support.twins import INSTANCE, A, created, data, perform, see, twin_after

V1 = Capabilities(
    cgroup="v1",
    enforceable=frozenset(Limit) - {Limit.MEMORY_BARRIER, Limit.MEMORY_GUARANTEE},
    cpus=frozenset({0, 1}),
)
CGROUP = CreateCgroup(uid=A, limits={})


def legacy_twin() -> TwinHost:
    twin = TwinHost(INSTANCE, V1)
    perform(twin, *data(A))
    return twin


def limits(twin: TwinHost) -> dict[Limit, LimitValue]:
    compute = see(twin, A).compute
    assert isinstance(compute, ComputeObservation)
    return dict(compute.limits)


def test_a_cgroup_needs_a_record() -> None:
    with pytest.raises(StateError):
        perform(twin_after(), CGROUP)


def test_a_cgroup_can_be_removed_without_a_record() -> None:
    twin = twin_after(*data(A), CGROUP)
    World(twin).delete_record(A)
    perform(twin, RemoveCgroup(uid=A), RemoveCgroup(uid=A), *data(A))
    assert see(twin, A).compute is None


def test_a_cgroup_that_is_there_gets_the_limits_and_keeps_the_others() -> None:
    twin = twin_after(*data(A), CreateCgroup(uid=A, limits={Limit.PROCESSES: 10, Limit.CPU_LIMIT: 50_000}))
    perform(twin, CreateCgroup(uid=A, limits={Limit.PROCESSES: 20}))
    assert limits(twin)[Limit.PROCESSES] == 20
    assert limits(twin)[Limit.CPU_LIMIT] == 50_000


def test_limits_that_cannot_be_enforced_are_skipped_at_creation_and_refused_alone() -> None:
    twin = legacy_twin()
    perform(twin, CreateCgroup(uid=A, limits={Limit.MEMORY_BARRIER: 1 << 20, Limit.PROCESSES: 7}))
    assert Limit.MEMORY_BARRIER not in limits(twin)
    assert limits(twin)[Limit.PROCESSES] == 7
    with pytest.raises(KernelError):
        perform(twin, SetLimit(uid=A, limit=Limit.MEMORY_BARRIER, value=1 << 20))


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (Limit.CPUS, frozenset({99})),
        (Limit.CPUS, frozenset()),
        (Limit.NODES, frozenset({9})),
        (Limit.CPU_LIMIT, 999),
        (Limit.CPU_WEIGHT, 0),
        (Limit.CPU_WEIGHT, None),
        (Limit.PROCESSES, -1),
    ],
)
def test_a_value_that_the_kernel_refuses_is_an_error_and_changes_nothing(limit: Limit, value: LimitValue) -> None:
    twin = twin_after(*data(A), CGROUP)
    before = limits(twin)
    with pytest.raises(KernelError):
        perform(twin, SetLimit(uid=A, limit=limit, value=value))
    assert limits(twin) == before


def test_a_limit_without_a_cgroup_is_an_error() -> None:
    with pytest.raises(KernelError):
        perform(twin_after(*data(A)), SetLimit(uid=A, limit=Limit.PROCESSES, value=5))


def test_memory_is_limited_in_whole_pages() -> None:
    twin = twin_after(*data(A), CGROUP, SetLimit(uid=A, limit=Limit.MEMORY_LIMIT, value=10**9))
    assert limits(twin)[Limit.MEMORY_LIMIT] == 10**9 // 4096 * 4096


def test_a_cgroup_with_processes_is_not_removed() -> None:
    with pytest.raises(BusyError):
        perform(twin_after(*created(A)), RemoveCgroup(uid=A))


def test_on_v1_swap_means_nothing_while_memory_is_unlimited() -> None:
    twin = legacy_twin()
    perform(twin, CreateCgroup(uid=A, limits={Limit.SWAP: 0, Limit.MEMORY_LIMIT: 1 << 27}))
    assert limits(twin)[Limit.SWAP] == 0
    perform(twin, SetLimit(uid=A, limit=Limit.MEMORY_LIMIT, value=None))
    assert Limit.SWAP not in limits(twin)
    with pytest.raises(KernelError):
        perform(twin, SetLimit(uid=A, limit=Limit.SWAP, value=0))


def test_on_v1_all_cpus_are_no_limit() -> None:
    twin = legacy_twin()
    perform(twin, CGROUP, SetLimit(uid=A, limit=Limit.CPUS, value=frozenset({1})))
    assert limits(twin)[Limit.CPUS] == frozenset({1})
    perform(twin, SetLimit(uid=A, limit=Limit.CPUS, value=frozenset({0, 1})))
    assert limits(twin)[Limit.CPUS] is None
