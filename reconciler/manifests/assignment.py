"""Assignments: what a person wants to be set in a VE, found in its manifest as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.errors import UsageError
from reconciler.manifests import explain, merge, yaml_reader
from reconciler.manifests.changed import Missing, NewEntry
from reconciler.manifests.problem import Path, did_you_mean, listed
from reconciler.model.facts import Json

_TOKEN = re.compile(r"(?P<plain>[^.\[\]=]+)|\[(?P<exact>[^\]]+)\]")
_ROOTS = ("spec", "metadata")
_WORD_OF_TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A part of a path. ``exact``: it stood in brackets, so dots in it are its own."""

    text: str
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A field and what it is to be. ``raw`` as a person wrote it; empty to remove the field from the manifest."""

    name: str
    tokens: tuple[Token, ...]
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A field in a document: ``path`` is what of it is there, ``missing`` what is not, ``named`` all, by keys.

    ``takes_text``: whatever is written is text to it.
    """

    path: Path
    missing: Missing
    named: Path
    takes_text: bool


def parse(text: str) -> Assignment:
    """Parse ``path=value``; ``spec.`` may be left out.

    Raises: UsageError.
    """
    name, equals, raw = _split(text)
    if not equals:
        raise UsageError(f"set {text}: expected path=value, such as memory.limit=1Gi")
    tokens = tuple(_tokens(name))
    if tokens and tokens[0] == Token(text="labels"):
        tokens = (Token(text="metadata"), *tokens)
    elif tokens and tokens[0].text not in _ROOTS:
        tokens = (Token(text="spec"), *tokens)
    if len(tokens) < 2:
        raise UsageError(f"set {text}: expected the path of a field, such as memory.limit")
    return Assignment(name=name.removeprefix("spec."), tokens=tokens, raw=raw.strip())


def _split(text: str) -> tuple[str, str, str]:
    """Split at the first equals sign that is not within brackets."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "=" and depth <= 0:
            return text[:at], "=", text[at + 1 :]
    return text, "", ""


def _tokens(name: str) -> Iterator[Token]:
    at = 0
    while at < len(name):
        match = _TOKEN.match(name, at)
        if match is None:
            raise UsageError(f"set {name}: expected a path such as memory.limit or mounts[/data].readOnly")
        yield Token(text=match["plain"] or match["exact"], exact=match["exact"] is not None)
        at = match.end() + (name[match.end() : match.end() + 1] == ".")


def parse_value(assignment: Assignment, *, takes_text: bool) -> Json:
    """Parse what a field is to be: YAML on one line, or text as it stands for a field that takes nothing else.

    Raises: UsageError.
    """
    raw = assignment.raw
    if takes_text and raw[:1] not in ("'", '"', "[", "{") and raw != "null":
        return raw
    found = yaml_reader.read(raw.encode())
    problems = [*found.problems, *(problem for document in found.documents for problem in document.problems)]
    if problems or len(found.documents) > 1:
        said = problems[0].message if problems else "expected one value"
        raise UsageError(f"set {assignment.name}: {said}; quote what is text")
    return found.documents[0].value if found.documents else None


def schema() -> explain.Node:
    """Give what `find` goes by; whoever looks for many fields makes it once."""
    return explain.root("VirtualEnvironment")


def find(document: Json, assignment: Assignment, *, root: explain.Node | None = None) -> Target:
    """Find the field of an assignment in a VE's document. ``root``: as `schema` gives it.

    Raises: UsageError, for a field that no VE has.
    """
    walk = _Walk(assignment=assignment, value=document, node=root or schema())
    tokens: Sequence[Token] = assignment.tokens
    while tokens:
        tokens = tokens[walk.step(tokens) :]
    return walk.target()


@dataclass(slots=True, kw_only=True)
class _Walk:
    """The way down a document and its schema at once; ``node`` None: what is there is in no schema."""

    assignment: Assignment
    value: Json
    node: explain.Node | None
    path: list[str | int] = field(default_factory=list)
    missing: list[str | NewEntry] = field(default_factory=list)
    named: list[str | int] = field(default_factory=list)
    in_entry: bool = False

    def target(self) -> Target:
        takes_text = self.node is not None and not self.node.is_list and self.node.doc().type == _WORD_OF_TEXT
        return Target(
            path=tuple(self.path), missing=tuple(self.missing), named=tuple(self.named), takes_text=takes_text
        )

    def step(self, tokens: Sequence[Token]) -> int:
        """Go down by one part of the document; give how many tokens name it."""
        if self.node is not None and self.node.is_list and not self.in_entry:
            return self._into_list(tokens)
        children = {} if self.node is None else self.node.children()
        free = children.get("*")
        whole = free is not None and not free.is_list and not free.children() and not tokens[0].exact
        taken = len(tokens) if whole else 1
        key = ".".join(token.text for token in tokens[:taken])
        child = children.get(key) or free
        if child is None and not (isinstance(self.value, dict) and key in self.value):
            raise UsageError(f"set {self.assignment.name}: no field {key!r} there{_hint(key, children)}")
        self._down(key, child)
        return taken

    def _down(self, key: str, child: explain.Node | None) -> None:
        self.named.append(key)
        if not self.missing and isinstance(self.value, dict) and key in self.value:
            self.path.append(key)
            self.value = self.value[key]
        else:
            self.missing.append(key)
            self.value = None
        self.node, self.in_entry = child, False

    def _into_list(self, tokens: Sequence[Token]) -> int:
        self.in_entry = True
        names = tuple(str(part) for part in self.named[1:])
        fields = merge.KEYS_OF_LISTS.get(names)
        if fields is None:
            self._to_position(tokens[0].text)
            return 1
        entries = self.value if isinstance(self.value, list) else []
        keys = [merge.entry_key(names, entry) for entry in entries]
        most = 1 if tokens[0].exact else len(tokens)
        for taken in range(most, 0, -1):
            key = ".".join(token.text for token in tokens[:taken])
            if not self.missing and key in keys:
                self._enter(keys.index(key), key, entries)
                return taken
        key = tokens[0].text
        self.missing.append(_new_entry(fields, key))
        self.named.append(key)
        self.value = None
        return 1

    def _to_position(self, text: str) -> None:
        entries = self.value if isinstance(self.value, list) else []
        if not text.isdecimal() or int(text) >= len(entries):
            raise UsageError(
                f"set {self.assignment.name}: expected the position of one of {len(entries)} entries from 0 on, "
                f"got {text!r}; set the whole list to make it longer"
            )
        self._enter(int(text), int(text), entries)

    def _enter(self, position: int, name: str | int, entries: list[Json]) -> None:
        self.path.append(position)
        self.named.append(name)
        self.value = entries[position]


def _new_entry(fields: tuple[str, ...], key: str) -> NewEntry:
    name = fields[0] if len(fields) == 1 or key.startswith("/") else fields[1]
    return NewEntry(field=name, key=int(key) if name == "id" and key.isdecimal() else key)


def _hint(key: str, children: Mapping[str, explain.Node]) -> str:
    near = did_you_mean(key, children)
    if near:
        return f"; {near}"
    return f"; expected {listed(sorted(children))}" if 0 < len(children) <= 8 else "; see `vectl explain ve`"
