"""JSON Schema of the manifests, for editors and reviewers: one per kind, made from the models.

``python -m reconciler.manifests.schema DIR`` writes them, and those of the commands' outputs, below a directory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from pydantic.json_schema import GenerateJsonSchema

from reconciler.manifests import outputs
from reconciler.manifests.kinds import KINDS
from reconciler.model import compute, units
from reconciler.model.facts import Json

Schema: TypeAlias = "dict[str, Json]"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Leaves titles to the field types: pydantic's own repeat the field's name."""

    def field_title_should_be_set(self, _schema: object) -> bool:
        return False


def json_schemas() -> dict[str, Schema]:
    """Give the schema of every kind, by kind. A key whose value is null is at its default, so null is allowed."""
    schemas: dict[str, Schema] = {}
    for kind, model in KINDS.items():
        schema: Schema = model.model_json_schema(by_alias=True, schema_generator=_Generator)
        for section in _sections(schema):
            _finish(section)
        schemas[kind] = {"$schema": _DIALECT, "$id": f"urn:vectl:ve:v1:{kind}", **schema}
    return schemas


def _sections(schema: Schema) -> Iterator[Schema]:
    definitions = schema.get("$defs")
    for section in (schema, *(definitions.values() if isinstance(definitions, dict) else ())):
        if isinstance(section, dict) and "properties" in section:
            yield section


def _finish(section: Schema) -> None:
    properties, required = section["properties"], section.get("required")
    assert isinstance(properties, dict)  # JSON Schema's own rule
    for name, field in properties.items():
        if isinstance(field, dict):
            _write_default(field)
            if not isinstance(required, list) or name not in required:
                properties[name] = _or_null(field)


def _write_default(field: Schema) -> None:
    """Put a default as people would write it; leave it out where there is no way to write it."""
    written = _written_default(field)
    field.pop("default", None)
    if written is not None:
        field["default"] = written


def _written_default(field: Mapping[str, Json]) -> Json:
    """Give a field's default as people write it in a manifest, or None where it is just left out."""
    default, title = field.get("default"), str(field.get("title", ""))
    if default is None:
        return "unlimited" if "default" in field and title.endswith("or unlimited") else None
    if not isinstance(default, int | float) or isinstance(default, bool):
        return default
    if title.startswith("size"):
        return units.format_size(int(default)) if default else 0
    if title == "duration":
        return units.format_duration(default)
    if title.startswith("CPUs"):
        return float(f"{default / compute.CPU_PERIOD_US:g}") if default else 0
    return default


def _or_null(field: Schema) -> Schema:
    match field:
        case {"anyOf": list() as choices}:
            return {**field, "anyOf": choices if {"type": "null"} in choices else [*choices, {"type": "null"}]}
        case {"type": str() as name} if "enum" not in field and "const" not in field:
            return {**field, "type": [name, "null"]}
        case {"type": list() as names}:
            return {**field, "type": [*names, "null"]}
    described: Schema = {key: field[key] for key in ("description", "default") if key in field}
    bare = {key: value for key, value in field.items() if key not in described}
    return {**described, "anyOf": [bare, {"type": "null"}]}


def rendered() -> dict[str, str]:
    """Give the content of every schema file by its path below the folder of schemas."""
    files = {f"{kind}.json": schema for kind, schema in json_schemas().items()}
    files |= {f"output/{name}.json": schema for name, schema in outputs.json_schemas().items()}
    return {path: f"{json.dumps(schema, indent=2, ensure_ascii=False)}\n" for path, schema in sorted(files.items())}


def main(directory: str) -> None:
    """Write every schema file below a directory."""
    for path, text in rendered().items():
        target = Path(directory, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
