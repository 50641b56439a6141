"""Values of the model as short JSON and back, by their types: what is at its default is left out.

For what this very program wrote a moment ago and keeps for itself; `exchange` is for what others may have written. So
nothing is checked here beyond what building a value needs.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, ForwardRef, NewType, Union, get_args, get_origin, get_type_hints

_PLAIN = (str, int, float, bool, types.NoneType)
_OF_VERSION_4 = (IPv4Address, IPv4Interface, IPv4Network)
_OF_VERSION_6 = (IPv6Address, IPv6Interface, IPv6Network)

_ADDRESSES_MAX = 64
"""How many addresses are known again: making one takes longer than all else of a VE, and it is said twice of each."""

_Step = Callable[..., Any]  # Any, here and below: types at run time have no static type


@dataclass(frozen=True, slots=True)
class Form:
    """How values of a type are written and read; of a dataclass, with fields that were not written.

    ``is_plain``: as they are.
    """

    write: _Step
    read: _Step
    is_plain: bool = False


def _itself(value: Any) -> Any:
    return value


AS_IT_IS = Form(_itself, _itself, is_plain=True)


@cache
def form(kind: Any) -> Form:
    """Give the form of a type: a dataclass, or whatever the fields of one may be.

    Raises: TypeError, for a type that has none.
    """
    while isinstance(kind, NewType):
        kind = kind.__supertype__
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin in (tuple, frozenset):
        return _items(origin, form(arguments[0]))
    if origin in (Mapping, dict):
        return _mapping(*arguments)
    if kind in _PLAIN:
        return AS_IT_IS
    if kind in (*_OF_VERSION_4, *_OF_VERSION_6):
        return Form(str, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Form(lambda value: value.value, kind)
    if is_dataclass(kind):
        return _dataclass(kind)
    raise TypeError(f"write {kind}: expected a type of the model")


def _union(kinds: tuple[Any, ...]) -> Form:
    if any(isinstance(argument, ForwardRef | str) for kind in kinds for argument in get_args(kind)):
        return AS_IT_IS  # JSON itself: the one recursive type
    others = tuple(kind for kind in kinds if kind is not types.NoneType)
    found = _choice(others) if len(others) > 1 else form(others[0])
    return found if found.is_plain or len(others) == len(kinds) else _or_none(found)


def _choice(kinds: tuple[Any, ...]) -> Form:
    if all(form(kind).is_plain for kind in kinds):
        return AS_IT_IS
    if len(kinds) == 2 and kinds[0] in _OF_VERSION_4 and kinds[1] in _OF_VERSION_6:
        return Form(str, lru_cache(_ADDRESSES_MAX)(partial(_address, *kinds)))
    named = {kind.__name__: form(kind) for kind in kinds}
    return Form(
        lambda value: [type(value).__name__, named[type(value).__name__].write(value)],
        lambda pair: named[pair[0]].read(pair[1]),
    )


def _address(four: _Step, six: _Step, text: str) -> object:
    return six(text) if ":" in text else four(text)


def _or_none(found: Form) -> Form:
    write, read = found.write, found.read
    return Form(
        lambda value: None if value is None else write(value), lambda value: None if value is None else read(value)
    )


def _items(kind: type, item: Form) -> Form:
    write, read = item.write, item.read
    if item.is_plain:
        return Form(list, kind)
    return Form(lambda values: [write(value) for value in values], lambda values: kind(map(read, values)))


def _mapping(of_key: Any, of_value: Any) -> Form:
    key, value = form(of_key), form(of_value)
    if key.is_plain and value.is_plain and of_key is not int:
        return Form(dict, dict)
    read_key = int if of_key is int else key.read
    write, read = value.write, value.read
    return Form(
        lambda found: {str(key.write(name)): write(one) for name, one in found.items()},
        lambda found: {read_key(name): read(one) for name, one in found.items()},
    )


def _dataclass(kind: Any) -> Form:
    hints = get_type_hints(kind)
    known = [(each.name, _default(each), form(hints[each.name])) for each in fields(kind) if each.init]
    steps = {name: found.read for name, _, found in known if not found.is_plain}

    def write(value: Any) -> dict[str, Any]:
        found = ((name, default, step, getattr(value, name)) for name, default, step in known)
        return {name: step.write(one) for name, default, step, one in found if not _is_same(one, default)}

    def read(body: dict[str, Any], **given: Any) -> Any:
        return kind(**{name: steps[name](one) if name in steps else one for name, one in body.items()}, **given)

    return Form(write, read)


def _default(of: Field[Any]) -> Any:
    return of.default if of.default_factory is MISSING else of.default_factory()


def _is_same(one: Any, other: Any) -> bool:
    """Compare with the type: 1 is True, and what was written must come back as it was."""
    return type(one) is type(other) and bool(one == other)
