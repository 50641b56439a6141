"""Explanations of fields for people: type, meaning and default, from the same schema that editors read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import UsageError
from reconciler.manifests import schema
from reconciler.manifests.problem import did_you_mean, listed
from reconciler.model.facts import Json

_VE = "VirtualEnvironment"
_SHORT_NAMES: Mapping[str, str] = {"ve": _VE, "ves": _VE}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDoc:
    """A field, or a kind (then ``name`` is its name and ``path`` is empty).

    Shape: ``path`` as in a finding, with ``[]`` for the entries of lists and ``*`` for free keys; ``type`` in words;
    ``default`` as it would be written in a manifest, empty where the field is just left out; ``values`` the words
    that a closed choice allows, or the keys that a map may have.
    """

    kind: str
    path: str
    name: str
    type: str
    description: str
    default: str = ""
    required: bool = False
    values: tuple[str, ...] = ()
    fields: tuple[FieldDoc, ...] = ()


def describe(path: str) -> FieldDoc:
    """Describe a kind or a field, with the fields right below it.

    Shape: ``Network.spec.mtu``, ``Network.mtu``, ``ve.memory``, or of a VE's spec alone: ``memory.limit``.
    Raises: UsageError, with the nearest name.
    """
    first, *rest = [part.split("[", 1)[0] for part in path.split(".") if part] or [""]
    schemas = schema.json_schemas()
    kinds = {**{kind.lower(): kind for kind in schemas}, **_SHORT_NAMES}
    kind = kinds.get(first.lower())
    if kind is not None:
        return _walk_kind(Node.root(kind, schemas[kind]), rest, path)
    root = Node.root(_VE, schemas[_VE])
    parts = [first, *rest]
    if first not in root.children():
        parts = ["spec", *parts]
    return _walk(root, parts, path, also=tuple(schemas))


def _walk_kind(root: Node, parts: list[str], asked: str) -> FieldDoc:
    """Walk from a kind, whose ``spec`` may be left out."""
    short = bool(parts) and parts[0] not in root.children()
    return _walk(root, ["spec", *parts] if short else parts, asked)


def reference(kind: str) -> Iterator[FieldDoc]:
    """Give every field of a kind, each before those below it."""
    yield from _below(Node.root(kind, schema.json_schemas()[kind]))


def root(kind: str) -> Node:
    """Give the place in the schema where a kind begins."""
    return Node.root(kind, schema.json_schemas()[kind])


def _below(node: Node) -> Iterator[FieldDoc]:
    for child in node.children().values():
        yield child.doc()
        yield from _below(child)


def _walk(node: Node, parts: list[str], asked: str, *, also: tuple[str, ...] = ()) -> FieldDoc:
    for position, part in enumerate(parts, start=1):
        children = node.children()
        found = children.get(part) or children.get("*")
        if found is None and node.is_list and position < len(parts):
            # The key of an entry, as in interfaces.eth0.mtu.
            continue
        if found is None:
            known = [*children, *also] if node.path in ("", "spec") else list(children)
            hint = did_you_mean(part, known) or (f"expected {listed(children)}" if children else "nothing is below it")
            raise UsageError(f"explain {asked}: no field {part!r} in {node.path or node.kind} ({hint})")
        node = found
    return node.doc(with_fields=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A place in a schema. ``field``: the schema there; ``root``: of the kind, for references into it."""

    kind: str
    path: str
    name: str
    field: Mapping[str, Json]
    schema: Mapping[str, Json]
    required: bool = False

    @classmethod
    def root(cls, kind: str, root: Mapping[str, Json]) -> Node:
        """Give the place where a kind begins."""
        return cls(kind=kind, path="", name=kind, field=root, schema=root)

    @property
    def is_list(self) -> bool:
        """Whether a list is there."""
        return self._items() is not None

    def doc(self, *, with_fields: bool = False) -> FieldDoc:
        """Describe the place, or with the fields right below it."""
        core = self._core()
        default = self.field.get("default")
        return FieldDoc(
            kind=self.kind,
            path=self.path,
            name=self.name,
            type=_type_words(core, self._items()),
            description=str(self.field.get("description") or core.get("description") or ""),
            default="" if default in (None, "", [], {}) else _written(default),
            required=self.required,
            values=_values(core) or _values(self._items() or {}) or _values(_keys(core)),
            fields=tuple(child.doc() for child in self.children().values()) if with_fields else (),
        )

    def children(self) -> dict[str, Node]:
        """Give the places right below by key, of a list those below its entries; ``*`` stands for free keys."""
        items = self._items()
        below, suffix = (self._core(), "") if items is None else (items, "[]")
        prefix = f"{self.path}{suffix}." if self.path else ""
        properties, required = below.get("properties"), below.get("required")
        nodes = {
            name: self._child(f"{prefix}{name}", name, field, required=isinstance(required, list) and name in required)
            for name, field in (properties.items() if isinstance(properties, dict) else ())
        }
        patterns, free = below.get("patternProperties"), below.get("additionalProperties")
        if isinstance(patterns, dict):
            free = next(iter(patterns.values()))
        if not nodes and isinstance(free, dict):
            nodes["*"] = self._child(f"{prefix}*", "*", free, required=False)
        return nodes

    def _child(self, path: str, name: str, field: Json, *, required: bool) -> Node:
        assert isinstance(field, dict)  # JSON Schema's own rule
        return Node(kind=self.kind, path=path, name=name, field=field, schema=self.schema, required=required)

    def _core(self) -> Mapping[str, Json]:
        return _core(self.field, self.schema)

    def _items(self) -> Mapping[str, Json] | None:
        items = self._core().get("items")
        return _core(items, self.schema) if isinstance(items, dict) else None


def _core(field: Mapping[str, Json], root: Mapping[str, Json]) -> Mapping[str, Json]:
    """Look through references, and through the choice between a value and null."""
    reference, choices, definitions = field.get("$ref"), field.get("anyOf"), root.get("$defs")
    if isinstance(reference, str) and isinstance(definitions, dict):
        found = definitions[reference.rsplit("/", 1)[1]]
        return _core(found, root) if isinstance(found, dict) else {}
    if isinstance(choices, list) and "title" not in field:
        values = [choice for choice in choices if isinstance(choice, dict) and choice != {"type": "null"}]
        if len(values) == 1:
            return _core(values[0], root)
    return field


def _type_words(core: Mapping[str, Json], items: Mapping[str, Json] | None) -> str:
    if items is not None:
        return f"list of {_type_words(items, None)}"
    if _values(core):
        return "word"
    title = core.get("title")
    if "properties" in core:
        return "map"
    if isinstance(title, str):
        return title
    names = core.get("type")
    name = next((name for name in names if name != "null"), "") if isinstance(names, list) else names
    return {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "map"}.get(
        str(name), str(name)
    )


def _values(core: Mapping[str, Json]) -> tuple[str, ...]:
    words = core.get("enum", [core["const"]] if "const" in core else [])
    return tuple(str(word) for word in words) if isinstance(words, list) else ()


def _keys(core: Mapping[str, Json]) -> Mapping[str, Json]:
    names = core.get("propertyNames")
    return names if isinstance(names, dict) else {}


def _written(value: Json) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(_written(item) for item in value)}]"
        case _:
            return str(value)
