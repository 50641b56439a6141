"""Where the parts of a document stand in its text, for a change that leaves every other character as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ruamel.yaml import events

from reconciler.manifests import scalars
from reconciler.manifests.problem import Path

_BLOCK_SCALARS = ("|", ">")
_COLON = re.compile(r"[ \t]*:")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|(?<![^\s])#[^\r\n]*)*")
"""What may stand between two tokens: space, line ends and comments, which begin after space or a line's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value as it was written.

    Shape: ``style`` is the mark that a scalar begins with, "" for a plain one; of a collection ``{`` and ``[`` in
    flow style, "" in block style. ``entries`` is None for a scalar. An empty plain scalar has no place of its own.
    Units: ``start`` and ``end`` are characters from the beginning of the text, ``end`` is the first one beyond.
    """

    start: int
    end: int
    style: str
    entries: tuple[Entry, ...] | None = None
    is_map: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is written."""
        return self.entries is None and self.start == self.end

    @property
    def is_block(self) -> bool:
        """Whether it is a collection in block style."""
        return self.entries is not None and not self.style


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of a collection. ``key`` with its place, None in a list; ``opened``: right after its colon or dash.

    ``begin``: where it begins, with its dash or key. ``opened`` is None for a key of a flow map without a colon.
    """

    key: str | None
    begin: int
    key_end: int
    opened: int | None
    value: Node

    @property
    def end(self) -> int:
        """The first character beyond it."""
        return (self.key_end if self.opened is None else self.opened) if self.value.is_empty else self.value.end


def compose(stream: Iterable[events.Event], text: str) -> tuple[Node, ...]:
    """Lay out the documents of a text; those that hold nothing are left out. The text is free of problems."""
    rest = iter(stream)
    documents = []
    for event in rest:
        if isinstance(event, events.DocumentStartEvent):
            first = next(rest)
            node = _node(first, rest, text)
            if not _is_nothing(first):
                documents.append(node)
    return tuple(documents)


def at(node: Node, path: Path) -> Node:
    """Find the node of a path that is there."""
    for part in path:
        node = entry(node, part).value
    return node


def entry(node: Node, part: str | int) -> Entry:
    """Find the entry of a collection that is there."""
    assert node.entries is not None  # the path was found in the value
    return node.entries[part] if isinstance(part, int) else next(one for one in node.entries if one.key == part)


def skip(text: str, position: int) -> int:
    """Give the position of the next token from the end of the one before."""
    match = _BETWEEN.match(text, position)
    assert match is not None  # it matches nothing too
    return match.end()


def _is_nothing(event: events.Event) -> bool:
    return isinstance(event, events.ScalarEvent) and event.implicit[0] and scalars.resolve(event.value) is None


def _node(event: events.Event, rest: Iterator[events.Event], text: str) -> Node:
    start, end = event.start_mark.index, event.end_mark.index
    match event:
        case events.MappingStartEvent():
            return _map(start, rest, text, flow=bool(event.flow_style))
        case events.SequenceStartEvent():
            return _list(start, rest, text, flow=bool(event.flow_style))
        case events.ScalarEvent():
            style = event.style or ""
            return Node(start=start, end=_trimmed(text, start, end, style), style=style)
    raise AssertionError(event)  # the reader refuses aliases


def _trimmed(text: str, start: int, end: int, style: str) -> int:
    """Leave out the blank lines after a block scalar that are no part of its value."""
    header = text[start:end].split("\n", 1)[0]
    return start + len(text[start:end].rstrip()) if style in _BLOCK_SCALARS and "+" not in header else end


def _map(start: int, rest: Iterator[events.Event], text: str, *, flow: bool) -> Node:
    entries: list[Entry] = []
    for event in rest:
        if isinstance(event, events.MappingEndEvent):
            return _collection(start, event.end_mark.index, entries, flow=flow, style="{", is_map=True)
        key_end = event.end_mark.index
        colon = _COLON.match(text, key_end)
        value = _node(next(rest), rest, text)
        assert isinstance(event, events.ScalarEvent)  # the reader refuses other keys
        opened = colon.end() if colon else None
        begin = event.start_mark.index
        entries.append(Entry(key=event.value, begin=begin, key_end=key_end, opened=opened, value=value))
    raise AssertionError("a map has an end")


def _list(start: int, rest: Iterator[events.Event], text: str, *, flow: bool) -> Node:
    entries: list[Entry] = []
    last = start + 1 if flow else start
    for event in rest:
        if isinstance(event, events.SequenceEndEvent):
            return _collection(start, event.end_mark.index, entries, flow=flow, style="[", is_map=False)
        value_start = event.start_mark.index
        begin = value_start if flow else skip(text, last)
        opened = begin if flow else begin + 1
        value = _node(event, rest, text)
        entries.append(Entry(key=None, begin=begin, key_end=begin, opened=opened, value=value))
        last = entries[-1].end
    raise AssertionError("a list has an end")


def _collection(start: int, end: int, entries: list[Entry], *, flow: bool, style: str, is_map: bool) -> Node:
    """Build a collection; one in block style ends with its last entry, not with the comments behind that."""
    end = end if flow or not entries else entries[-1].end
    return Node(start=start, end=end, style=style if flow else "", entries=tuple(entries), is_map=is_map)
