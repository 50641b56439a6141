"""Hosts in memory that move VEs to each other: what they say is lost, their agents die, and every event is judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from reconciler.agent.moving.means import Means
from reconciler.agent.moving.mover import Mover
from reconciler.agent.moving.service import MovingService
from reconciler.agent.moving.source import Source
from reconciler.agent.moving.target import Target
from reconciler.errors import PeerError, StateError, VectlError
from reconciler.fleet.keys import Keys
from reconciler.fleet.ledger import Ledger
from reconciler.fleet.owners import EtcdOwners
from reconciler.fleet.witness import Witness
from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.identity import Allocation, HostName, Uid
from reconciler.model.moving import Passage, is_between
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet, HostObservation, Scope
from reconciler.model.ownership import Strategy
from reconciler.model.power import PowerObservation, PowerState
from reconciler.model.volume import Record
from reconciler.plan import boot, power
from reconciler.plan.actions import Context
from reconciler.plan.arriving import Stages, stages
from reconciler.state.moves import Moves
from reconciler.twin.carrier import TwinCarrier
from reconciler.twin.etcd import TwinEtcd
from reconciler.twin.host import Crash, TwinHost, perform
from reconciler.twin.machine import Machine
from reconciler.twin.peers import TwinPeers, TwinWires
from reconciler.twin.store import NoFaults, SeededFaults, TwinStore
from tests.support.owning import A, B, C, HeldMemory, Ids, owners_of, seal_of
from tests.support.rig import LAN, SOURCE, Rig, fleet_of, on_lan, scratch_state, ve
from tests.support.simloop import SimulatedClock

NAME = "web1"
FLEET = fleet_of(LAN, ve(NAME, on_lan(10)))
GROUND = fleet_of(LAN, ve("other", on_lan(11)))

_T = TypeVar("_T")
_PATIENCE_S = 1200.0


@dataclass(slots=True)
class Judge:
    """Looks at all hosts after each event. ``boots``: at which host a VE began anew instead of going on. ``broken``:
    what no agent may ever do."""

    machines: Mapping[HostName, Machine]
    uid: Uid
    boots: list[HostName] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def look(self, event: str) -> None:
        """Check what holds at every instant: one copy runs at most, and the data are somewhere as a whole."""
        self.events.append(event)
        running = [host for host, machine in self.machines.items() if self._runs(machine)]
        if len(running) > 1:
            self.broken.append(f"runs on {running}: {self.events[-40:]}")
        if not any(self.uid in m.records and self.uid in m.volumes for m in self.machines.values()):
            self.broken.append(f"no host has all of its data: {self.events[-40:]}")

    def _runs(self, machine: Machine) -> bool:
        runtime = machine.runtimes.get(self.uid)
        return runtime is not None and runtime.is_running and runtime.leaving is None

    def where(self) -> list[HostName]:
        """Name the hosts on which it runs."""
        return [host for host, machine in self.machines.items() if self._runs(machine)]


class Fate:
    """Decides when an agent dies. ``at``: at which of the points where it could; else by ``chance`` at each.

    ``deed``: what happens instead at that point.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.chance = 0.0
        self.at: int | None = None
        self.deed: Callable[[], None] | None = None
        self.passed = 0

    @property
    def has_struck(self) -> bool:
        """Say whether the point was reached."""
        return self.at is not None and self.passed > self.at

    def strikes(self) -> bool:
        """Say whether the agent dies here."""
        self.passed += 1
        if self.passed - 1 != self.at:
            return self.chance > 0 and self._random.random() < self.chance
        if self.deed is None:
            return True
        self.deed()
        return False


