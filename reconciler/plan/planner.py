"""The planner: one host's plan for one revision, or the part of it that concerns a few VEs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from reconciler.model.action import Action, Origin, Plan, Refusal, UnknownFact
from reconciler.model.facts import Unknown
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Allocation, Uid, VeName
from reconciler.model.observation import VeObservation
from reconciler.model.volume import Record
from reconciler.plan import consent, hashes, host, host_risk, keeping_out, prune, review, ve
from reconciler.plan.actions import Context
from reconciler.plan.admission import held, refuse
from reconciler.plan.inputs import Inputs, context_of, doubt, pause_of, specs_here
from reconciler.plan.matching import Matches, match


def unborn(inputs: Inputs) -> tuple[VeName, ...]:
    """Name the VEs that need an allocation before a plan can be made."""
    if doubt(inputs):
        return ()
    matches = _match(inputs)
    if not matches.new:
        return ()
    refused = refuse(inputs, matches, only=None)
    return tuple(spec.name for spec in matches.new if not spec.unsupported and spec.name not in refused)


def plan_host(inputs: Inputs) -> Plan:
    """Plan the whole host: its networks, its filter, every VE, removals, and what the trash lets go."""
    matches = _match(inputs)
    refused = refuse(inputs, matches, only=None)
    parts = dict(_plan_ves(inputs, matches, refused, only=None))
    removal = _plan_removal(inputs, matches)
    ves = host.Ves(matches=matches, refused=refused, untouched=frozenset(_untouched(inputs, parts)))
    actions = [action for part in parts.values() for action in part.actions]
    actions += [*removal.actions, *host.plan_own(inputs, ves), *_plan_purge(inputs)]
    made = _assemble(inputs, actions, parts, removal)
    return replace(made, unknown=(*made.unknown, *host.unknown_of_host(inputs.observed)))


def plan_reviewed(inputs: Inputs, only: frozenset[VeName] | None = None) -> tuple[Inputs, Plan]:
    """Plan the host, or with ``only`` some VEs; what was not reviewed is held to what it was before.

    Shape: what the plan was made from, which is what it is to be carried out with, and the plan.
    """
    bound, head = inputs.review, inputs.fleet
    if bound is None or bound.before is None:
        return inputs, _plan(inputs, only)
    if only is not None:  # of the others, and of what is to go, only a look at everything tells anew
        inputs = _held(inputs, bound.withheld - (only & inputs.fleet.ves.keys()))
    wanted = _plan(inputs, only)
    names = review.withheld(wanted)
    waiting = review.in_the_way(head, bound.before, names if only is None else names | bound.withheld)
    if not (names or (waiting if only is None else waiting.keys() & only)):
        return inputs, wanted
    held = replace(_held(inputs, names | waiting.keys()), settled=bound.settled)
    made = review.joined(wanted, _plan(held, only))
    told = {name: why for name, why in waiting.items() if only is None or name in only}
    return held, replace(made, waiting={**made.waiting, **told})


def _plan(inputs: Inputs, only: frozenset[VeName] | None) -> Plan:
    return plan_host(inputs) if only is None else plan_ves(inputs, only)


def _held(inputs: Inputs, names: frozenset[str]) -> Inputs:
    if not names or inputs.review is None or inputs.review.before is None:
        return inputs
    before, here = inputs.review.before, _names_here(inputs)
    known = frozenset(name for name in names if name in before.ves or name not in here)
    return replace(inputs, fleet=review.held_to(inputs.fleet, before, known))


def _names_here(inputs: Inputs) -> frozenset[str]:
    """Name the VEs that are here: where it is not known how one was reviewed, it is not to go for that."""
    records = (seen.record for seen in inputs.observed.ves.values())
    return frozenset(record.name for record in records if isinstance(record, Record))


def plan_ves(inputs: Inputs, names: frozenset[VeName]) -> Plan:
    """Plan only the VEs that are named, from an observation that holds at least them; nothing is removed.

    A VE that is not in it is made only if the observation is of everything.
    """
    matches = _match(inputs)
    plans = _plan_ves(inputs, matches, refuse(inputs, matches, only=names), only=names)
    parts = dict(plans)
    actions = [action for part in parts.values() for action in part.actions]
    return _assemble(inputs, actions, parts, prune.PrunePlan())


def _untouched(inputs: Inputs, parts: Mapping[VeName, ve.VePlan]) -> Iterator[VeName]:
    """Name the VEs on which nothing of their spec is carried out now."""
    yield from (name for name, part in parts.items() if part.unknown or (part.refused and not part.actions))
    yield from (spec.name for spec in specs_here(inputs) if pause_of(inputs, spec.name) is not None)


def _match(inputs: Inputs) -> Matches:
    trash = inputs.observed.trash
    return match(specs_here(inputs), inputs.observed.ves, () if isinstance(trash, Unknown) else trash)


def _plan_ves(
    inputs: Inputs, matches: Matches, refused: Mapping[VeName, Refusal], *, only: frozenset[VeName] | None
) -> Iterator[tuple[VeName, ve.VePlan]]:
    context, unsure = context_of(inputs), doubt(inputs)
    inputs.settled.enter(context)
    for spec, observed in matches.existing:
        if only is None or spec.name in only:
            part = _plan_existing(inputs, spec, observed, context, refused.get(spec.name))
            yield spec.name, _unless_paused(inputs, spec, part)
    entries = {spec.name: entry for spec, entry in matches.trashed}
    for spec in (*(spec for spec, _ in matches.trashed), *matches.new):
        if only is not None and spec.name not in only:
            continue
        if unsure:
            yield spec.name, ve.VePlan(unknown=(UnknownFact(ve=spec.name, reason=unsure),))
        elif spec.name in refused:
            yield spec.name, ve.VePlan(refused=(refused[spec.name],))
        elif entry := entries.get(spec.name):
            yield spec.name, _unless_paused(inputs, spec, ve.plan_restored(spec, entry, context))
        else:
            yield spec.name, _unless_paused(inputs, spec, _plan_new(inputs, spec, context))


def _plan_existing(
    inputs: Inputs, spec: VeSpec, observed: VeObservation, context: Context, refused: Refusal | None
) -> ve.VePlan:
    """Plan a VE that is here; one that cannot have more than it has is held to that, and to the rest of its spec."""
    if refused is None:
        return inputs.settled.plan(spec, observed, context)
    if isinstance(observed.record, Record) and not observed.record.applied:
        return ve.VePlan(refused=(refused,))
    part = ve.plan_existing(held(spec, observed), observed, context)
    return replace(part, refused=(*part.refused, refused))


def _plan_new(inputs: Inputs, spec: VeSpec, context: Context) -> ve.VePlan:
    allocation = inputs.allocations.get(spec.name)
    if allocation is None and not spec.unsupported:
        reason = inputs.unallocated.get(spec.name, "no identity was allocated to it")
        if spec.name in inputs.not_ours:
            return ve.VePlan(waiting=reason)
        return ve.VePlan(unknown=(UnknownFact(ve=spec.name, reason=reason),))
    return ve.plan_new(spec, allocation or Allocation(uid=Uid(""), id_base=0), context)


def _unless_paused(inputs: Inputs, spec: VeSpec, part: ve.VePlan) -> ve.VePlan:
    reason = pause_of(inputs, spec.name)
    if reason is None or not part.actions:
        return part
    return ve.VePlan(unknown=part.unknown, waiting=f"paused: {reason}", warned=part.warned)


def _plan_removal(inputs: Inputs, matches: Matches) -> prune.PrunePlan:
    if not inputs.observed.complete:
        return prune.PrunePlan(
            unknown=(UnknownFact(reason="not all VEs of the host could be read; nothing is removed"),)
        )
    if "*" in inputs.paused:
        return prune.PrunePlan()
    unclaimed = [seen for seen in matches.unclaimed if not _is_paused(inputs, seen)]
    return prune.plan_prune(unclaimed, matches.new, frozenset(inputs.fleet.ves), prune.rules_of(inputs))


def _is_paused(inputs: Inputs, seen: VeObservation) -> bool:
    return isinstance(seen.record, Record) and seen.record.name in inputs.paused


def _plan_purge(inputs: Inputs) -> tuple[Action, ...]:
    trash = inputs.observed.trash
    if isinstance(trash, Unknown) or "*" in inputs.paused:
        return ()
    return prune.plan_purge(trash, inputs.now, inputs.trash_keep_s)


def _assemble(
    inputs: Inputs, actions: list[Action], parts: Mapping[VeName, ve.VePlan], removal: prune.PrunePlan
) -> Plan:
    judged = host_risk.judge(actions, host_risk.facts_of(inputs))
    by_ve = hashes.ve_hashes(inputs.host, judged.actions)
    whole = hashes.action_hash(by_ve.values())
    terms = consent.Terms(
        ve_hashes=by_ve,
        whole=whole,
        given=inputs.consents,
        mass=removal.mass,
        reverted=inputs.risks.reverted,
        unreviewed=_unreviewed(inputs, judged.actions, by_ve, whole),
    )
    consented, unconsented = consent.part(judged.actions, terms)
    allowed, pending = host_risk.wait_for_pending(consented, inputs.risks)
    waiting = {refusal.ve for refusal in unconsented}
    return Plan(
        host=inputs.host,
        revision=inputs.fleet.revision,
        actions=tuple(sorted(allowed, key=lambda action: action.phase)),
        refused=(
            *(r for part in parts.values() for r in part.refused),
            *removal.refused,
            *judged.refused,
            *unconsented,
        ),
        unknown=(*(u for part in parts.values() for u in part.unknown), *removal.unknown),
        warned=tuple(drift for part in parts.values() for drift in part.warned),
        waits_as={name: word for name, word in inputs.not_ours.items() if name in parts},
        waiting={name: part.waiting for name, part in parts.items() if part.waiting} | dict(removal.waiting) | pending,
        orphans=removal.orphans,
        orphan_snapshots=tuple(f"{name}@{snapshot}" for name, part in parts.items() for snapshot in part.orphans),
        notes=tuple(keeping_out.notes(inputs.fleet, inputs.host)),
        ve_hashes=by_ve,
        action_hash=whole,
        withheld=tuple(action for action in judged.actions if action.ve in waiting and action.origin is Origin.GIT),
    )


def _unreviewed(inputs: Inputs, actions: list[Action], by_ve: Mapping[str, str], whole: str) -> Mapping[str, Refusal]:
    """Refuse what differs from what was reviewed, where the root of the host asks for a review."""
    if not inputs.policy.require_reviewed:
        return {}
    question = review.Question(
        hashes=by_ve,
        whole=whole,
        given=inputs.consents,
        below=inputs.policy.reviewed_below,
        revision=inputs.fleet.revision,
    )
    return review.refusals(actions, inputs.review or review.Review(), question)
