"""Taking an instance down: every VE, its data, the networks and the filter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.agent.session import Session
from reconciler.errors import StateError
from reconciler.model.compute import RemoveCgroup
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid
from reconciler.model.network import FilterRules, LoadFilter, RemoveNetwork
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.power import DeleteRuntime, PowerObservation, PowerState, StopRuntime
from reconciler.model.volume import PurgeTrash, Record, TrashVe
from reconciler.plan.power import stop_timeout_s


async def tear_down(session: Session, *, told: Callable[[str], None]) -> None:
    """Remove all that the instance made, VEs side by side.

    Raises: StateError, if something cannot be looked at; VectlError.
    """
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
    if isinstance(seen.power, PowerObservation) and seen.power.state is PowerState.RUNNING:
        applied = seen.record.applied if isinstance(seen.record, Record) else {}
        await perform(StopRuntime(uid=uid, timeout_s=stop_timeout_s(applied)))
    await perform(DeleteRuntime(uid=uid))
    await perform(RemoveCgroup(uid=uid))
    await perform(TrashVe(uid=uid))


async def _remove_host_objects(session: Session, observed: HostObservation) -> None:
    perform = session.reconciler.effects.perform
    if isinstance(observed.trash, Unknown) or isinstance(observed.networks, Unknown):
        raise StateError(f"take down {session.config.instance.name}: {observed.trash} {observed.networks}")
    for entry in observed.trash:
        await perform(PurgeTrash(trash_id=entry.id))
    await perform(LoadFilter(rules=FilterRules()))
    for name in observed.networks:
        await perform(RemoveNetwork(network=name))
    session.desk.networks.put({})
