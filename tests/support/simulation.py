"""An agent on a twin in virtual time, with manifests that a test edits and a world that it disturbs."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from reconciler.agent.desk import Desk
from reconciler.agent.loop import Agent, Timing
from reconciler.agent.operations import Operations
from reconciler.agent.reconciler import Reconciler
from reconciler.agent.session import NO_FLEET
from reconciler.agent.source import ManifestSource
from reconciler.model.condition import Condition, ConditionType, Status, broken_invariants
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet, HostObservation, Scope
from reconciler.model.power import ForgetEnd
from reconciler.model.seam import Effects, Host, Observer, Wake
from reconciler.model.volume import (
    BuildTemplate,
    CreateVolume,
    PurgeTrash,
    RestoreVe,
    SetVolumeSize,
    TrashVe,
    WriteRecord,
)
from reconciler.sources.snapshot import Snapshot, snapshot_of
from reconciler.state.conditions import SOURCE
from reconciler.twin.host import Crash
from tests.support import simloop
from tests.support.rig import Rig, scratch_state, text_of

HOUR = 3600.0
NEVER = 1e9
PATIENCE_S = 60.0
SETTLE_S, PRUNE_DELAY_S = 0.3, 30.0


class Manifests(ManifestSource):
    """A directory that a test edits. ``files`` None: it vanished."""

    def __init__(self, desk: Desk, files: dict[str, bytes] | None) -> None:
        super().__init__(desk, settle_s=SETTLE_S, prune_delay_s=PRUNE_DELAY_S)
        self.files = files

    def snapshot(self) -> Snapshot:
        """Give what a look at the directory gives."""
        if self.files is None:
            return Snapshot(reason="SourceVanished", problem="no such directory")
        if not self.files and self.had_files:
            return Snapshot(reason="SourceEmpty", problem="it held manifests and now holds none")
        self.had_files = self.had_files or bool(self.files)
        return snapshot_of("dir", self.files)


_UNHEARD = (BuildTemplate, WriteRecord, CreateVolume, SetVolumeSize, TrashVe, RestoreVe, PurgeTrash, ForgetEnd)
"""Effects on files, of which no kernel tells."""


class TwinEvents:
    """Tells what a test says that happened, and what our own effects did, as a kernel does."""

    def __init__(self) -> None:
        self._pending: set[Wake] = set()
        self._some = asyncio.Event()

    def tell(self, *wakes: Wake) -> None:
        """Wake whoever listens."""
        self._pending.update(wakes)
        self._some.set()

    def follow(self, observed: HostObservation) -> None:
        """Everything is followed always."""

    async def wakes(self) -> frozenset[Wake]:
        """Wait for something to happen."""
        await self._some.wait()
        self._some.clear()
        wakes, self._pending = frozenset(self._pending), set()
        return wakes


class Kernel:
    """The effects of a host: each is heard of, none is at work twice for one VE, and a test may interfere."""

    def __init__(self, inner: Effects, events: TwinEvents, clock: Callable[[], float]) -> None:
        self._inner, self._events, self._clock = inner, events, clock
        self._at_work: Counter[object] = Counter()
        self.log: list[tuple[float, Effect]] = []
        self.interfere: Callable[[Effect], Awaitable[None]] | None = None

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect."""
        key = _object_of(effect)
        self._at_work[key] += 1
        assert self._at_work[key] == 1, f"two effects at work at once for {key}: {effect}"
        self.log.append((self._clock(), effect))
        try:
            await self._inner.perform(effect)
            if self.interfere is not None:
                await self.interfere(effect)
        finally:
            self._at_work[key] -= 1
            if not isinstance(effect, _UNHEARD):
                self._events.tell(Wake(uid=getattr(effect, "uid", None)))

    @property
    def at_work(self) -> bool:
        """Whether any effect is under way."""
        return self._at_work.total() > 0

    def times_of(self, kind: type, uid: Uid | None = None) -> list[float]:
        """Give when effects of a kind began."""
        return [at for at, effect in self.log if isinstance(effect, kind) and uid in (None, getattr(effect, "uid", 0))]


def _object_of(effect: Effect) -> object:
    """Give what only one effect at a time may change; images are built by whoever comes first."""
    match effect:
        case WriteRecord():
            return effect.record.uid
        case BuildTemplate():
            return object()
    return getattr(effect, "uid", None) or "host"


class Judge:
    """Takes the place of the agent's log: it keeps quiet, and remembers the errors that are the agent's own."""

    def __init__(self) -> None:
        self.crashes: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        """Say nothing."""

    warning = info

    def exception(self, event: str, **fields: object) -> None:
        """Remember what went wrong."""
        self.crashes.append(f"{event} {fields}: {traceback.format_exc()}")


