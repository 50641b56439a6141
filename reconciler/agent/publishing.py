"""Telling the fleet of this host and its VEs: at once what a pass has shown to be new, but only once in a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.agent import view
from reconciler.agent.desk import Desk
from reconciler.agent.loop import HOST, Agent
from reconciler.agent.reconciler import Result
from reconciler.errors import CoordinatorAwayError, OutcomeUnknownError
from reconciler.fleet.bulletin import ALIVE_S, Bulletin
from reconciler.host.keeper.records import boot_id
from reconciler.model import capacity
from reconciler.model.facts import Json
from reconciler.model.observation import HostObservation, PoolObservation, Scope
from reconciler.model.version import VERSION
from reconciler.state.config import Config

_FORMAT = 1
_COALESCE_S = 1.0
_ALIVE_EVERY_S = ALIVE_S / 3


@dataclass(slots=True)
class Publisher:
    """Tells what passes have shown. ``changed``: names of VEs of which something may be new."""

    agent: Agent
    config: Config
    bulletin: Bulletin
    changed: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _observed: HostObservation | None = None
    _host: dict[str, Json] = field(default_factory=dict)

    @property
    def desk(self) -> Desk:
        """The stores of this host."""
        return self.agent.reconciler.desk

    def passed(self, key: str, result: Result) -> None:
        """Take note of a pass."""
        if key == HOST:
            self._observed, self._host = result.observed, self._machine(result.observed)
        else:
            self.changed.add(key)
        self.news.set()

    async def run(self, believe: Callable[[], object]) -> None:
        """Tell until cancelled; while the coordinator is away, what is new waits.

        ``believe``: raises CoordinatorAwayError, where the coordinator is not to be written to.
        """
        clock = self.desk.clock
        alive_at = clock.monotonic()
        while True:
            with suppress(CoordinatorAwayError, OutcomeUnknownError):
                believe()
                if clock.monotonic() >= alive_at:
                    alive_at = clock.monotonic() + _ALIVE_EVERY_S
                    await self.bulletin.live(self._status())
                await self._tell()
            await asyncio.sleep(_COALESCE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, alive_at - clock.monotonic())):
                    await self.news.wait()

    async def _tell(self) -> None:
        observed, changed = self._observed, self.changed
        self._observed, self.changed = None, set()
        self.news.clear()
        try:
            rows = {} if observed is None else self._rows(observed, None)
            rows.update(await self._rows_of(changed))
            await self.bulletin.tell(rows, whole=observed is not None and observed.complete)
        except (CoordinatorAwayError, OutcomeUnknownError):
            self._observed, self.changed = self._observed or observed, self.changed | changed
            raise

    def _rows(self, observed: HostObservation, names: Set[str] | None) -> dict[str, Mapping[str, Json]]:
        fleet = self.agent.reconciler.fleet
        found = view.rows(self, fleet, observed, revision=fleet.revision)
        return {row.name: view.item(self, row) for row in found if names is None or row.name in names}

    async def _rows_of(self, names: Set[str]) -> dict[str, Mapping[str, Json]]:
        """Look at VEs anew: what a pass saw was before what it did."""
        if not names:
            return {}
        reconciler = self.agent.reconciler
        uids = frozenset(uid for uid, name in reconciler.names.items() if name in names)
        return self._rows(await reconciler.observe(Scope(uids=uids, host=False, use=False)), names)

    def _machine(self, observed: HostObservation) -> dict[str, Json]:
        free = observed.pool.free if isinstance(observed.pool, PoolObservation) else None
        has = {resource.value: amount for resource, amount in capacity.machine_of(observed).items()}
        return {
            "capacity": {**has},
            "poolFree": free,
            "capabilities": {"cgroup": observed.capabilities.cgroup, "whyNot": dict(observed.capabilities.why_not)},
        }

    def _status(self) -> dict[str, Json]:
        reconciler = self.agent.reconciler
        return {
            "format": _FORMAT,
            "host": self.config.instance.host,
            "revision": reconciler.fleet.revision,
            "version": VERSION,
            "boot": boot_id(),
            "time": self.desk.clock.now(),
            "ves": len(reconciler.names),
            "running": len(reconciler.running),
            **self._host,
        }


async def publish(agent: Agent, config: Config) -> None:
    """Tell the fleet of this host for as long as the agent runs.

    Raises: StateError, KernelError.
    """
    membership = agent.reconciler.membership
    assert membership is not None, f"{config.instance.name} is in no fleet"
    ledger = membership.owners.ledger
    publisher = Publisher(agent, config, Bulletin(ledger.store, ledger.keys, membership.host))
    agent.on_pass = publisher.passed
    await publisher.run(ledger.believe)
