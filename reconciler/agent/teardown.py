"""Taking an instance down: every VE, its data, the networks and the filter."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.agent.session import Session
from reconciler.errors import StateError, VectlError
from reconciler.host.site import Site
from reconciler.kernel.syscalls import file_errors
from reconciler.model.compute import RemoveCgroup
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid
from reconciler.model.instance import Instance
from reconciler.model.network import FilterRules, LoadFilter, RemoveNetwork
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.power import DeleteRuntime, PowerObservation
from reconciler.model.volume import PurgeTrash, Record, TrashVe
from reconciler.plan.power import stop_effects, stop_timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What would be lost with a pool. ``unread``: VEs without a readable record; ``trashed``: entries of the trash."""

    records: tuple[Record, ...]
    unread: frozenset[Uid]
    trashed: int


def take_stock(instance: Instance) -> Stock:
    """Count what is in a pool that is mounted; nothing is changed.

    Raises: KernelError.
    """
    site = Site(instance)
    try:
        records = {uid: _record(site, uid) for uid in (site.uids() if os.path.isdir(instance.ves) else ())}
    finally:
        site.close()
    return Stock(
        records=tuple(record for record in records.values() if record is not None),
        unread=frozenset(uid for uid, record in records.items() if record is None),
        trashed=len(_trash_ids(instance)),
    )


def _trash_ids(instance: Instance) -> list[str]:
    """List the trash by what is in it; an entry is to go whether its record can be read or not."""
    if not os.path.isdir(instance.trash):
        return []
    with file_errors("list", instance.trash):
        return [name for name in os.listdir(instance.trash) if not name.startswith(".")]


def _record(site: Site, uid: Uid) -> Record | None:
    try:
        return site.read_record(uid)
    except VectlError:
        return None


async def tear_down(session: Session, *, told: Callable[[str], None]) -> None:
    """Remove all that the instance made, VEs side by side.

    Raises: StateError, if something cannot be looked at; VectlError.
    """
    session.guard.stand_down()
    observed = await session.reconciler.observe()
    limit = asyncio.Semaphore(session.config.workers)

    async def one(uid: Uid, seen: VeObservation) -> None:
        async with limit:
            await _remove_ve(session, uid, seen)
            told(f"removed {seen.record.name if isinstance(seen.record, Record) else uid}")

    await asyncio.gather(*(one(uid, seen) for uid, seen in observed.ves.items()))
    await _remove_host_objects(session, await session.reconciler.observe())


async def _remove_ve(session: Session, uid: Uid, seen: VeObservation) -> None:
    perform = session.reconciler.effects.perform
    applied = seen.record.applied if isinstance(seen.record, Record) else {}
    if isinstance(seen.power, PowerObservation):
        for effect in stop_effects(uid, stop_timeout_s(applied), seen.power):
            await perform(effect)
    else:
        await perform(DeleteRuntime(uid=uid))
    await perform(RemoveCgroup(uid=uid))
    await perform(TrashVe(uid=uid))


async def _remove_host_objects(session: Session, observed: HostObservation) -> None:
    perform = session.reconciler.effects.perform
    if isinstance(observed.networks, Unknown):
        raise StateError(f"take down {session.config.instance.name}: {observed.networks.reason}")
    for trash_id in _trash_ids(session.config.instance):
        await perform(PurgeTrash(trash_id=trash_id))
    await perform(LoadFilter(rules=FilterRules()))
    for name in observed.networks:
        await perform(RemoveNetwork(network=name))
    session.desk.networks.put({})
