"""Explaining a difference to people: what is missing, what is extra, what is another value. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.model.facts import Json
from reconciler.plan.field import nest
from reconciler.plan.words import value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One difference in words. ``path``: of the field; ``text`` may hold what a VE wrote, made safe to print."""

    path: str
    text: str


def explain(desired: Mapping[str, Json], observed: Mapping[str, Json]) -> tuple[Explanation, ...]:
    """Explain how observed values differ from desired ones, for the paths that both sides have or that one lacks.

    Shape: values by path, as `spec.spec_values` and `spec.observed_values` give them.
    """
    from deepdiff import DeepDiff

    tree = DeepDiff(nest(desired), nest(observed), ignore_order=True, view="tree", threshold_to_diff_deeper=0)
    found = [
        Explanation(path=_path(level.path(output_format="list")), text=text)
        for kind, levels in tree.items()
        for level in levels
        for text in _texts(kind, _path(level.path(output_format="list")), level.t1, level.t2)
    ]
    return tuple(sorted(found, key=lambda explanation: (explanation.path, explanation.text)))


def _path(parts: list[str | int]) -> str:
    """Give the field's own path: an entry of a list is told by its value, not by its place."""
    return ".".join(part for part in parts if isinstance(part, str))


def _texts(kind: str, path: str, desired: Json, observed: Json) -> Iterator[str]:
    match kind:
        case "values_changed" | "type_changes":
            yield f"is {value_text(path, observed)}, should be {value_text(path, desired)}"
        case "iterable_item_added" | "dictionary_item_added":
            yield f"{value_text(path, observed)} is extra"
        case "iterable_item_removed" | "dictionary_item_removed":
            yield f"{value_text(path, desired)} is missing"
        case _:
            yield "differs"
