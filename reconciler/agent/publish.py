"""Writing down what came of a pass: the conditions of VEs, and which networks are as the manifests want them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.agent import hostrisk, status
from reconciler.agent.desk import Desk
from reconciler.model import capacity
from reconciler.model.action import Operation
from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import VeName
from reconciler.plan import host_network, prune
from reconciler.plan.spec import unenforceable
from reconciler.state.pause import pause_of

if TYPE_CHECKING:
    from reconciler.agent.reconciler import Result


def publish(desk: Desk, result: Result, specs: Iterable[VeSpec]) -> None:
    """Write the conditions of VEs that manifests speak of.

    Raises: StateError, KernelError, NoSpaceError.
    """
    now = desk.clock.now()
    pauses, protected = desk.pauses.in_force(now), frozenset(_protected_by_record(result))
    for spec in specs:
        pause = pause_of(spec.name, pauses)
        seen = status.Seen(
            name=spec.name,
            revision=result.plan.revision,
            plan=result.plan,
            outcomes=result.outcomes,
            protected=spec.name in protected if spec.protect is None else spec.protect,
            paused=pause.words if pause else "",
            unenforceable=unenforceable(spec, result.observed.capabilities),
            holds=[hold for hold in result.holds if hold.action.ve == spec.name],
        )
        desk.conditions.put(spec.name, status.conditions(seen), now=now)


def _protected_by_record(result: Result) -> Iterator[VeName]:
    """Name the VEs that refuse deletion wherever their manifest says nothing about it."""
    for seen in result.observed.ves.values():
        if not isinstance(seen.record, Unknown) and seen.record.protect:
            yield seen.record.name


def tell_shortfall(desk: Desk, fleet: Fleet, result: Result, *, told: tuple[str, ...]) -> tuple[str, ...]:
    """Tell once where this host's manifest declares more than the machine has; give what was told by now.

    Raises: KernelError, NoSpaceError.
    """
    machine = capacity.machine_of(result.observed)
    found = tuple(capacity.shortfalls(fleet.hosts.get(desk.instance.host), machine))
    for text in found:
        if text not in told:
            desk.tell("host", "LessThanDeclared", text, kind="Warning")
    return found


def publish_unclaimed(desk: Desk, result: Result, names: Collection[VeName]) -> None:
    """Write the conditions of VEs that no manifest speaks of any more and that are here all the same.

    Raises: StateError, KernelError, NoSpaceError.
    """
    plan, now = result.plan, desk.clock.now()
    rules = dict.fromkeys(plan.waiting, "") | {refusal.ve: refusal.rule for refusal in plan.refused}
    for name in sorted(names):
        if name in rules:
            protected = rules[name] == prune.PROTECTED
            seen = status.Seen(name=name, revision=plan.revision, plan=plan, protected=protected)
            desk.conditions.put(name, status.conditions(seen), now=now)


def publish_networks(desk: Desk, result: Result) -> None:
    """Write the conditions of the networks that are here, or should be.

    Raises: StateError, KernelError, NoSpaceError.
    """
    if isinstance(result.observed.networks, Unknown):
        return
    plan, now, here = result.plan, desk.clock.now(), result.observed.networks.keys()
    changed = {action.ve: action.op for action in plan.actions} | {refusal.ve: None for refusal in plan.refused}
    named = {host_network.network_of(target) for target in changed if host_network.is_network(target)}
    plan = replace(plan, waiting={**plan.waiting, **hostrisk.state_of(desk).pending})
    for name in sorted(here | named):
        target, subject = host_network.network_target(name), f"network.{name}"
        done = any(outcome.ok and outcome.action.ve == target for outcome in result.outcomes)
        if done and changed.get(target) is Operation.DESTROY:
            desk.conditions.remove(subject)
        else:
            seen = status.Seen(name=target, revision=plan.revision, plan=plan, outcomes=result.outcomes)
            desk.conditions.put(subject, status.conditions(seen), now=now)


def note_networks(desk: Desk, fleet: Fleet, result: Result) -> None:
    """Write down which networks are as the manifests want them: what differs from that later is drift.

    Raises: StateError, KernelError, NoSpaceError.
    """
    if isinstance(result.observed.networks, Unknown):
        return
    plan = result.plan
    unlike = {refusal.ve for refusal in plan.refused} | {hold.action.ve for hold in result.holds}
    unlike |= hostrisk.state_of(desk).pending.keys()
    unlike |= {outcome.action.ve for outcome in result.outcomes if not outcome.ok}
    done = [(outcome.action.ve, outcome.action.op) for outcome in result.outcomes if outcome.ok]
    undone = {action.ve for action in plan.actions} - {ve for ve, _ in done}
    noted = dict(desk.networks.read())
    for name, spec in fleet.networks.items():
        key = host_network.network_target(name)
        if key not in unlike | undone and (name in result.observed.networks or (key, Operation.CREATE) in done):
            noted[name] = host_network.record_values(spec)
    removed = {host_network.network_of(target) for target, op in done if op is Operation.DESTROY}
    desk.networks.put({name: seen for name, seen in noted.items() if name not in removed})
