"""Whatever is changed by hand on a host is put right, woken by its event alone; unless somebody fights for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface
from itertools import pairwise

import pytest

from reconciler.model.compute import Limit, SetLimit
from reconciler.model.condition import ConditionType
from reconciler.model.effects import Effect
from reconciler.model.identity import NetworkName
from reconciler.model.network import LoadFilter
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet
from reconciler.model.power import EndCause, StartRuntime
from reconciler.model.seam import Wake
from reconciler.twin import host
from tests.support import simloop
from tests.support.rig import LAN, Rig, on_lan, text_of, ve
from tests.support.simulation import HOUR, Simulation, agent_on, clocked_rig, later

LAN_NAME = NetworkName("lan")
FILES = {"fleet.yaml": text_of(LAN, ve("web1", on_lan(11)), ve("web2", on_lan(12)))}
DRIFTS: dict[str, tuple[str | None, Callable[[Rig], None]]] = {
    "limit": ("web1", lambda rig: rig.world.set_limit(rig.uid("web1"), Limit.MEMORY_LIMIT, 1 << 20)),
    "size": ("web1", lambda rig: rig.world.set_volume_size(rig.uid("web1"), 1 << 20)),
    "hostname": ("web1", lambda rig: rig.world.set_hostname(rig.uid("web1"), "strange")),
    "loopback": ("web1", lambda rig: rig.world.set_loopback_down(rig.uid("web1"))),
    "address-added": (
        "web1",
        lambda rig: rig.world.add_address(rig.uid("web1"), "eth0", ip_interface("192.0.2.1/24")),
    ),
    "address-removed": (
        "web1",
        lambda rig: rig.world.remove_address(rig.uid("web1"), "eth0", ip_interface("10.20.0.11/24")),
    ),
    "link-down": ("web1", lambda rig: rig.world.set_link_down(rig.uid("web1"), "eth0")),
    "host-end-down": ("web1", lambda rig: rig.world.set_host_end_down(rig.uid("web1"), "eth0")),
    "link-deleted": ("web1", lambda rig: rig.world.delete_link(rig.uid("web1"), "eth0")),
    "mac": (
        "web1",
        lambda rig: rig.world.change_link(rig.uid("web1"), "eth0", lambda seen: replace(seen, mac="02:00:00:00:00:99")),
    ),
    "init-killed": ("web1", lambda rig: rig.world.end_init(rig.uid("web1"), EndCause.KILLED)),
    "init-rebooted": ("web1", lambda rig: rig.world.end_init(rig.uid("web1"), EndCause.REBOOT)),
    "cgroup-removed": ("web1", lambda rig: rig.world.remove_cgroup(rig.uid("web1"))),
    "filter-flushed": (None, lambda rig: rig.world.flush_filter()),
    "filter-edited": (None, lambda rig: rig.world.edit_filter()),
    "network-down": (None, lambda rig: rig.world.set_network_down(LAN_NAME)),
    "network-deleted": (None, lambda rig: rig.world.delete_network(LAN_NAME)),
    "host-rebooted": (None, lambda rig: rig.world.reboot_host()),
}


def state_of(rig: Rig) -> object:
    seen = host.observe(rig.machine, EVERYTHING, ALL_FACETS)
    running = {uid for uid, runtime in rig.machine.runtimes.items() if runtime.is_running}
    ves = {uid: (ve.record, ve.compute, ve.volume, ve.network) for uid, ve in seen.ves.items()}
    return running, ves, seen.networks, seen.filter


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", DRIFTS)
def test_drift_is_put_right_by_its_event_alone(kind: str, seed: int) -> None:
    name, change = DRIFTS[kind]

    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES, seed=seed) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                before = state_of(rig)
                change(rig)
                assert state_of(rig) != before
                agent.happened(name)
                await agent.until(lambda: state_of(rig) == before and agent.is_ready("web1"), kind, within_s=10)
                assert agent.running() == {"web1", "web2"}

    simloop.run(seed, main())


def test_a_change_of_one_ve_costs_the_others_nothing() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                agent.kernel.log.clear()
                DRIFTS["limit"][1](rig)
                agent.happened("web1")
                await asyncio.sleep(5)
                assert [type(effect) for _, effect in agent.kernel.log] == [SetLimit]

    simloop.run(0, main())


def test_a_halt_from_inside_stays_down_until_somebody_starts_it() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1")
                rig.world.end_init(rig.uid("web1"), EndCause.HALT)
                agent.happened("web1")
                await agent.until(lambda: agent.condition("web1").reason == "HaltedInside", "the halt to be told")
                await asyncio.sleep(HOUR)
                assert agent.running() == {"web2"}
                assert agent.condition("web1", ConditionType.STALLED).reason == "HaltedInside"
                await agent.operations.start(rig.record("web1").name, by="me")
                await agent.ready("web1")

    simloop.run(0, main())


@pytest.mark.parametrize("facet", [Facet.POWER, Facet.COMPUTE, Facet.VOLUME])
def test_what_cannot_be_read_is_told_left_alone_and_looked_at_again(facet: Facet) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                agent.kernel.log.clear()
                DRIFTS["limit"][1](rig)
                rig.world.hide(facet, rig.uid("web1"))
                agent.happened("web1")
                await agent.until(lambda: agent.condition("web1").reason == "ObservationUnknown", "it to be told")
                await asyncio.sleep(60)
                assert agent.kernel.log == []
                assert agent.is_ready("web2")
                rig.world.reveal()
                await agent.ready("web1", within_s=150)
                assert rig.machine.cgroups[rig.uid("web1")].limits[Limit.MEMORY_LIMIT] == 512 << 20

    simloop.run(0, main())


def test_a_ve_whose_network_cannot_be_read_is_held_to_its_limits() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                limits = rig.machine.cgroups[rig.uid("web1")].limits
                rig.world.hide(Facet.NETWORK, rig.uid("web1"))
                DRIFTS["limit"][1](rig)
                agent.happened("web1")
                await agent.until(lambda: limits[Limit.MEMORY_LIMIT] == 512 << 20, "the limit to be put right")
                await agent.until(lambda: agent.condition("web1").reason == "ObservationUnknown", "it to be told")
                rig.world.reveal()
                await agent.ready("web1", within_s=150)

    simloop.run(0, main())


def test_lost_events_are_made_up_for_by_looking_at_everything() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                before = state_of(rig)
                for name in ("web1", "web2"):
                    rig.world.set_limit(rig.uid(name), Limit.PROCESSES, 7)
                agent.events.tell(Wake(lost=True))
                await agent.until(lambda: state_of(rig) == before, "both to be put right")

    simloop.run(0, main())


def test_without_an_event_the_resync_finds_it() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES, resync_s=300) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                before = state_of(rig)
                DRIFTS["limit"][1](rig)
                await asyncio.sleep(200)
                assert state_of(rig) != before
                await agent.until(lambda: state_of(rig) == before, "the resync", within_s=150)

    simloop.run(0, main())


def test_an_idle_agent_does_nothing_and_rarely_looks() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES, resync_s=300) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(60)
                agent.kernel.log.clear()
                agent.observer.looks = 0
                await asyncio.sleep(HOUR)
                assert agent.kernel.log == []
                assert agent.observer.looks <= 13

    simloop.run(0, main())


def test_a_field_that_somebody_fights_for_is_left_alone_and_told_with_both_values() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                agent.kernel.log.clear()
                uid, fought = rig.uid("web1"), 0
                while agent.condition("web1").reason != "DriftLoop":
                    rig.world.set_limit(uid, Limit.PROCESSES, 7)
                    agent.happened("web1")
                    await asyncio.sleep(2)
                    fought += 1
                    assert fought < 30
                stalled = agent.condition("web1", ConditionType.STALLED)
                assert stalled.reason == "DriftLoop"
                assert "7" in stalled.message
                assert "4096" in stalled.message
                assert len(agent.kernel.times_of(SetLimit)) == 10
                await asyncio.sleep(120)
                agent.happened("web1")
                await asyncio.sleep(120)
                assert len(agent.kernel.times_of(SetLimit)) == 10
                assert agent.is_ready("web2")
                await agent.ready("web1", within_s=400)
                assert rig.machine.cgroups[uid].limits[Limit.PROCESSES] == 4096

    simloop.run(0, main())


def test_a_rival_for_the_filter_cannot_keep_the_agent_busy() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                agent.kernel.log.clear()

                async def flush(effect: Effect) -> None:
                    if isinstance(effect, LoadFilter):
                        await asyncio.sleep(1)
                        rig.world.flush_filter()
                        agent.happened()

                agent.kernel.interfere = later(flush)
                rig.world.flush_filter()
                agent.happened()
                await asyncio.sleep(HOUR)
                assert 10 <= len(agent.kernel.times_of(LoadFilter)) <= 140
                agent.kernel.interfere = None
                await agent.until(lambda: rig.machine.filter_intact, "the filter", within_s=400)

    simloop.run(0, main())


def dying(agent: Simulation, rig: Rig, *, after_s: float) -> None:
    """Let every init of web1 end some time after it was let go."""
    uid = rig.uid("web1")

    async def die(effect: Effect) -> None:
        if isinstance(effect, StartRuntime) and effect.uid == uid:
            await asyncio.sleep(after_s)
            if uid in rig.machine.runtimes:
                rig.world.end_init(uid, EndCause.EXITED, 1)
                agent.happened("web1")

    agent.kernel.interfere = later(die) if after_s else die


@pytest.mark.parametrize("after_s", [0.0, 0.5, 3.0])
def test_an_init_that_dies_again_and_again_is_started_ever_more_rarely(after_s: float) -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1", "web2")
                await asyncio.sleep(5)
                agent.kernel.log.clear()
                dying(agent, rig, after_s=after_s)
                rig.world.end_init(rig.uid("web1"), EndCause.KILLED)
                agent.happened("web1")
                await asyncio.sleep(4 * HOUR)
                starts = agent.kernel.times_of(StartRuntime, rig.uid("web1"))
                gaps = [later - earlier for earlier, later in pairwise(starts)]
                assert len(starts) < 80
                assert 290 <= gaps[-1] <= 340
                assert all(later >= earlier * 0.8 for earlier, later in pairwise(gaps[6:]))
                assert agent.is_ready("web2")
                agent.kernel.interfere = None
                await agent.ready("web1", within_s=400)

    simloop.run(0, main())


def test_an_init_that_lived_long_enough_is_started_at_once_again() -> None:
    async def main() -> None:
        with clocked_rig() as rig:
            async with agent_on(rig, FILES) as agent:
                await agent.ready("web1")
                for _ in range(12):
                    await asyncio.sleep(120)
                    rig.world.end_init(rig.uid("web1"), EndCause.KILLED)
                    agent.happened("web1")
                    await agent.until(lambda: "web1" in agent.running(), "it to be back", within_s=1)

    simloop.run(0, main())
