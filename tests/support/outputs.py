"""Checks of what commands print for scripts against the schemas that are published.

Only the words of JSON Schema that those schemas use are known here; another one fails the test that meets it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SCHEMAS = Path(__file__).parents[2] / "schemas" / "output"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_WORDS = frozenset(
    {"$schema", "$id", "type", "description", "properties", "required", "items", "enum", "const", "oneOf"}
)


def misfits(name: str, value: Any) -> list[str]:  # whatever a command printed
    """Name what of a command's JSON is not as its schema says."""
    schema = json.loads((_SCHEMAS / f"{name}.json").read_text())
    return list(_misfits(schema, value, name))


def _misfits(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:  # JSON
    assert schema.keys() <= _WORDS, schema.keys() - _WORDS
    if "oneOf" in schema:
        fitting = [one for one in schema["oneOf"] if not list(_misfits(one, value, where))]
        if len(fitting) != 1:
            yield f"{where}: fits {len(fitting)} of the forms, not one: {value}"
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not _is_of(schema["type"], value):
        yield f"{where}: {value!r} is not of type {schema['type']}"
        return
    if isinstance(value, dict):
        yield from (f"{where}.{key}: missing" for key in schema.get("required", ()) if key not in value)
        for key, one in schema.get("properties", {}).items():
            if key in value:
                yield from _misfits(one, value[key], f"{where}.{key}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from _misfits(schema["items"], item, f"{where}[{number}]")


def _is_of(names: str | list[str], value: Any) -> bool:  # JSON
    kinds = [names] if isinstance(names, str) else names
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _KINDS[kind]) for kind in kinds)
