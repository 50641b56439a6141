"""An observation of a host as JSON and back, so that a plan can be made where the host is not.

The form follows the types: a field that a facet adds is carried without a line here. Sets are sorted lists, addresses
are text, what could not be read is ``{"unknown": reason}``.
"""

from __future__ import annotations

import ipaddress
import types
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, ForwardRef, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from reconciler.errors import StateError
from reconciler.model.decode import parse_object, render_object
from reconciler.model.facts import Json, Unknown
from reconciler.model.observation import HostObservation

FORMAT = 1

_REMEDY = "export it again with this version's `vectl observe`"
_UNKNOWN = "unknown"
_TEXTUAL: Mapping[type, Callable[[str], object]] = {
    kind: kind
    for kind in (
        ipaddress.IPv4Address,
        ipaddress.IPv4Interface,
        ipaddress.IPv4Network,
        ipaddress.IPv6Address,
        ipaddress.IPv6Interface,
        ipaddress.IPv6Network,
    )
}


_Value = TypeVar("_Value")


class _MismatchError(Exception):
    """Something is not of the type that its place has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An observation of a host that was exported. Units: ``at`` seconds since the epoch, None where it is not told."""

    host: str
    observed: HostObservation
    at: float | None = None


def encode_observation(host: str, observed: HostObservation, *, at: float | None = None) -> bytes:
    """Give the text of an exported observation, the same for the same observation. Units: as of `Export`."""
    when: dict[str, Json] = {} if at is None else {"at": round(at, 3)}
    return render_object({"host": host, "observed": to_json(observed), **when}, format=FORMAT)


def decode_observation(data: bytes, *, where: str) -> tuple[str, HostObservation]:
    """Parse an exported observation; give the host that it is of as well. ``where``: the file, for the error.

    Raises: StateError.
    """
    export = decode_export(data, where=where)
    return export.host, export.observed


def decode_export(data: bytes, *, where: str) -> Export:
    """Parse an exported observation with all that is said of it. ``where``: the file, for the error.

    Raises: StateError.
    """
    found = parse_object(data, format=FORMAT, where=where, remedy=_REMEDY)
    host, body = found.text("host"), found.json("observed")
    at = found.optional_number("at") if found.has("at") else None
    found.end()
    try:
        observed = from_json(HostObservation, body, "observed")
    except ValueError as err:
        raise found.error(str(err)) from err
    return Export(host=host, observed=observed, at=at)


def from_json(kind: type[_Value], body: Json, where: str) -> _Value:
    """Build a value of the model from what `to_json` made of it. ``where``: its path, for the error.

    Raises: ValueError.
    """
    try:
        found = _build(kind, body, where)
    except _MismatchError as err:
        raise ValueError(str(err)) from err
    assert isinstance(found, kind)
    return found


def to_json(value: object) -> Json:
    """Give the JSON of a value of the model."""
    match value:
        case Enum():
            return to_json(value.value)
        case None | bool() | int() | float() | str():
            return value
        case Unknown(reason=reason):
            return {_UNKNOWN: reason}
        case Mapping():
            return {str(to_json(key)): to_json(item) for key, item in value.items()}
        case Set():
            return sorted((to_json(item) for item in value), key=repr)
        case list() | tuple():
            return [to_json(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    assert type(value) in _TEXTUAL, f"no JSON for {type(value)}"
    return str(value)


@cache
def _hints(kind: type) -> Mapping[str, Any]:  # Any: types at run time have no static type
    return get_type_hints(kind)


def _build(kind: Any, value: Json, where: str) -> object:  # Any: as above
    while isinstance(kind, NewType):
        kind = kind.__supertype__
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(kind), value, where)
    if isinstance(value, dict) and origin is Mapping:
        return _build_mapping(get_args(kind), value, where)
    if isinstance(value, list) and origin in (tuple, frozenset):
        return origin(_build(get_args(kind)[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if isinstance(value, dict) and is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    return _build_scalar(kind, value, where)


def _build_union(kinds: tuple[Any, ...], value: Json, where: str) -> object:  # Any: as above
    if any(isinstance(argument, ForwardRef) for kind in kinds for argument in get_args(kind)):
        return value  # JSON itself: the one recursive type
    if Unknown in kinds and isinstance(value, dict) and value.keys() == {_UNKNOWN}:
        return Unknown(str(value[_UNKNOWN]))
    for kind in kinds:
        if kind is Unknown:
            continue
        try:
            return _build(kind, value, where)
        except _MismatchError:
            if len([other for other in kinds if other not in (Unknown, types.NoneType)]) == 1 and value is not None:
                raise  # the only one that it can be: its own complaint says more
    raise _MismatchError(f"{where}: expected another kind of value than {value!r:.60}")


def _build_mapping(kinds: tuple[Any, ...], value: Mapping[str, Json], where: str) -> object:  # Any: as above
    of_key, of_item = kinds
    return {_build(of_key, key, where): _build(of_item, item, f"{where}.{key}") for key, item in value.items()}


def _build_dataclass(kind: Any, value: Mapping[str, Json], where: str) -> object:  # Any: as above
    hints = _hints(kind)
    if strange := value.keys() - hints.keys():
        raise _MismatchError(f"{where}: {min(strange)!r} is not known to this version")
    known = {name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        built: object = kind(**known)
    except TypeError as err:
        raise _MismatchError(f"{where}: {err}") from err
    return built


def _build_scalar(kind: Any, value: Json, where: str) -> object:  # Any: as above
    if kind is types.NoneType and value is None:
        return None
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    parse = _TEXTUAL.get(kind, kind if isinstance(kind, type) and issubclass(kind, Enum) else None)
    try:
        if parse is not None and isinstance(value, str):
            return parse(value)
    except ValueError as err:
        raise _MismatchError(f"{where}: {err}") from err
    raise _MismatchError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r:.60}")


def check_host(found: str, wanted: str, *, where: str) -> None:
    """Refuse an observation of another host than the one that is planned for.

    Raises: StateError.
    """
    if found != wanted:
        raise StateError(
            f"read {where}: expected an observation of host {wanted}, got one of {found}; name it by --host"
        )
