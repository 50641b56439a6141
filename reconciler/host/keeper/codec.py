"""Frozen dataclasses to JSON and back, checked against their annotations."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reconciler.errors import KeeperError

T = TypeVar("T")


def to_json(value: object) -> object:
    """Turn dataclasses, mappings and tuples into what JSON has.

    Shape: a dataclass becomes an object of its fields.
    """
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: object) -> T:
    """Build a value of a type out of what `to_json` made of one; unknown fields are passed over.

    Raises: KeeperError, naming the field that is missing or of another type.
    """
    built: T = _build(kind, value, kind.__name__)
    return built


def _build(kind: Any, value: object, where: str) -> Any:  # Any: types at run time have no static type
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin is tuple and isinstance(value, list):
        return _build_tuple(get_args(kind), value, where)
    if origin is Mapping and isinstance(value, dict):
        return {key: _build(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (Union, types.UnionType):
        return None if value is None else _build(get_args(kind)[0], value, where)
    if origin is Literal and value in get_args(kind):
        return value
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise KeeperError(f"read message: expected {kind} as {where}, got {value!r:.100}")


def _build_dataclass(kind: Any, value: object, where: str) -> Any:  # Any: as above
    if not isinstance(value, dict):
        raise KeeperError(f"read message: expected an object as {where}, got {value!r:.100}")
    hints = _hints(kind)
    known = {name: _build(hints[name], value[name], f"{where}.{name}") for name in hints if name in value}
    try:
        return kind(**known)
    except TypeError as err:
        raise KeeperError(f"read message: {where}: {err}") from err


@cache
def _hints(kind: Any) -> Mapping[str, Any]:  # Any: as above
    return get_type_hints(kind)


def _build_tuple(kinds: tuple[Any, ...], value: list[object], where: str) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is ...:
        return tuple(_build(kinds[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if len(kinds) != len(value):
        raise KeeperError(f"read message: expected {len(kinds)} values as {where}, got {len(value)}")
    return tuple(_build(kind, item, f"{where}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value)))
