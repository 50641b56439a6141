"""The front door: bytes of a file to plain values with positions, and nothing of YAML that can surprise.

Anchors, aliases, tags, directives, merge keys, duplicate keys and keys that are no text are refused, and so are
invisible characters and files beyond the limits. One pass over the parser's events; no object of the YAML library
leaves this module, and none of its exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ruamel.yaml import YAML, events
from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]  # from a C module that has no types
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from reconciler.manifests.problem import Mark, Problem, ascii_controls
from reconciler.manifests.yaml_builder import INVISIBLE, PROBLEMS_MAX, AbandonedError, Builder, RawDocument
from reconciler.manifests.yaml_layout import Node, compose

BYTES_MAX: Final = 1 << 20

_LOADER_ERRORS = (
    YAMLError,
    RecursionError,
    TypeError,
    ValueError,
    OverflowError,
    AttributeError,
    LookupError,
    AssertionError,
    NotImplementedError,
)
"""What parsers of YAML have been seen to raise for hostile text, beside their own."""

_COLON_IN_FLOW = ("found unexpected ':'", "did not find expected node content")
"""What libyaml 0.1 says of ``{to: web1:80}`` and ``[::1]``, which are right in YAML 1.2.

Source: YAML 1.2.2, section 7.3.3, ns-plain-safe(FLOW-IN).
"""
_SLOW_CHARACTERS_MAX = 128 << 10
"""The parser in Python, which knows YAML 1.2, takes over a second for more. A larger file needs the quotes."""

_KNOWN_BY_THEIR_START = ("found unexpected end of stream", "found unexpected document indicator")
_SYNTAX_HINTS = {
    "found unexpected ':'": "quote text that holds ':'",
    "did not find expected node content": "a value is missing, or text that begins with ':' needs quotes",
    "mapping values are not allowed": "text that holds ': ' needs quotes; or the indentation is off",
    "could not find expected ':'": "each line of a map reads 'key: value'",
    "cannot start any token": "indent with spaces, and quote text that begins with a special character",
    "did not find expected key": "the indentation is off, or text that goes on after a quote needs quotes around all",
    "did not find expected '-' indicator": "entries of one list start in the same column",
    "did not find expected ',' or '": "a bracket or a comma is missing",
    "found unexpected end of stream": "a quote or a bracket is not closed",
    "found unknown escape character": "use 'single quotes', where a backslash is only a backslash",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFile:
    """The documents of a file. ``problems``: what concerns the file; where there are any, documents may be missing."""

    documents: tuple[RawDocument, ...] = ()
    problems: tuple[Problem, ...] = ()


def read(data: bytes) -> RawFile:
    """Read a file's content. Empty documents are left out; never raises for what the file holds."""
    if len(data) > BYTES_MAX:
        return _refused(f"expected a file of at most {BYTES_MAX} bytes, got {len(data)}", "split it")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as err:
        return _refused("expected UTF-8 text", "save the file as UTF-8", mark=_mark_after(data[: err.start].decode()))
    invisible = tuple(_invisible_characters(text))
    return RawFile(problems=invisible) if invisible else _read_text(text)


def lay_out(text: str) -> tuple[Node, ...]:
    """Give where everything stands in a text that `read` found no problems in, document by document as there.

    Shape: ``text`` is without a byte order mark.
    """
    try:
        return compose(_events(text), text)
    except _LOADER_ERRORS:
        return compose(YAML(typ="safe", pure=True).parse(text), text)


def _refused(message: str, hint: str = "", *, mark: Mark = (1, 1)) -> RawFile:
    return RawFile(problems=(Problem(path=(), message=message, hint=hint, mark=mark),))


def _mark_after(before: str) -> Mark:
    lines = re.split("\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


def _invisible_characters(text: str) -> Iterator[Problem]:
    for count, match in enumerate(INVISIBLE.finditer(text)):
        if count == PROBLEMS_MAX:
            return
        yield Problem(
            path=(),
            message=f"expected text that shows, got the control character U+{ord(match[0]):04X}",
            hint="remove it",
            mark=_mark_after(text[: match.start()]),
        )


def _read_text(text: str) -> RawFile:
    found = _build(_events(text))
    if len(text) <= _SLOW_CHARACTERS_MAX and any(_is_colon_in_flow(problem) for problem in found.problems):
        again = _build(YAML(typ="safe", pure=True).parse(text))
        return found if again.problems else again
    return found


def _is_colon_in_flow(problem: Problem) -> bool:
    return problem.message.endswith(_COLON_IN_FLOW)


def _build(stream: Iterator[events.Event]) -> RawFile:
    builder = Builder()
    problems: tuple[Problem, ...] = ()
    try:
        builder.consume(stream)
    except AbandonedError as err:
        problems = (*builder.unfinished, err.problem)
    except _LOADER_ERRORS as err:
        problems = (*builder.unfinished, _syntax_problem(err))
    return RawFile(documents=tuple(builder.documents), problems=problems)


def _events(text: str) -> Iterator[events.Event]:
    parser = CParser(text)
    while (event := parser.get_event()) is not None:
        yield event


def _syntax_problem(err: Exception) -> Problem:
    mark, said = (1, 1), type(err).__name__
    if isinstance(err, MarkedYAMLError):
        place = err.context_mark if err.problem in _KNOWN_BY_THEIR_START else err.problem_mark
        mark = (place.line + 1, place.column + 1) if place is not None else mark
        said = " ".join(str(err.problem or err.context or "").split())
    hint = next((hint for start, hint in _SYNTAX_HINTS.items() if start in said), "")
    return Problem(path=(), message=f"expected YAML, but {ascii_controls(said)}", hint=hint, mark=mark)
