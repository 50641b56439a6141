"""Consent: which actions wait until a person has agreed to exactly this plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model.action import CONSENT_IMPACTS, Action, Impact, Operation, Origin, Reason, Refusal
from reconciler.model.host_risk import Reverted
from reconciler.plan.snapshots import is_apart

REVERTED = "HostRiskReverted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """``ve_hashes`` by VE, ``whole``: the plan's own hash. ``given``: hashes that were approved.

    ``mass``: the number of removals if there are so many that they need consent, else 0. ``reverted``: what was made
    once and taken back, by object: the consent to that is used up. ``unreviewed``: what must not be done as it is not
    what was reviewed.
    """

    ve_hashes: Mapping[str, str]
    whole: str
    given: frozenset[str]
    mass: int
    reverted: Mapping[str, tuple[Reverted, ...]] = field(default_factory=dict)
    unreviewed: Mapping[str, Refusal] = field(default_factory=dict)


def part(actions: Iterable[Action], terms: Terms) -> tuple[list[Action], list[Refusal]]:
    """Part the actions that may be done from those that wait; of an object that waits for one, all wait.

    Where a VE's kept data is all that would be lost, the rest of it is held right meanwhile.
    """
    found = list(actions)
    waiting: dict[str, Refusal] = dict(terms.unreviewed)
    whole: set[str] = set()
    for action in found:
        if action.ve in terms.unreviewed:
            continue
        refusal = _refusal(action, terms)
        if refusal is None:
            continue
        before = waiting.get(action.ve)
        waiting[action.ve] = _both(before, refusal) if before else refusal
        if not is_apart(action.path):
            whole.add(action.ve)
    allowed = [a for a in found if a.ve not in waiting or (a.ve not in whole and _may_go_on(a, terms))]
    return _without_subsumed(allowed), list(waiting.values())


def _both(one: Refusal, other: Refusal) -> Refusal:
    return one if one.message == other.message else replace(one, message=f"{one.message}; {other.message}")


def _may_go_on(action: Action, terms: Terms) -> bool:
    """Say whether an action is done though something of its object waits.

    Of what was not reviewed only single fields are put right: whatever else is done carries the rest along.
    """
    if action.ve in terms.unreviewed:
        return action.origin is Origin.DRIFT and action.op is Operation.UPDATE and action.path != "power"
    return _is_upkeep(action)


def _is_upkeep(action: Action) -> bool:
    """Say whether an action holds to what was carried out before: a record would tell of what waits."""
    return action.origin is not Origin.GIT and action.reason is not Reason.BOOKKEEPING


def _without_subsumed(actions: list[Action]) -> list[Action]:
    """Leave out the starts and stops of VEs that are made anew, which go down and come up with that."""
    anew = {action.ve for action in actions if action.op is Operation.RECREATE}
    return [a for a in actions if a.ve not in anew or (a.op is not Operation.RESTART and a.path != "power")]


def _too_many(count: int) -> str:
    """Say that there are too many removals, those of the last day included."""
    if count == 1:
        return "its removal is one too many, after those of the last 24 hours"
    return f"one of {count} VEs that would be removed, too many within 24 hours"


def _loss(action: Action) -> str:
    """Say what would be lost, in the words of the plan that would do it."""
    return f" ({action.danger.removeprefix(f'{action.ve}: ')})" if action.danger and is_apart(action.path) else ""


def _refusal(action: Action, terms: Terms) -> Refusal | None:
    if action.origin is not Origin.GIT:
        return None
    known = {terms.whole, terms.ve_hashes[action.ve]}
    before = next((one for one in terms.reverted.get(action.ve, ()) if one.hash in known), None)
    if before is not None and action.impact is Impact.HOST_RISK and not known & before.renewed:
        remedy = f"`vectl approve {terms.ve_hashes[action.ve]}` to try it again; else change its manifest"
        return Refusal(ve=action.ve, uid=action.uid, rule=REVERTED, message=before.message, remedy=remedy)
    if known & terms.given:
        return None
    if terms.mass and action.op is Operation.DESTROY and action.uid is not None:
        return Refusal(
            ve=action.ve,
            uid=action.uid,
            rule="MassRemoval",
            message=_too_many(terms.mass),
            remedy=f"`vectl approve {terms.whole}` if this is what you want; else put the manifests back",
        )
    if action.impact in CONSENT_IMPACTS:
        return Refusal(
            ve=action.ve,
            uid=action.uid,
            rule="NeedsConsent",
            message=f"{action.path or action.op.value} has impact {action.impact.word}{_loss(action)}",
            remedy=f"`vectl approve {terms.ve_hashes[action.ve]}`",
        )
    return None
