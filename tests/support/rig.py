"""A rig for the deciding rooms: manifests as text, a twin for a host, real state on disk, and everything counted."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from reconciler.agent.desk import Desk, open_desk
from reconciler.agent.reconciler import Reconciler, Result
from reconciler.manifests.load import load_fleet
from reconciler.model.action import Plan
from reconciler.model.compute import Limit
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName, Uid, VeName
from reconciler.model.instance import Instance
from reconciler.model.observation import Capabilities, VeObservation
from reconciler.model.seam import Clock, Effects
from reconciler.model.volume import Record
from reconciler.state.coordinator import LocalCoordinator
from reconciler.state.inventory import Inventory
from reconciler.state.layout import inventory_dir
from reconciler.state.policy import PolicyFile
from reconciler.twin.clock import StoppedClock
from reconciler.twin.host import ALL_CAPABILITIES, TwinHost
from reconciler.twin.machine import Machine
from reconciler.twin.world import World
from tests.support import simloop
from tests.support.doubting import Doubting

SOURCE = "dir:/etc/fleet"
NODE = HostName("node-a")
V1 = replace(
    ALL_CAPABILITIES,
    cgroup="v1",
    enforceable=frozenset(Limit) - {Limit.MEMORY_BARRIER, Limit.MEMORY_GUARANTEE},
    why_not={
        Limit.MEMORY_BARRIER: "cgroup v1 has no such limit",
        Limit.MEMORY_GUARANTEE: "cgroup v1 has no such limit",
    },
)
LAN = """
kind: Network
metadata: {name: lan}
spec: {subnets: [10.20.0.0/24, "fd00:20::/64"], gateway: [10.20.0.1, "fd00:20::1"], nat: true}
"""

_Result = TypeVar("_Result")
_KIND = re.compile(r"^kind:", re.MULTILINE)
_SHARED_MEMORY = Path("/dev/shm")


def ve(name: str, spec: str = "", metadata: str = "") -> str:
    """Give the manifest of a VE, with parts of its spec and metadata in YAML's flow style."""
    return f"kind: VirtualEnvironment\nmetadata: {{name: {name}{metadata and ', '}{metadata}}}\nspec: {{{spec}}}\n"


def on_lan(number: int) -> str:
    """Give the part of a spec that puts a VE on the network `LAN`."""
    return f'interfaces: [{{name: eth0, network: lan, addresses: [10.20.0.{number}/24, "fd00:20::{number}/64"]}}]'


def text_of(*documents: str) -> bytes:
    """Give the text of a file of documents that lack the version."""
    return _KIND.sub("apiVersion: ve/v1\nkind:", "---\n".join(documents)).encode()


def fleet_of(*documents: str, revision: str = "r1") -> Fleet:
    """Load documents that lack the version; mistakes in them are the test's."""
    return _loaded(documents, revision)


@lru_cache(maxsize=64)
def _loaded(documents: tuple[str, ...], revision: str) -> Fleet:
    """Load documents once: a scenario that is cut short at each effect asks for the same ones a hundred times."""
    loaded = load_fleet({"fleet.yaml": text_of(*documents)}, revision=revision)
    assert loaded.fleet is not None, [f"{finding.path}: {finding.message}" for finding in loaded.findings]
    return loaded.fleet


def run(work: Coroutine[Any, Any, _Result], seed: int = 0) -> _Result:
    """Run a coroutine that waits for nothing but effects."""
    return simloop.run(seed, work)


@contextmanager
def scratch_state() -> Iterator[Path]:
    """Give a directory for state that is gone afterwards; in memory, as every write in it waits for its disk."""
    place = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vectl-rig-", dir=place) as path:
        yield Path(path)


