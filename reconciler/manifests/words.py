"""Pydantic's errors in plain words: what was expected, what was got, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reconciler.manifests import fields, parsers
from reconciler.manifests.kinds.ve import Profile, VeBody, VirtualEnvironment
from reconciler.manifests.problem import Path, Problem, did_you_mean, listed
from reconciler.model.facts import Json

PROBLEMS_MAX = 100
"""Of one document or file; further ones would only hide the first."""

_KEY_MARK = "[key]"
"""Pydantic's last part of a path that means a key of a map."""

_TRUTH_WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}

Words: TypeAlias = "tuple[str, str]"
"""Message and hint."""

Context: TypeAlias = "Mapping[str, Any]"  # pydantic's own type of it: what an error kind puts there is its own affair


def problems(error: ValidationError, model: type[BaseModel], value: Json) -> Iterator[Problem]:
    """Translate the errors of validating ``value`` as ``model``."""
    for details in error.errors(include_url=False, include_input=False)[:PROBLEMS_MAX]:
        yield _problem(details, model, value)


def field_names(model: type[BaseModel]) -> frozenset[str]:
    """Give the names of a section's fields as manifests write them."""
    return frozenset(info.alias or name for name, info in model.model_fields.items())


def _problem(details: ErrorDetails, model: type[BaseModel], value: Json) -> Problem:
    path: Path = details["loc"]
    kind = details["type"]
    if kind == "extra_forbidden":
        message, hint = _unknown_field(model, path)
        return Problem(path=path, message=message, hint=hint, at_key=True)
    if kind == "missing":
        return Problem(path=path, message="missing field", hint=f"add '{path[-1]}: ...'")
    is_key = path[-1:] == (_KEY_MARK,)
    path = path[:-1] if is_key else path
    got: object = path[-1] if is_key else _value_at(value, path)
    message, hint = _words(details, got)
    return Problem(path=path, message=message, hint=hint, at_key=is_key)


def _value_at(value: Json, path: Path) -> Json:
    for part in path:
        match value, part:
            case dict(), str():
                value = value.get(part)
            case list(), int() if part < len(value):
                value = value[part]
            case _:
                return None
    return value


def _words(details: ErrorDetails, got: object) -> Words:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        error = context["error"]
        return str(error), getattr(error, "hint", "")
    if kind in ("enum", "literal_error"):
        return _choice(context["expected"], got)
    if kind in _TYPES:
        return _wrong_type(kind, got)
    describe = _BOUNDS.get(kind)
    return (details["msg"].lower(), "") if describe is None else (describe(context, parsers.described(got)), "")


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
}


def _wrong_type(kind: str, got: object) -> Words:
    hint, shown = "", parsers.described(got)
    match kind, got:
        case "string_type", bool() | int() | float():
            # Here and below the value is not repeated: it may be a password among the variables of a command.
            hint, shown = "put it in quotes", "true or false" if isinstance(got, bool) else "a number"
        case "dict_type", str() | int() | float():
            shown = "a single value"
        case "bool_type", str() if got.lower() in _TRUTH_WORDS:
            hint = f"did you mean {_TRUTH_WORDS[got.lower()]}?"
        case "tuple_type", str() | int() | float() if len(str(got)) < 64:
            hint = f"did you mean [{got}]?"
        case "int_type" | "float_type", str() if got.isdecimal():
            hint = "remove the quotes"
    return f"expected {_TYPES[kind]}, got {shown}", hint


def _choice(expected: str, got: object) -> Words:
    # Pydantic prints the words it knows as 'a', 'b' or 'c', and no word of ours holds a quote.
    known = expected.split("'")[1::2]
    hint = did_you_mean(got, known) if isinstance(got, str) else ""
    return f"expected {listed(known)}, got {parsers.described(got)}", hint


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


_BOUNDS: Mapping[str, Callable[[Context, str], str]] = {
    "greater_than_equal": lambda context, got: f"expected at least {_plain(context['ge'])}, got {got}",
    "greater_than": lambda context, got: f"expected more than {_plain(context['gt'])}, got {got}",
    "less_than_equal": lambda context, got: f"expected at most {_plain(context['le'])}, got {got}",
    "finite_number": lambda _context, got: f"expected a finite number, got {got}",
    "string_too_long": lambda context, _got: f"expected at most {context['max_length']} characters",
    "string_too_short": lambda context, _got: f"expected at least {context['min_length']} character",
    "too_long": lambda context, _got: f"expected at most {context['max_length']} entries",
    "string_pattern_mismatch": lambda context, got: f"expected {fields.PATTERN_WORDS[context['pattern']]}, got {got}",
}


def _unknown_field(model: type[BaseModel], path: Path) -> Words:
    name, section = str(path[-1]), _section_at(model, path[:-1])
    known = field_names(section) if section is not None else frozenset()
    if model is Profile and (own := _section_at(VirtualEnvironment, path[:-1])) and name in field_names(own):
        return f"a profile may not set {name}", "set it in each VirtualEnvironment"
    if hint := did_you_mean(name, known):
        return "unknown field", hint
    if len(path) == 1 and "spec" in known and name in field_names(VeBody):
        return "unknown field", f"put it below 'spec:', as spec.{name}"
    return "unknown field", f"expected {listed(sorted(known))}" if 0 < len(known) <= 8 else ""


def _section_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    section: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        if section is None:
            return None
        annotations = [info.annotation for name, info in section.model_fields.items() if part in (info.alias, name)]
        section = next((found for annotation in annotations for found in _sections(annotation)), None)
    return section


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
