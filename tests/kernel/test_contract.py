"""The two implementations of the seam do the same: random effects, failing alike, leave the same host.

The reference is a fresh twin. Held against it are this machine, another twin, and, so that agreement means something,
twins with one defect each, which must be caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from reconciler.errors import VectlError
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup, SetInstanceLimit, SetLimit
from reconciler.model.devices import AddDevice, AddNic, RemoveDevice
from reconciler.model.effects import Effect
from reconciler.model.identity import NetworkName, Uid, bridge_name
from reconciler.model.mounts import AddMount, RemoveMount
from reconciler.model.network import (
    AddHostRoute,
    AddRoute,
    AttachInterface,
    InterfaceObservation,
    LoadFilter,
    RemoveAddress,
    RemoveNetwork,
    SetHostname,
    SetInterfaceMtu,
    SetInterfaceRate,
)
from reconciler.model.power import DeleteRuntime, ForgetEnd, StopRuntime
from reconciler.model.reach import RestoreAddress, RestoreRoute
from reconciler.model.seam import Host
from reconciler.model.volume import CreateVolume, PurgeTrash, RestoreVe, TrashVe
from reconciler.model.vxlan import RemoveTunnel, SetTunnel
from reconciler.twin.host import TwinHost
from tests.support import contract, real_host, storage
from tests.support.contract import Disagreement
from tests.support.effect_choices import NIC, Setting
from tests.support.effect_sequences import new_twin, sequences
from tests.support.twins import SETTING

HostFactory = Callable[[], AbstractAsyncContextManager[tuple[Setting, Host]]]
Defect = Callable[[TwinHost, Effect], Effect | None]

TAKEN = replace(SETTING, taken=NetworkName("taken"))


@asynccontextmanager
async def twin() -> AsyncIterator[tuple[Setting, Host]]:
    """Give a second twin."""
    yield TAKEN, new_twin(TAKEN)


@asynccontextmanager
async def this_machine() -> AsyncIterator[tuple[Setting, Host]]:
    """Give a real host, on which somebody has taken the name of one of our bridges."""
    async with real_host.real_host() as host:
        instance = host.site.instance
        real_host.make_foreign_bridge(host, bridge_name(instance.name, NetworkName("taken")))
        real_host.make_nic(host, NIC)
        capabilities = (await host.observe()).capabilities
        yield replace(TAKEN, instance=instance, capabilities=capabilities), host


class DefectiveTwin:
    """A twin that performs what a defect makes of an effect, or nothing."""

    def __init__(self, defect: Defect) -> None:
        self._twin, self._defect = new_twin(TAKEN), defect
        self.observe = self._twin.observe

    async def perform(self, effect: Effect) -> None:
        done = self._defect(self._twin, effect)
        if done is not None:
            await self._twin.perform(done)


async def find_disagreement(make: HostFactory, *, seed: int, count: int) -> Disagreement | None:
    """Hold a host against fresh twins, sequence by sequence."""
    async with make() as (setting, host):
        for effects in sequences(setting, seed=seed, count=count, length=60):
            disagreement = await contract.first_disagreement(new_twin(setting), host, effects)
            disagreement = disagreement or await contract.left_by_clearing(host, new_twin(setting))
            if disagreement is not None:
                return disagreement
    return None


def test_a_twin_does_what_a_twin_does() -> None:
    found = asyncio.run(find_disagreement(twin, seed=1, count=60))
    assert found is None, found.what


@pytest.mark.kernel
@pytest.mark.timeout(600)
def test_this_machine_does_what_the_twin_does() -> None:
    found = on_this_machine(seed=1, count=12)
    assert found is None, found.what


@pytest.mark.kernel
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 105))
def test_this_machine_does_what_the_twin_does_for_long(seed: int) -> None:
    found = on_this_machine(seed=seed, count=100)
    assert found is None, found.what


def on_this_machine(*, seed: int, count: int) -> Disagreement | None:
    """Hold this machine against twins, in a process that has namespaces of its own."""

    def work() -> Disagreement | None:
        real_host.enter_private_namespaces()
        return asyncio.run(find_disagreement(this_machine, seed=seed, count=count))

    return storage.in_child(work)


def forgets(kind: type) -> Defect:
    """Make a defect that says it did an effect of one type, and did not."""
    return lambda _, effect: None if isinstance(effect, kind) else effect


def ignores_swap(_: TwinHost, effect: Effect) -> Effect | None:
    return None if isinstance(effect, SetLimit) and effect.limit is Limit.SWAP else effect


def creates_without_processes(_: TwinHost, effect: Effect) -> Effect | None:
    if isinstance(effect, CreateCgroup):
        return replace(effect, limits={k: v for k, v in effect.limits.items() if k is not Limit.PROCESSES})
    return effect


def never_isolates(_: TwinHost, effect: Effect) -> Effect | None:
    return replace(effect, isolated=False) if isinstance(effect, AttachInterface) else effect


def drops_forwards(_: TwinHost, effect: Effect) -> Effect | None:
    if isinstance(effect, LoadFilter):
        return replace(effect, rules=replace(effect.rules, forwards=frozenset()))
    return effect


def fails_twice(host: TwinHost, effect: Effect) -> Effect | None:
    """Make a removal of what is absent an error."""
    if isinstance(effect, RemoveNetwork) and effect.network not in host.machine.networks:
        raise VectlError("no such network")
    return effect


def trashes_live(host: TwinHost, effect: Effect) -> Effect | None:
    """Throw away what still has a cgroup."""
    if isinstance(effect, TrashVe) and effect.uid not in host.machine.runtimes:
        host.machine.cgroups.pop(effect.uid, None)
    return effect


def forgets_whose_stop(host: TwinHost, effect: Effect) -> Effect | None:
    if isinstance(effect, StopRuntime) and effect.uid in host.machine.runtimes:
        runtime = host.machine.runtimes[effect.uid]
        if runtime.is_running:
            del host.machine.runtimes[effect.uid]
            host.machine.holdings[effect.uid] = "runtime"
            return None
    return effect


def _link(host: TwinHost, uid: Uid, interface: str) -> InterfaceObservation | None:
    runtime = host.machine.runtimes.get(uid)
    return None if runtime is None else runtime.network.interfaces.get(interface)


def routes_over_dead_links(host: TwinHost, effect: Effect) -> Effect | None:
    """Say that a route was added where the kernel refuses."""
    link = _link(host, effect.uid, effect.interface) if isinstance(effect, AddRoute) else None
    return None if link is not None and not link.up else effect


def routes_to_nowhere(host: TwinHost, effect: Effect) -> Effect | None:
    """Take gateways for reachable that are not."""
    link = _link(host, effect.uid, effect.interface) if isinstance(effect, AddRoute) else None
    return None if link is not None and link.up and not link.addresses else effect


def leads_over_dead_links(host: TwinHost, effect: Effect) -> Effect | None:
    """Say that a host route was added where the kernel refuses."""
    link = _link(host, effect.uid, effect.interface) if isinstance(effect, AddHostRoute) else None
    return None if link is not None and not link.host_up else effect


DEFECTS: dict[str, Defect] = {
    "remove-address-forgets": forgets(RemoveAddress),
    "set-instance-limit-forgets": forgets(SetInstanceLimit),
    "set-limit-ignores-swap": ignores_swap,
    "create-cgroup-without-processes": creates_without_processes,
    "attach-never-isolates": never_isolates,
    "load-filter-drops-forwards": drops_forwards,
    "remove-network-fails-twice": fails_twice,
    "restore-address-forgets": forgets(RestoreAddress),
    "restore-route-forgets": forgets(RestoreRoute),
    "trash-takes-the-cgroup": trashes_live,
    "stop-forgets-that-it-was-ours": forgets_whose_stop,
    "route-over-a-dead-link": routes_over_dead_links,
    "route-to-nowhere": routes_to_nowhere,
    "host-route-over-a-dead-link": leads_over_dead_links,
    "remove-cgroup-forgets": forgets(RemoveCgroup),
    "tunnel-forgets": forgets(SetTunnel),
    "tunnel-stays": forgets(RemoveTunnel),
    "device-forgets": forgets(AddDevice),
    "device-stays": forgets(RemoveDevice),
    "nic-forgets": forgets(AddNic),
    "mount-forgets": forgets(AddMount),
    "unmount-forgets": forgets(RemoveMount),
    "hostname-forgets": forgets(SetHostname),
    "mtu-forgets": forgets(SetInterfaceMtu),
    "rate-forgets": forgets(SetInterfaceRate),
    "volume-forgets": forgets(CreateVolume),
    "restore-forgets": forgets(RestoreVe),
    "purge-forgets": forgets(PurgeTrash),
    "delete-runtime-forgets": forgets(DeleteRuntime),
    "forget-end-forgets-to": forgets(ForgetEnd),
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS.keys())
def test_a_host_with_one_defect_is_caught(defect: Defect) -> None:
    @asynccontextmanager
    async def defective_twin() -> AsyncIterator[tuple[Setting, Host]]:
        yield TAKEN, DefectiveTwin(defect)

    assert asyncio.run(find_disagreement(defective_twin, seed=1, count=100)) is not None
