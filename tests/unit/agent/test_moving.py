"""Moves between hosts in memory: whatever fails, at whatever point, a VE runs once, and ends up on one host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from reconciler.errors import CommandError, VectlError
from reconciler.model.effects import Effect
from reconciler.model.identity import HostName
from reconciler.model.ownership import Strategy
from reconciler.model.power import StartRuntime
from reconciler.twin.store import Fault, NoFaults
from tests.support import simloop
from tests.support.moving import A, B, C, Fleet, Grounds, disturb, grounds

LIMIT_S = 7200.0
POINTS = 120
"""More than there are at which an agent could die in one move."""

STRIDE = 20
"""Of how many points one is tried where the time is short."""

Mishap = Callable[[Fleet, HostName], None]


@pytest.fixture(scope="module")
def ground() -> Iterator[Grounds]:
    """Give the ground for all runs."""
    with grounds() as made:
        yield made


@pytest.mark.parametrize("strategy", Strategy)
def test_a_ve_gets_to_the_host_that_it_is_to_be_on(ground: Grounds, strategy: Strategy) -> None:
    async def work() -> None:
        fleet = ground.fleet(1)
        await fleet.begin(strategy)
        assert await fleet.settle() == B, fleet.judge.events
        assert fleet.judge.boots == ([] if strategy is Strategy.LIVE else [B])
        await fleet.end()

    simloop.run(1, work(), limit_s=LIMIT_S)


def _die(fleet: Fleet, host: HostName) -> None:
    node = fleet.nodes[host]
    node.alive = False
    node.died.set()


def _die_together(fleet: Fleet, host: HostName) -> None:
    _die(fleet, A)
    _die(fleet, B)


def _lose_power(fleet: Fleet, host: HostName) -> None:
    rig = fleet.nodes[host].rig
    networks = dict(rig.machine.networks)
    rig.world.reboot_host()
    rig.machine.networks.update(networks)  # its planner would make them anew, first of all
    _die(fleet, host)


def _part(fleet: Fleet, host: HostName) -> None:
    fleet.wires.cut.add(frozenset({A, B}))
    _heal_later(fleet)


def _lose_coordinator(fleet: Fleet, host: HostName) -> None:
    fleet.nodes[host].store.cut()
    _heal_later(fleet)


def _be_alone(fleet: Fleet, host: HostName) -> None:
    fleet.nodes[host].store.cut()
    _part(fleet, host)


def _change_manifest(fleet: Fleet, host: HostName) -> None:
    fleet.nodes[A].unwanted = "its manifest names another host"


def _ask_for_another(fleet: Fleet, host: HostName) -> None:
    asking = asyncio.get_running_loop().create_task(fleet.ask(Strategy.RESTART, source=host, target=C))
    asking.add_done_callback(lambda task: task.exception())


def _heal_later(fleet: Fleet) -> None:
    asyncio.get_running_loop().call_later(75.0, fleet.heal)


MISHAPS: tuple[Mishap, ...] = (
    _die,
    _die_together,
    _lose_power,
    _part,
    _lose_coordinator,
    _be_alone,
    _change_manifest,
    _ask_for_another,
)


CELLS = [(strategy, mishap, host) for strategy in Strategy for mishap in MISHAPS for host in (A, B)]


@pytest.mark.parametrize("number", range(len(CELLS)))
def test_a_mishap_at_some_points_leaves_one_ve_on_one_host(ground: Grounds, number: int) -> None:
    _try_points(ground, number, range(number % STRIDE, POINTS, STRIDE))


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(CELLS)))
def test_a_mishap_at_any_point_leaves_one_ve_on_one_host(ground: Grounds, number: int) -> None:
    _try_points(ground, number, range(POINTS))


def _try_points(ground: Grounds, number: int, points: range) -> None:
    """Let one mishap befall one host at one point after the other, until there are no more."""
    for point in points:
        if not simloop.run(point, _with_mishap(ground, *CELLS[number], point), limit_s=LIMIT_S):
            assert point > 8
            return
    raise AssertionError(f"a move has more than {POINTS} points")


async def _with_mishap(ground: Grounds, strategy: Strategy, mishap: Mishap, host: HostName, point: int) -> bool:
    """Let a mishap befall at a point of a move; give whether there is such a point."""
    hosts = (A, B, C) if mishap is _ask_for_another else (A, B)
    fleet = ground.fleet(point, hosts=hosts)
    fate = fleet.nodes[host].fate
    fate.at, fate.deed = point, lambda: mishap(fleet, host)
    await fleet.begin(strategy)
    await fleet.settle()
    if strategy is Strategy.LIVE and mishap is not _lose_power:
        assert fleet.judge.boots == [], fleet.judge.events
    await fleet.end()
    return fate.has_struck


@pytest.mark.parametrize("seed", range(10))
def test_whatever_goes_wrong_by_chance_leaves_one_ve_on_one_host(ground: Grounds, seed: int) -> None:
    simloop.run(seed, _by_chance(ground, seed), limit_s=LIMIT_S)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 400))
def test_more_of_what_goes_wrong_by_chance(ground: Grounds, seed: int) -> None:
    simloop.run(seed, _by_chance(ground, seed), limit_s=LIMIT_S)


async def _by_chance(ground: Grounds, seed: int) -> None:
    fleet = ground.fleet(seed, hosts=(A, B, C))
    disturb(fleet, chance=fleet.random.choice((0.02, 0.05, 0.1, 0.2)))
    await fleet.begin(fleet.random.choice(tuple(Strategy)))
    for _ in range(6):
        await asyncio.sleep(fleet.random.uniform(0.0, 40.0))
        source, target = fleet.random.choice(((A, B), (B, C), (C, A), (A, C), (B, A)))
        await fleet.ask(fleet.random.choice(tuple(Strategy)), source=source, target=target)
    fleet.heal()
    await fleet.settle()
    await fleet.end()


def test_processes_that_cannot_be_made_at_the_target_go_on_where_they_were(ground: Grounds) -> None:
    def refuse(effect: Effect) -> VectlError | None:
        is_made = isinstance(effect, StartRuntime)
        return CommandError("restore: no such CPU feature", status=1, output="") if is_made else None

    async def work() -> None:
        fleet = ground.fleet(3)
        fleet.nodes[B].refuses = refuse
        await fleet.begin(Strategy.LIVE)
        assert await fleet.settle() == A
        assert fleet.judge.boots == []
        assert any("no such CPU feature" in event for event in fleet.judge.events), fleet.judge.events
        await fleet.end()

    simloop.run(3, work(), limit_s=LIMIT_S)


class _AtHandOver(NoFaults):
    """Lets the hand-over go wrong, the second transaction of a move, and the coordinator be away from then on."""

    def __init__(self, fleet: Fleet, fault: Fault, *, dies: bool) -> None:
        self._fleet, self._fault, self._dies = fleet, fault, dies
        self._transactions = 0

    def fate(self, asked: str) -> Fault:
        """Choose what happens to a request."""
        if asked != "transact":
            return Fault.NONE
        self._transactions += 1
        if self._transactions != 2:
            return Fault.NONE
        loop = asyncio.get_running_loop()
        loop.call_soon(self._fleet.nodes[A].store.cut)
        loop.call_later(600.0, self._fleet.heal)
        if self._dies:
            loop.call_later(1.0, _die, self._fleet, A)
        return self._fault

    def late_s(self) -> float:
        """Let what is late be later than any patience."""
        return 300.0


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_whoever_does_not_know_what_became_of_the_hand_over_lets_nothing_go_on(
    ground: Grounds, fault: Fault, strategy: Strategy, dies: bool
) -> None:
    async def work() -> None:
        fleet = ground.fleet(5)
        fleet.nodes[A].store.faults = _AtHandOver(fleet, fault, dies=dies)
        await fleet.begin(strategy)
        went = await fleet.settle()
        assert went == B or fault in (Fault.AWAY, Fault.DROPPED), fleet.judge.events
        assert strategy is not Strategy.LIVE or fleet.judge.boots == []
        await fleet.end()

    simloop.run(5, work(), limit_s=LIMIT_S)