class RecordingEffects:
    """Performs effects and keeps them, in their order."""

    def __init__(self, inner: Effects) -> None:
        self._inner = inner
        self.performed: list[Effect] = []

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect and keep it, whether it succeeds or not."""
        self.performed.append(effect)
        await self._inner.perform(effect)


@dataclass(slots=True, kw_only=True)
class Rig:
    """A host, its state on disk, and the reconciler that a process on it would have."""

    state: Path
    clock: Clock = field(default_factory=StoppedClock)
    capabilities: Capabilities = ALL_CAPABILITIES
    source: str = SOURCE
    twin: TwinHost = field(init=False)
    world: World = field(init=False)
    settled: Doubting = field(default_factory=Doubting, init=False)
    _chance: Random = field(default_factory=lambda: Random(0), init=False)

    def __post_init__(self) -> None:
        self.twin = TwinHost(self.instance, self.capabilities, self.clock)
        self.world = World(self.twin)

    @property
    def instance(self) -> Instance:
        """The instance, whose state lies on the machine that runs the test."""
        state = str(self.state)
        return Instance(name="tw", host=NODE, state_dir=state, run_dir=f"{state}/run", cgroup="/tw", pool_size=1 << 40)

    @property
    def machine(self) -> Machine:
        """The tables of the twin."""
        return self.twin.machine

    def desk(self) -> Desk:
        """Open the state anew, as a process that starts does."""
        coordinator = LocalCoordinator(
            Inventory(inventory_dir(self.instance)),
            instance=self.instance.name,
            source=self.source,
            existing=self._id_bases,
            reserved=tuple,
            new_uid=self._new_uid,
        )
        policy = PolicyFile(str(self.state / "policy.yaml"))
        return open_desk(self.instance, source=self.source, clock=self.clock, coordinator=coordinator, policy=policy)

    def _new_uid(self) -> Uid:
        """Make identities, and so whatever is in their order, the same in every run."""
        return Uid(str(UUID(int=self._chance.getrandbits(128), version=4)))

    def _id_bases(self) -> dict[Uid, int]:
        records = [*self.machine.records.values(), *(entry.record for entry in self.machine.trash.values())]
        return {record.uid: record.id_base for record in records if isinstance(record, Record)}

    def reconciler(self, fleet: Fleet, effects: Effects | None = None) -> Reconciler:
        """Put together what a process that starts on this host has."""
        self.twin = self.world.restart_agent()
        made = Reconciler(desk=self.desk(), observer=self.twin, effects=effects or self.twin, fleet=fleet)
        made.settled = self.settled
        return made

    def converge(self, fleet: Fleet) -> list[Result]:
        """Make the host what a fleet says; it can be."""
        results = run(self.reconciler(fleet).converge())
        assert results[-1].converged, results[-1].plan
        return results

    def plan(self, fleet: Fleet) -> Plan:
        """Plan the whole host for a fleet, with all that it uses in sight; nothing is carried out."""

        async def look_and_plan() -> Plan:
            reconciler = self.reconciler(fleet)
            _, plan = await reconciler.plan(await reconciler.observe())
            return plan

        return run(look_and_plan())

    def copy(self, state: Path) -> Rig:
        """Give a rig in the same state that goes its own way from here. ``state``: a directory that is not there."""
        shutil.copytree(self.state, state)
        twin = Rig(state=state, clock=self.clock, capabilities=self.capabilities, source=self.source)
        machine = self.machine.copy()
        machine.instance = twin.instance
        twin.twin = TwinHost.of(machine)
        twin._chance.setstate(self._chance.getstate())
        twin.world = World(twin.twin)
        return twin

    def uid(self, name: str) -> Uid:
        """Find the VE of a name."""
        for uid, record in self.machine.records.items():
            if not isinstance(record, Unknown) and record.name == name:
                return uid
        raise KeyError(name)

    def record(self, name: str) -> Record:
        """Give the record of a VE."""
        record = self.machine.records[self.uid(name)]
        assert isinstance(record, Record)
        return record

    def names(self) -> set[VeName]:
        """Name the VEs that are here."""
        return {record.name for record in self.machine.records.values() if isinstance(record, Record)}

    def see(self, name: str) -> VeObservation:
        """Look at a VE."""
        return run(self.twin.observe()).ves[self.uid(name)]
