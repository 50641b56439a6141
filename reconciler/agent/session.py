"""A session on this host: the real host, the stores and the reconciler of one instance, put together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.agent.clock import SystemClock
from reconciler.agent.desk import Desk, open_desk
from reconciler.agent.hostrisk import Guard, starter
from reconciler.agent.operations import Operations
from reconciler.agent.reconciler import Reconciler
from reconciler.apply import seam
from reconciler.host import debris, ground, templates
from reconciler.host.host import RealHost
from reconciler.host.keeper.records import boot_id
from reconciler.host.site import Site
from reconciler.model.fleet import Fleet
from reconciler.model.identity import Uid
from reconciler.model.seam import Effects
from reconciler.state import layout
from reconciler.state.config import Config
from reconciler.state.coordinator import LocalCoordinator
from reconciler.state.inventory import Inventory
from reconciler.state.policy import PolicyFile

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

NO_FLEET = Fleet(revision="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """``counter`` counts the effects that this session performed."""

    config: Config
    site: Site
    desk: Desk
    reconciler: Reconciler
    operations: Operations
    guard: Guard
    counter: seam.CountingEffects
    host: RealHost


@asynccontextmanager
async def open_session(
    config: Config,
    *,
    source: str,
    fleet: Fleet = NO_FLEET,
    failpoints: str = "",
    log: FilteringBoundLogger | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> AsyncIterator[Session]:
    """Prepare the ground and put a session together; closed at the end of the block.

    ``source``: the name under which VEs are recorded. ``failpoints``: see `apply.seam`. ``log``: told of each
    effect.
    Raises: VectlError.
    """
    ground.prepare(config.instance, told=told)
    async with look_session(config, source=source, fleet=fleet, failpoints=failpoints, log=log) as session:
        debris.sweep(session.site)
        templates.sweep(session.site)
        layout.sweep(config.instance, now=session.desk.clock.now())
        yield session


@asynccontextmanager
async def look_session(
    config: Config,
    *,
    source: str,
    fleet: Fleet = NO_FLEET,
    failpoints: str = "",
    log: FilteringBoundLogger | None = None,
) -> AsyncIterator[Session]:
    """Put a session together on the ground that is there, for looking.

    Raises: MissingToolError, if the pool is not mounted; VectlError.
    """
    ground.check_pool(config.instance)
    site = Site(config.instance)
    try:
        host = RealHost(site)
        counter = seam.CountingEffects(host)
        effects: Effects = counter
        if failpoints:
            chance = random.Random()  # noqa: S311  # decides which effects fail in a test
            effects = seam.FailpointEffects(counter, seam.parse_failpoints(failpoints), random=chance)
        if log is not None:
            effects = seam.LoggingEffects(effects, log)
        desk = _open_desk(config, site, source)
        guard = Guard(desk=desk, host=host, settings=config.risk, start=starter(desk), boot=boot_id())
        reconciler = Reconciler(
            desk=desk,
            observer=host,
            effects=effects,
            fleet=fleet,
            workers=config.workers,
            max_restarts=config.max_restarts,
            trash_keep_s=config.trash_days * 86400.0,
            guard=guard,
        )
        try:
            yield Session(
                config=config,
                site=site,
                desk=desk,
                reconciler=reconciler,
                operations=Operations(reconciler=reconciler),
                guard=guard,
                counter=counter,
                host=host,
            )
        finally:
            desk.recorder.flush()
    finally:
        site.close()


def _open_desk(config: Config, site: Site, source: str) -> Desk:
    instance = config.instance
    layout.prepare(instance)
    coordinator = LocalCoordinator(
        Inventory(layout.inventory_dir(instance)),
        instance=instance.name,
        source=source,
        existing=lambda: _id_bases(site),
    )
    return open_desk(
        instance, source=source, clock=SystemClock(), coordinator=coordinator, policy=PolicyFile(config.policy)
    )


def _id_bases(site: Site) -> dict[Uid, int]:
    """Give the first id of every VE that is in the pool or in the trash."""
    records = [record for uid in site.uids() if (record := site.read_record(uid)) is not None]
    return {record.uid: record.id_base for record in (*records, *site.trashed_records())}