class Host:
    """Implements the seam of a host: each effect takes a while, is judged, and may be the last."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect."""
        node = self._node
        await node.wait()
        node.may_die(f"before {type(effect).__name__}")
        if (problem := node.refuses(effect)) is not None:
            raise problem
        node.perform(effect)
        node.may_die(f"after {type(effect).__name__}")
        await node.wait()

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Look."""
        await self._node.wait()
        return await self._node.twin.observe(scope, facets)


class Journal(Moves):
    """The real journal; the agent may die before or after it is written."""

    def __init__(self, node: Node) -> None:
        super().__init__(str(node.rig.state))
        self._node = node

    def write(self, passage: Passage) -> None:
        """Remember how far a move is."""
        self._node.may_die(f"before writing {passage.phase}")
        super().write(passage)
        self._node.judge.look(f"{self._node.host} is {passage.phase} {passage.why}")
        self._node.may_die(f"after writing {passage.phase}")


class Heard:
    """Hears the other hosts, while the agent lives: what they asked for dies with it."""

    def __init__(self, node: Node, inner: MovingService) -> None:
        self._node, self._inner = node, inner

    async def answer(self, source: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        """Answer."""
        return await self._node.heard(self._inner.answer(source, question))

    async def take(
        self, source: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        """Take in a parcel."""
        return await self._node.heard(self._inner.take(source, header, chunks))


@dataclass(slots=True, kw_only=True)
class Node:
    """One host, with its agent: the mover, and a planner that starts what is to run here."""

    host: HostName
    rig: Rig
    wires: TwinWires
    store: TwinStore
    judge: Judge
    random: Random
    fate: Fate
    new_id: Ids
    seen: HeldMemory = field(default_factory=HeldMemory)
    unwanted: str = ""
    refuses: Callable[[Effect], VectlError | None] = lambda effect: None
    mover: Mover = field(init=False)
    owners: EtcdOwners = field(init=False)
    journal: Journal = field(init=False)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    alive: bool = False
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def twin(self) -> TwinHost:
        """The host of this agent."""
        return self.rig.twin

    async def wait(self) -> None:
        """Take a little while."""
        await asyncio.sleep(self.random.uniform(0.0, 0.02))

    def perform(self, effect: Effect) -> None:
        """Carry out an effect at once, and judge what it did."""
        try:
            perform(self.twin.machine, effect)
        finally:
            self.judge.look(f"{self.host} {effect}")

    def may_die(self, where: str) -> None:
        """Die here, if it is to be."""
        if self.alive and self.fate.strikes():
            self.judge.events.append(f"{self.host} dies {where}")
            self.alive = False
            self.died.set()
        if not self.alive:
            raise Crash

    def start(self) -> None:
        """Start the agent anew, with nothing in memory."""
        self.alive = True
        self.died = asyncio.Event()
        self.rig.twin = self.rig.world.restart_agent()
        ledger = Ledger(self.store, Keys(), seal_of(self.host), Witness(self.seen))
        self.owners = EtcdOwners(ledger, clock=SimulatedClock(), new_id=self.new_id)
        self.journal = Journal(self)
        means = Means(
            host=self.host,
            effects=Host(self),
            observer=Host(self),
            carrier=TwinCarrier(self.twin.machine),
            owners=self.owners,
            peers=TwinPeers(self.host, self.wires),
            journal=self.journal,
            clock=SimulatedClock(),
            released=lambda uid: None,
        )
        target = Target(means, self.bring_up, woken=lambda uid: self.mover.wake(uid))
        self.mover = Mover(self.journal, Source(means, unwanted=lambda passage: self.unwanted), target)
        self.wires.services[self.host] = Heard(self, MovingService(target))
        self._spawn(self.mover.run())
        self._spawn(self._plan())

    def stop(self) -> None:
        """End the agent as a kill does."""
        self.alive = False
        self.wires.services.pop(self.host, None)
        for task in list(self._tasks):
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, VectlError) and not _is_crash(error):
            self.judge.broken.append(f"{self.host}: {error!r}")

    async def heard(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do what another host asks for, as long as this agent lives."""
        task = self._spawn(work)
        await asyncio.wait({task})
        if task.cancelled() or _is_crash(task.exception()):
            raise PeerError(f"ask {self.host}: the connection ended")
        return task.result()

    async def bring_up(self, uid: Uid) -> Stages:
        """Plan how a VE goes on that arrived."""
        seen = (await self.twin.observe()).ves[uid]
        assert isinstance(seen.power, PowerObservation)
        assert isinstance(seen.record, Record)
        if seen.power.memory is None or seen.power.launch is None:
            raise StateError(f"bring up VE {uid}: it has no memory")
        spec, context = FLEET.ves[seen.record.name], self._context()
        return stages(boot.resume_effects(spec, seen.record, seen.power.launch, seen.power.memory, context))

    def _context(self) -> Context:
        capabilities, templates = self.twin.machine.capabilities, FLEET.templates
        return Context(
            instance=self.rig.instance.name, source=SOURCE, now=0.0, capabilities=capabilities, templates=templates
        )

    async def _plan(self) -> None:
        """Start, now and then, what is this host's, does not run, and is on no move."""
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 3.0))
            with suppress(VectlError):
                await self._start_ours(self.judge.uid)

    async def _start_ours(self, uid: Uid) -> None:
        owned = await self.owners.owner(uid)
        passage = self.journal.read(uid)
        if owned is None or owned.host != self.host or (passage is not None and is_between(passage.phase)):
            return
        if uid not in self.twin.machine.records:
            self.judge.broken.append(f"{self.host} owns what it has not: {self.judge.events[-40:]}")
        seen = await self.twin.observe()  # at once: nothing comes between this look and what follows
        if uid in seen.ves:
            self._bring(uid, seen)

    def _bring(self, uid: Uid, observed: HostObservation) -> None:
        seen = observed.ves[uid]
        assert isinstance(seen.power, PowerObservation)
        assert isinstance(seen.record, Record)
        if seen.power.state is PowerState.RUNNING:
            return
        spec, context = FLEET.ves[seen.record.name], self._context()
        if seen.power.memory is not None and seen.power.launch is not None:
            up = boot.resume_effects(spec, seen.record, seen.power.launch, seen.power.memory, context)
        else:
            self.judge.boots.append(self.host)
            up = boot.boot_effects(spec, seen.record, context)
        for effect in (*power.clear_effects(uid, seen.power), *up):
            perform(self.twin.machine, effect)
        self.judge.look(f"{self.host} starts it")


