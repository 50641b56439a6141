"""A session on this host: the real host, the stores and the reconciler of one instance, put together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
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
from reconciler.model.seam import Coordinator, Effects
from reconciler.state import ids, layout
from reconciler.state.config import Config
from reconciler.state.coordinator import LocalCoordinator
from reconciler.state.ids import IdRange
from reconciler.state.inventory import Inventory
from reconciler.state.policy import PolicyFile

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from reconciler.agent.membership import Membership

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
        desk, membership = _open_desk(config, site, source)
        effects: Effects = counter if membership is None else _owning(counter, membership)
        if failpoints:
            chance = random.Random()  # noqa: S311  # decides which effects fail in a test
            effects = seam.FailpointEffects(effects, seam.parse_failpoints(failpoints), random=chance)
        if log is not None:
            effects = seam.LoggingEffects(effects, log)
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
            membership=membership,
        )
        if membership is not None:
            membership.key.fleet = lambda: reconciler.fleet
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


def _open_desk(config: Config, site: Site, source: str) -> tuple[Desk, Membership | None]:
    """Open the stores, and this host's part in its fleet, if it has one."""
    instance, clock, membership = config.instance, SystemClock(), None
    layout.prepare(instance)

    def local(reserved: Callable[[], Iterable[IdRange]]) -> Coordinator:
        return LocalCoordinator(
            Inventory(layout.inventory_dir(instance)),
            instance=instance.name if config.etcd is None else f"{instance.name} {instance.host}",
            source=source,
            existing=lambda: _id_bases(site),
            reserved=reserved,
        )

    if config.etcd is not None:
        from reconciler.agent.joining import join  # TLS, and all that hosts say to each other

        membership = join(config, site, local=local, clock=clock)
    coordinator = local(ids.read_subids) if membership is None else membership.coordinator
    policy = PolicyFile(config.policy)
    return open_desk(instance, source=source, clock=clock, coordinator=coordinator, policy=policy), membership


def _owning(inner: Effects, membership: Membership) -> Effects:
    from reconciler.agent.owning import OwningEffects

    return OwningEffects(inner, membership)


def _id_bases(site: Site) -> dict[Uid, int]:
    """Give the first id of every VE that is in the pool or in the trash."""
    records = [record for uid in site.uids() if (record := site.read_record(uid)) is not None]
    return {record.uid: record.id_base for record in (*records, *site.trashed_records())}
