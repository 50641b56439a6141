"""Events of a YAML parser to plain values with positions, refusing what can surprise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import events

from reconciler.manifests import scalars
from reconciler.manifests.problem import Mark, Path, Problem, quoted
from reconciler.model.facts import Json

NODES_MAX: Final = 100_000
DEPTH_MAX: Final = 32
ENTRIES_MAX: Final = 1024
"""Of a list; what compares the entries of one with each other stays quick."""
PROBLEMS_MAX: Final = 50
"""Of one document; further ones would only hide the first."""

INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls, U+0085 among them, a line break to YAML 1.1 alone
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of the text around them
    "\u2028\u2029\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
"""Characters that do not show, or make what shows differ from what is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDocument:
    """A document as it was written. ``values`` and ``keys``: where each value and each key of a map stands."""

    value: Json
    values: Mapping[Path, Mark]
    keys: Mapping[Path, Mark]
    problems: tuple[Problem, ...] = ()

    def mark(self, path: Path, *, at_key: bool = False) -> Mark:
        """Find the position of a value or a key; where it was not written, of what holds it."""
        if at_key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))


class AbandonedError(Exception):
    """A file is beyond a limit; what follows in it is not read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(slots=True)
class _Frame:
    """A collection that is being read. ``key``: the key of a map whose value comes next."""

    path: Path
    items: list[Json] | None
    pairs: dict[str, Json]
    key: str | None = None


@dataclass(slots=True)
class Builder:
    """Builds the documents of one file. Those that were complete when it is abandoned are kept."""

    documents: list[RawDocument] = field(default_factory=list)
    _problems: list[Problem] = field(default_factory=list)
    _stack: list[_Frame] = field(default_factory=list)
    _values: dict[Path, Mark] = field(default_factory=dict)
    _keys: dict[Path, Mark] = field(default_factory=dict)
    _repeated: set[Path] = field(default_factory=set)
    _root: Json = None
    _nodes: int = 0

    @property
    def unfinished(self) -> tuple[Problem, ...]:
        """The problems of a document whose end was not reached."""
        return tuple(self._problems)

    def consume(self, stream: Iterable[events.Event]) -> None:
        """Take in a file's events.

        Raises: AbandonedError.
        """
        # Each handler takes the events of its own type, which a type of this table could not say.
        handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.ScalarEvent: self._scalar,
            events.MappingStartEvent: self._start,
            events.SequenceStartEvent: self._start,
            events.MappingEndEvent: self._end,
            events.SequenceEndEvent: self._end,
            events.AliasEvent: self._alias,
            events.DocumentStartEvent: self._document_start,
            events.DocumentEndEvent: self._document_end,
        }
        for event in stream:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)

    def _document_start(self, event: events.DocumentStartEvent) -> None:
        self._problems, self._values, self._keys, self._repeated, self._root = [], {}, {}, set(), None
        if event.version or event.tags:
            self._complain((), event, "expected no directive", "remove the line that begins with %")

    def _document_end(self, _event: events.DocumentEndEvent) -> None:
        if self._root is None and not self._problems:
            return
        self.documents.append(
            RawDocument(value=self._root, values=self._values, keys=self._keys, problems=tuple(self._problems))
        )
        self._problems = []

    def _scalar(self, event: events.ScalarEvent) -> None:
        path, is_key = self._enter(event), self._expects_key()
        text, plain = event.value, event.implicit[0]
        if not plain and INVISIBLE.search(text):
            self._complain(path, event, "expected text that shows, got an escaped control character")
        if is_key:
            self._key(event, text, plain=plain)
            return
        value: Json = text
        if plain:
            try:
                value = scalars.resolve(text)
            except ValueError as err:
                self._complain(path, event, str(err), "put it in quotes if it is text")
        self._place(path, value, event)
        if plain and not text and path in self._keys:
            # A value that is left out stands nowhere; its key does.
            self._values[path] = self._keys[path]

    def _key(self, event: events.ScalarEvent, text: str, *, plain: bool) -> None:
        frame = self._stack[-1]
        path = (*frame.path, text)
        if plain and not scalars.is_text(text):
            self._complain(frame.path, event, f"expected text as a key, got {quoted(text)}", "put the key in quotes")
        elif plain and text == "<<":
            self._complain(frame.path, event, "expected no merge key", "use a Profile for what several VEs share")
        elif path in self._keys:
            self._repeat(path, event)
        self._keys.setdefault(path, _mark(event))
        frame.key = text

    def _repeat(self, path: Path, event: events.ScalarEvent) -> None:
        """Complain about a key that was there before, unless the whole map that it is in was."""
        if not any(path[:length] in self._repeated for length in range(len(path))):
            message = f"expected each key once, the first is in line {self._keys[path][0]}"
            self._complain(path, event, message, "remove one of them")
        self._repeated.add(path)

    def _start(self, event: events.CollectionStartEvent) -> None:
        path, is_list = self._enter(event), isinstance(event, events.SequenceStartEvent)
        if len(self._stack) == DEPTH_MAX:
            raise AbandonedError(_problem(path, event, f"expected at most {DEPTH_MAX} levels of nesting"))
        frame = _Frame(path=path, items=[] if is_list else None, pairs={})
        self._place(path, frame.pairs if frame.items is None else frame.items, event)
        self._stack.append(frame)

    def _end(self, _event: events.Event) -> None:
        self._stack.pop()

    def _alias(self, event: events.AliasEvent) -> None:
        path = self._count(event)
        self._complain(path, event, "expected no alias", "write the value out, or use a Profile")
        self._place(path, None, event)

    def _count(self, event: events.NodeEvent) -> Path:
        """Count a node, and give the path that its value will have."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise AbandonedError(_problem((), event, f"expected at most {NODES_MAX} values in a file", "split it"))
        return self._next_path()

    def _enter(self, event: events.ScalarEvent | events.CollectionStartEvent) -> Path:
        """Count a node, refuse what it must not carry, and give the path that its value will have."""
        path = self._count(event)
        if event.anchor is not None:
            self._complain(path, event, "expected no anchor", "write the value out, or use a Profile")
        if event.tag is not None:
            self._complain(path, event, f"expected no tag, got {quoted(event.tag)}", "remove it")
        return path

    def _expects_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].items is None and self._stack[-1].key is None

    def _next_path(self) -> Path:
        if not self._stack:
            return ()
        frame = self._stack[-1]
        if frame.items is not None:
            return (*frame.path, len(frame.items))
        return frame.path if frame.key is None else (*frame.path, frame.key)

    def _place(self, path: Path, value: Json, event: events.Event) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is None:
            self._root = value
        elif frame.items is not None:
            if len(frame.items) == ENTRIES_MAX:
                raise AbandonedError(_problem(path, event, f"expected at most {ENTRIES_MAX} entries in a list"))
            frame.items.append(value)
        elif frame.key is None:
            hint = "quote text that begins with [, { or *"
            raise AbandonedError(_problem(path, event, "expected text as a key", hint))
        else:
            frame.pairs.setdefault(frame.key, value)
            frame.key = None
        self._values.setdefault(path, _mark(event))

    def _complain(self, path: Path, event: events.Event, message: str, hint: str = "") -> None:
        self._problems.append(_problem(path, event, message, hint))
        if len(self._problems) > PROBLEMS_MAX:
            raise AbandonedError(_problem((), event, "expected fewer mistakes, the rest was not read"))


def _mark(event: events.Event) -> Mark:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _problem(path: Path, event: events.Event, message: str, hint: str = "") -> Problem:
    return Problem(path=path, message=message, hint=hint, mark=_mark(event))
