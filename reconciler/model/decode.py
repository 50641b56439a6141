"""JSON that an earlier run or another host wrote, taken apart field by field: nothing is guessed, nothing skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeGuard, TypeVar

from reconciler.errors import StateError
from reconciler.model.facts import Json

_T = TypeVar("_T")


class Fields:
    """A JSON object whose fields are taken one by one; ``where`` and ``remedy`` go into the errors.

    Every getter raises StateError if the field is missing or of another type. `end` must come last.
    """

    __slots__ = ("_data", "_left", "_remedy", "_where")

    def __init__(self, data: Json, *, where: str, remedy: str = "") -> None:
        self._where = where
        self._remedy = remedy
        if not isinstance(data, dict):
            raise self.error(f"expected an object, got {_kind(data)}")
        self._data = data
        self._left = set(data)

    def error(self, problem: str) -> StateError:
        """Build the error for a problem found here."""
        return StateError(f"read {self._where}: {problem}" + (f"; {self._remedy}" if self._remedy else ""))

    def has(self, key: str) -> bool:
        """Say whether a field is there that may be left out."""
        return key in self._data

    def names(self) -> tuple[str, ...]:
        """Name the fields, of an object whose fields are anybody's names."""
        return tuple(self._data)

    def json(self, key: str) -> Json:
        """Take a field of any type."""
        if key not in self._data:
            raise self.error(f"{key!r} is missing")
        self._left.discard(key)
        return self._data[key]

    def text(self, key: str) -> str:
        """Take a string."""
        value = self.json(key)
        return value if isinstance(value, str) else self._refuse(key, "a string", value)

    def optional_text(self, key: str) -> str | None:
        """Take a string or null."""
        return None if self.json(key) is None else self.text(key)

    def integer(self, key: str) -> int:
        """Take an integer; true and false are none."""
        value = self.json(key)
        return value if _is_integer(value) else self._refuse(key, "an integer", value)

    def number(self, key: str) -> float:
        """Take a number, a finite one."""
        value = self.json(key)
        return float(value) if _is_number(value) else self._refuse(key, "a finite number", value)

    def optional_number(self, key: str) -> float | None:
        """Take a number or null."""
        return None if self.json(key) is None else self.number(key)

    def flag(self, key: str) -> bool:
        """Take true or false."""
        value = self.json(key)
        return value if isinstance(value, bool) else self._refuse(key, "true or false", value)

    def word(self, key: str, kind: Callable[[str], _T]) -> _T:
        """Take a string that a closed set of words holds, e.g. an enumeration."""
        value = self.text(key)
        try:
            return kind(value)
        except ValueError:
            return self._refuse(key, "a word that this version knows", value)

    def items(self, key: str) -> list[Json]:
        """Take a list."""
        value = self.json(key)
        return value if isinstance(value, list) else self._refuse(key, "a list", value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of strings."""
        values = self.items(key)
        texts = tuple(value for value in values if isinstance(value, str))
        return texts if len(texts) == len(values) else self._refuse(key, "a list of strings", values)

    def floats(self, key: str) -> list[float]:
        """Take a list of numbers."""
        values = self.items(key)
        floats = [float(value) for value in values if _is_number(value)]
        return floats if len(floats) == len(values) else self._refuse(key, "a list of numbers", values)

    def mapping(self, key: str) -> Mapping[str, Json]:
        """Take an object with keys of any name."""
        value = self.json(key)
        return value if isinstance(value, dict) else self._refuse(key, "an object", value)

    def numbers(self, key: str) -> dict[str, float]:
        """Take an object of numbers."""
        return self._each(key, Fields.number)

    def integers(self, key: str) -> dict[str, int]:
        """Take an object of integers."""
        return self._each(key, Fields.integer)

    def strings(self, key: str) -> dict[str, str]:
        """Take an object of strings."""
        return self._each(key, Fields.text)

    def fields(self, key: str) -> Fields:
        """Take an object, to be taken apart in its turn."""
        return self._inside(self.json(key), key)

    def objects(self, key: str) -> tuple[Fields, ...]:
        """Take a list of objects."""
        return tuple(self._inside(value, f"{key}[{index}]") for index, value in enumerate(self.items(key)))

    def end(self) -> None:
        """Refuse what was not taken: a field that this version does not know may change the meaning of the rest."""
        if self._left:
            raise self.error(f"{min(self._left)!r} is not known to this version")

    def _each(self, key: str, take: Callable[[Fields, str], _T]) -> dict[str, _T]:
        inner = self.fields(key)
        return {name: take(inner, name) for name in inner._data}

    def _inside(self, data: Json, key: str) -> Fields:
        return Fields(data, where=f"{self._where}: {key}", remedy=self._remedy)

    def _refuse(self, key: str, expected: str, value: Json) -> NoReturn:
        raise self.error(f"{key!r}: expected {expected}, got {_kind(value)}")


def parse_object(data: bytes, *, format: int, where: str, remedy: str = "") -> Fields:
    """Parse the text of a file of ours: one JSON object with the number of its ``format``.

    Raises: StateError, if it is damaged or of another format.
    """
    try:
        value: Json = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise StateError(f"read {where}: expected JSON, got {len(data)} bytes that are none" + _tail(remedy)) from err
    fields = Fields(value, where=where, remedy=remedy)
    found = fields.integer("format")
    if found != format:
        raise fields.error(f"expected format {format}, got {found}, perhaps of another version of vectl")
    return fields


def render_object(content: Mapping[str, Json], *, format: int) -> bytes:
    """Give the text of a file of ours, the same for the same content."""
    return (json.dumps({"format": format, **content}, sort_keys=True, allow_nan=False) + "\n").encode()


def _tail(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""


def _refuse_constant(word: str) -> Json:
    raise ValueError(f"{word} is no JSON")


def _is_integer(value: Json) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Json) -> TypeGuard[int | float]:
    """Tell a number that a float can hold; JSON's 1e999 is parsed as infinity."""
    return (_is_integer(value) and abs(value) < 1 << 1023) or (isinstance(value, float) and math.isfinite(value))


def _kind(value: Json) -> str:
    """Name a value's type only: the value may be long, or meant for nobody's log."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
