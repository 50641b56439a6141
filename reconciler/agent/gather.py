"""Gathering what a plan depends on, from the desk and from an observation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from reconciler.agent import hostrisk
from reconciler.agent.desk import Desk
from reconciler.agent.ownership_words import ownership_word
from reconciler.errors import VectlError
from reconciler.model.fleet import Fleet
from reconciler.model.identity import Allocation, VeName
from reconciler.model.observation import HostObservation
from reconciler.model.seam import Coordinator
from reconciler.model.volume import Record
from reconciler.plan.inputs import Inputs, Known
from reconciler.state.inventory import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Removing:
    """How removals are done. ``removable``: VEs that have been absent for long enough; None: all that are absent.

    Units: ``keep_s`` seconds in the trash.
    """

    on: bool
    removable: frozenset[VeName] | None
    keep_s: float


def gather(desk: Desk, fleet: Fleet, observed: HostObservation, *, running: Collection[VeName], known: Known) -> Inputs:
    """Gather what the plan of a VE that is here depends on. ``running``, ``known``: what earlier looks told.

    Raises: StateError, KernelError.
    """
    now = desk.clock.now()
    return Inputs(
        instance=desk.instance.name,
        host=desk.instance.host,
        source=desk.source,
        fleet=fleet,
        observed=observed,
        now=now,
        consents=frozenset(consent.hash for consent in desk.approvals.in_force(now)),
        paused={pause.ve or "*": pause.reason for pause in desk.pauses.in_force(now)},
        measured={(op.value, path): seconds for (op, path), seconds in desk.history.medians().items()},
        running_elsewhere=frozenset(running),
        known=known,
        policy=desk.policy.known(),
    )


def with_removal(desk: Desk, inputs: Inputs, removing: Removing) -> Inputs:
    """Add what removals, births and the host's own objects depend on besides.

    Raises: StateError, KernelError.
    """
    ves = inputs.observed.ves
    # One that was announced and then not done is still here: counting it too would count it twice.
    removed = [removal for removal in desk.removals.recent(inputs.now) if removal.uid not in ves]
    return replace(
        inputs,
        inventory=frozenset(uid for uid, entry in desk.inventory.read().items() if isinstance(entry, Entry)),
        prune=removing.on,
        prune_pending=_pending(inputs, removing.removable),
        removed_recently=len(removed),
        removed_from_source=sum(removal.source == desk.source for removal in removed),
        trash_keep_s=removing.keep_s,
        applied_networks=desk.networks.read(),
        risks=hostrisk.state_of(desk),
    )


def _pending(inputs: Inputs, removable: frozenset[VeName] | None) -> frozenset[VeName]:
    if removable is None:
        return frozenset()
    here = (seen.record.name for seen in inputs.observed.ves.values() if isinstance(seen.record, Record))
    return frozenset(here) - inputs.fleet.ves.keys() - removable


async def with_allocations(
    inputs: Inputs,
    names: Iterable[VeName],
    coordinator: Coordinator,
    refused: Mapping[VeName, VectlError] = MappingProxyType({}),
) -> Inputs:
    """Give VEs an identity; one that gets none does not keep the others from theirs. ``refused``: get none."""
    wanted = {name: inputs.fleet.ves[name].uid for name in names if name not in refused}
    given: Mapping[VeName, Allocation | VectlError]
    try:
        given = await coordinator.allocate(wanted) if wanted else {}
    except VectlError as error:
        given = dict.fromkeys(wanted, error)
    failed = {**refused, **{name: one for name, one in given.items() if not isinstance(one, Allocation)}}
    return replace(
        inputs,
        allocations={name: one for name, one in given.items() if isinstance(one, Allocation)},
        unallocated={name: str(error) for name, error in failed.items()},
        not_ours={name: word for name, error in failed.items() if (word := ownership_word(error))},
    )