def _is_crash(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(inner) for inner in error.exceptions)
    return isinstance(error, Crash | asyncio.CancelledError)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Two or three hosts, the first of which has a VE."""

    nodes: Mapping[HostName, Node]
    etcd: TwinEtcd
    wires: TwinWires
    judge: Judge
    random: Random
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def uid(self) -> Uid:
        """The VE's identity."""
        return self.judge.uid

    async def begin(self, strategy: Strategy, *, source: HostName = A, target: HostName = B) -> None:
        """Start all agents, let the first host own the VE, and begin its move."""
        for node in self.nodes.values():
            node.start()
            self._keepers.append(asyncio.create_task(self._keep(node)))
        at_source = self.nodes[source]
        record = at_source.rig.record(NAME)
        store, faults = at_source.store, at_source.store.faults
        store.faults = NoFaults()
        await at_source.owners.claim(Allocation(uid=record.uid, id_base=record.id_base), record.name)
        store.faults = faults
        await self.ask(strategy, source=source, target=target)

    async def ask(self, strategy: Strategy, *, source: HostName = A, target: HostName = B) -> None:
        """Ask a host for a move, which it may not be able to begin."""
        with suppress(VectlError, Crash):
            await self.nodes[source].mover.begin(self.uid, target=target, strategy=strategy)

    async def _keep(self, node: Node) -> None:
        """Start an agent again some time after it died."""
        while True:
            await node.died.wait()
            node.stop()
            await asyncio.sleep(self.random.uniform(0.1, 5.0))
            node.start()

    def heal(self) -> None:
        """Let nothing go wrong from now on."""
        self.wires.chance = 0.0
        self.wires.cut.clear()
        for node in self.nodes.values():
            node.fate.chance, node.refuses = 0.0, lambda effect: None
            node.store.faults = NoFaults()
            node.store.mend()

    async def settle(self) -> HostName:
        """Wait until no move is under way anywhere and the VE runs; give where.

        Raises: AssertionError, if it does not come to that.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while not self._is_settled():
            assert loop.time() < deadline, self._told()
            await asyncio.sleep(0.5)
        host = self.judge.where()[0]
        owned = await owners_of(A, TwinStore(self.etcd)).owner(self.uid)
        assert owned is not None
        assert owned.host == host, self._told()
        assert [h for h, machine in self.judge.machines.items() if self.uid in machine.records] == [host], self._told()
        return host

    def _is_settled(self) -> bool:
        moves = self.etcd.list(Keys().moves).pairs
        idle = all(not node.journal.uids() and node.alive for node in self.nodes.values())
        return not moves and idle and len(self.judge.where()) == 1

    def _told(self) -> str:
        troubles = {host: node.mover.troubles for host, node in self.nodes.items()}
        return f"{troubles}; {self.judge.events[-60:]}"

    async def end(self) -> None:
        """End all agents."""
        for task in self._keepers:
            task.cancel()
        for node in self.nodes.values():
            node.stop()
        await asyncio.sleep(0)
        assert self.judge.broken == []


class Grounds:
    """The hosts as they are before anything moves; each run goes on from a copy."""

    def __init__(self, state: Path) -> None:
        self._state, self._count = state, 0
        self._full, self._bare = Rig(state=_made(state / "full")), Rig(state=_made(state / "bare"))
        self._bare._chance = Random(1)  # another VE than the first one's
        self._full.converge(FLEET)
        self._bare.converge(GROUND)

    def fleet(self, seed: int, *, hosts: tuple[HostName, ...] = (A, B)) -> Fleet:
        """Give hosts on which a seed decides."""
        self._count += 1
        rigs = {host: self._copy(self._full if host == hosts[0] else self._bare, host) for host in hosts}
        random, etcd = Random(seed), TwinEtcd()
        wires = TwinWires(random)
        machines = {host: rig.machine for host, rig in rigs.items()}
        judge = Judge(machines=machines, uid=rigs[hosts[0]].uid(NAME))
        nodes = {
            host: Node(
                host=host,
                rig=rig,
                wires=wires,
                store=TwinStore(etcd),
                judge=judge,
                random=random,
                fate=Fate(random),
                new_id=Ids(f"m-{host}-"),
            )
            for host, rig in rigs.items()
        }
        return Fleet(nodes=nodes, etcd=etcd, wires=wires, judge=judge, random=random)

    def _copy(self, rig: Rig, host: HostName) -> Rig:
        copied = rig.copy(self._state / f"{self._count}-{host}")
        copied.machine.clock = SimulatedClock()
        return copied


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@contextmanager
def grounds() -> Iterator[Grounds]:
    """Give the ground for many runs."""
    with scratch_state() as state:
        yield Grounds(state)


def disturb(fleet: Fleet, *, chance: float) -> None:
    """Let everything go wrong with a chance."""
    fleet.wires.chance = chance
    for node in fleet.nodes.values():
        node.fate.chance = chance / 2
        node.store.faults = SeededFaults(fleet.random, chance=chance, longest_s=0.05)


__all__ = ["A", "B", "C", "Fate", "Fleet", "Grounds", "Node", "disturb", "grounds"]
