"""Consent: which actions wait until a person has agreed to exactly this plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.model.action import CONSENT_IMPACTS, Action, Operation, Origin, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """``ve_hashes`` by VE, ``whole``: the plan's own hash. ``given``: hashes that were approved.

    ``mass``: the number of removals if there are so many that they need consent, else 0.
    """

    ve_hashes: Mapping[str, str]
    whole: str
    given: frozenset[str]
    mass: int


def part(actions: Iterable[Action], terms: Terms) -> tuple[list[Action], list[Refusal]]:
    """Part the actions that may be done from those that wait; of an object that waits for one, all wait."""
    found = list(actions)
    waiting = {action.ve: refusal for action in found if (refusal := _refusal(action, terms)) is not None}
    return [action for action in found if action.ve not in waiting], list(waiting.values())


def _too_many(count: int) -> str:
    """Say that there are too many removals, those of the last day included."""
    if count == 1:
        return "its removal is one too many, after those of the last 24 hours"
    return f"one of {count} VEs that would be removed, too many within 24 hours"


def _refusal(action: Action, terms: Terms) -> Refusal | None:
    if action.origin is not Origin.GIT or {terms.whole, terms.ve_hashes[action.ve]} & terms.given:
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
            message=f"{action.path or action.op.value} has impact {action.impact.word}",
            remedy=f"`vectl approve {terms.ve_hashes[action.ve]}`",
        )
    return None
