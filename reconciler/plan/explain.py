"""Explaining a difference to people: what is missing, what is extra, what is another value. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.model.action import Operation, Plan
from reconciler.model.facts import Json
from reconciler.plan.render import is_bookkeeping
from reconciler.plan.words import value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One difference in words. ``path``: of the field; ``text`` may hold what a VE wrote, made safe to print."""

    path: str
    text: str


def explain(plan: Plan, name: str) -> tuple[Explanation, ...]:
    """Explain the differences of one VE that a plan would put right, or that its drift policy leaves alone."""
    found = [
        Explanation(path=where, text=text)
        for path, desired, observed in _differences(plan, name)
        for where, text in _explained(path, desired, observed)
    ]
    return tuple(sorted(found, key=lambda explanation: (explanation.path, explanation.text)))


def _differences(plan: Plan, name: str) -> Iterator[tuple[str, Json, Json]]:
    for action in plan.actions:
        if action.ve == name and action.op is Operation.UPDATE and action.effects and not is_bookkeeping(action):
            yield action.path, action.after, action.before
        elif action.ve == name and action.op is Operation.RESTART and isinstance(action.after, dict):
            before = action.before if isinstance(action.before, dict) else {}
            yield from ((path, after, before.get(path)) for path, after in action.after.items())
    for drift in plan.warned:
        if drift.ve == name:
            yield drift.path, drift.desired, drift.observed


def _explained(path: str, desired: Json, observed: Json) -> Iterator[tuple[str, str]]:
    from deepdiff import DeepDiff

    for kind, levels in DeepDiff(desired, observed, ignore_order=True, view="tree").items():
        for level in levels:
            where = ".".join((path, *_keys(level.path(output_format="list"))))
            yield from ((where, text) for text in _texts(kind, where, level.t1, level.t2))


def _keys(parts: list[str | int]) -> Iterator[str]:
    """Give the keys on the way to a difference: an entry of a list is told by its value, not by its place."""
    return (part for part in parts if isinstance(part, str))


def _texts(kind: str, path: str, desired: Json, observed: Json) -> Iterator[str]:
    match kind:
        case "values_changed" | "type_changes":
            yield f"is {value_text(path, observed)}, should be {value_text(path, desired)}"
        case "iterable_item_added":
            yield f"{value_text('', observed)} is extra"
        case "iterable_item_removed":
            yield f"{value_text('', desired)} is missing"
        case "dictionary_item_added":
            yield f"{value_text(path, observed)} is extra"
        case "dictionary_item_removed":
            yield f"{value_text(path, desired)} is missing"
        case _:
            yield "differs"