class CountingObserver:
    """Counts looks."""

    def __init__(self, inner: Observer) -> None:
        self._inner = inner
        self.looks = 0

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Look, and count it."""
        self.looks += 1
        return await self._inner.observe(scope, facets)


@dataclass(slots=True, kw_only=True)
class Simulation:
    """What a test has in hand while the agent runs."""

    rig: Rig
    manifests: Manifests
    events: TwinEvents
    kernel: Kernel
    observer: CountingObserver
    agent: Agent
    operations: Operations
    judge: Judge
    working: asyncio.Task[None] | None = None
    broken: list[str] = field(default_factory=list)

    @property
    def died(self) -> bool:
        """Whether the process that this stands for was killed."""
        return self.working is not None and self.working.done()

    @property
    def reconciler(self) -> Reconciler:
        """The reconciler of the agent."""
        return self.agent.reconciler

    def write(self, *documents: str) -> None:
        """Replace the manifests."""
        self.manifests.files = {"fleet.yaml": text_of(*documents)}
        self.manifests.hint()

    def happened(self, name: str | None = None) -> None:
        """Let the events tell that something happened to a VE, or to the host's own objects."""
        self.events.tell(Wake(uid=None if name is None else self.rig.uid(name)))

    async def until(self, condition: Callable[[], bool], what: str, *, within_s: float = PATIENCE_S) -> None:
        """Wait until something is so."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while not self._holds(condition):
            assert loop.time() < deadline, f"waited {within_s} s for {what}; {self.told()}"
            await asyncio.sleep(0.05)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        with suppress(KeyError):
            return condition()
        return False

    async def ready(self, *names: str, within_s: float = PATIENCE_S) -> None:
        """Wait until the agent says that VEs are as the manifests say now."""
        for name in names:
            await self.until(lambda name=name: self.is_ready(name), f"{name} to be ready", within_s=within_s)  # type: ignore[misc]  # bound now

    def is_ready(self, name: str) -> bool:
        """Say whether the agent holds a VE to be as the manifests in force say."""
        ready = self.condition(name)
        files = self.manifests.files or {}
        return (ready.status, ready.revision) == (Status.TRUE, snapshot_of("dir", files).revision)

    def condition(self, name: str, kind: ConditionType = ConditionType.READY) -> Condition:
        """Give a condition of a VE."""
        found = self.reconciler.desk.conditions.read(name)
        return next((c for c in found if c.type is kind), Condition(type=kind, status=Status.UNKNOWN, reason="Absent"))

    def told(self) -> str:
        """Give all conditions, for a failure."""
        found = self.reconciler.desk.conditions.read_all()
        return "; ".join(
            f"{name} {c.type}={c.status} {c.reason}: {c.message}" for name, cs in found.items() for c in cs
        )

    def running(self) -> set[str]:
        """Name the VEs whose init was let go."""
        machine = self.rig.machine
        return {name for name in self.rig.names() if self._runs(machine.runtimes.get(self.rig.uid(name)))}

    def _runs(self, runtime: Any) -> bool:
        return runtime is not None and runtime.is_running


@contextmanager
def clocked_rig() -> Iterator[Rig]:
    """Give a rig whose clock is that of the loop that runs."""
    with scratch_state() as state:
        yield Rig(state=state, clock=simloop.SimulatedClock())


@asynccontextmanager
async def agent_on(
    rig: Rig,
    files: dict[str, bytes] | None,
    *,
    seed: int = 0,
    resync_s: float = NEVER,
    slow_s: float = 0.02,
    wrap: Callable[[Effects], Effects] = lambda effects: effects,
) -> AsyncIterator[Simulation]:
    """Run an agent, as a process that starts does, until the block ends. ``wrap``: puts something before the host."""
    random, twin = Random(seed), rig.world.restart_agent()
    rig.twin = twin
    slow: Host = simloop.SlowHost(twin, random, longest_s=slow_s)
    events, desk, observer = TwinEvents(), rig.desk(), CountingObserver(slow)
    desk.recover()
    kernel = Kernel(slow, events, rig.clock.monotonic)
    reconciler = Reconciler(desk=desk, observer=observer, effects=wrap(kernel), fleet=NO_FLEET)
    reconciler.settled = rig.settled
    manifests = Manifests(desk, files)
    timing = Timing(resync_s=resync_s, jitter=random.random)
    agent = Agent(reconciler, manifests, events, timing=timing, clock=rig.clock)
    agent.log = judge = Judge()
    simulation = Simulation(
        rig=rig,
        manifests=manifests,
        events=events,
        kernel=kernel,
        observer=observer,
        agent=agent,
        operations=Operations(reconciler=reconciler),
        judge=judge,
    )
    with _conditions_watched(simulation):
        working = simulation.working = asyncio.create_task(agent.run())
        try:
            yield simulation
            assert simulation.died or not working.done(), "the agent ended by itself"
        finally:
            working.cancel()
            try:
                await working
            except asyncio.CancelledError:
                pass
            except BaseException as err:
                if not is_crash(err):
                    raise
    assert judge.crashes == [], judge.crashes[0]


@contextmanager
def _conditions_watched(simulation: Simulation) -> Iterator[None]:
    """Check the invariants of conditions whenever one changes."""
    conditions = simulation.reconciler.desk.conditions

    def check(subject: str, _: Condition) -> None:
        if subject != SOURCE:
            simulation.broken.extend(f"{subject}: {what}" for what in broken_invariants(conditions.read(subject)))

    conditions.on_change = check
    yield
    assert simulation.broken == []


def is_crash(err: BaseException) -> bool:
    """Say whether an error is nothing but the death of the process that a simulation stands for."""
    if isinstance(err, BaseExceptionGroup):
        return all(is_crash(inner) for inner in err.exceptions)
    return isinstance(err, Crash)


def later(work: Callable[[Effect], Coroutine[Any, Any, None]]) -> Callable[[Effect], Awaitable[None]]:
    """Let something happen beside the effects, while they go on."""
    under_way: set[asyncio.Task[None]] = set()

    async def begin(effect: Effect) -> None:
        task = asyncio.create_task(work(effect))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    return begin
