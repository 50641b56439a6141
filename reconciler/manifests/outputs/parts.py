"""The words that the schemas of outputs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from reconciler.model.facts import Json

Schema: TypeAlias = "dict[str, Json]"

FORMAT = 1
"""Number of the outputs' present format."""


def record(fields: Mapping[str, Schema], description: str, *, optional: Iterable[str] = ()) -> Schema:
    """Give an object with named fields; all but the ``optional`` ones are always there."""
    return {
        "type": "object",
        "description": description,
        "properties": dict(fields),
        "required": [name for name in fields if name not in set(optional)],
    }


def array(items: Schema, description: str) -> Schema:
    """Give a list."""
    return {"type": "array", "description": description, "items": items}


def text(description: str) -> Schema:
    """Give a text."""
    return {"type": "string", "description": description}


def word(words: Iterable[str], description: str) -> Schema:
    """Give one of some words."""
    return {"enum": list(words), "description": description}


def number(description: str, *, kind: str = "integer", or_null: bool = False) -> Schema:
    """Give a number."""
    return {"type": [kind, "null"] if or_null else kind, "description": description}


def text_or_null(description: str) -> Schema:
    """Give a text that may be missing."""
    return {"type": ["string", "null"], "description": description}


def anything(description: str) -> Schema:
    """Give a value of any shape."""
    return {"description": description}


def format_number() -> Schema:
    """Give the number of the format."""
    return {"const": FORMAT, "description": "Number of this format; goes up when something here changes or goes."}
