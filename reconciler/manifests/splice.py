"""One change to a file of manifests that leaves every other character as it is: comments, quotes, order, line ends.

The text is cut at the places where the YAML parser found its parts. What comes of it is read again and compared with
what was meant, so that a file is changed rightly or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.errors import ManifestError
from reconciler.manifests import splice_flow, yaml_layout, yaml_reader
from reconciler.manifests.changed import Missing, NewEntry, as_list, grown, with_value, without
from reconciler.manifests.inline import Style, inline, quoted
from reconciler.manifests.problem import Path
from reconciler.manifests.yaml_layout import Entry, Node
from reconciler.model.facts import Json

BOM = "\ufeff"
_BARE_RETURN = re.compile(r"\r(?!\n)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The characters from ``start`` up to ``end`` become ``text``."""

    start: int
    end: int
    text: str


def put(data: bytes, index: int, path: Path, missing: Missing, value: Json, *, raw: str = "") -> bytes:
    """Set a value of the document with a number in a file. ``raw``: how a person wrote a value that is no text.

    Raises: ManifestError, if it cannot be done without touching more than that.
    """
    return _Editor.open(data, index).put(path, missing, value, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A value to set; the fields as `put` takes them."""

    index: int
    path: Path
    missing: Missing
    value: Json


def put_all(data: bytes, wanted: Sequence[Put]) -> bytes:
    """Set values of several documents of a file, of each one, as `put` does.

    Raises: ManifestError, as `put`.
    """
    if not wanted:
        return data
    editors = _Editor.open_each(data, [one.index for one in wanted])
    values, cuts = list(editors[0].values), []
    for editor, one in zip(editors, wanted, strict=True):
        cuts += editor.cuts(one.path, one.missing, one.value, "")
        values[one.index] = with_value(values[one.index], one.path, one.missing, one.value)
    return editors[0].joined(sorted(cuts, key=lambda cut: cut.start), values)


def remove(data: bytes, index: int, path: Path) -> bytes:
    """Remove an entry of a map or list that has others.

    Raises: ManifestError, as `put`.
    """
    return _Editor.open(data, index).remove(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Editor:
    """A document in its file. ``step``: how much deeper a map is indented, ``list_step`` a list; ``newline``: its own.

    Units: ``step`` and ``list_step`` are characters.
    """

    text: str
    index: int
    values: tuple[Json, ...]
    root: Node
    has_bom: bool
    step: int
    list_step: int
    newline: str
    quote: str

    @classmethod
    def open(cls, data: bytes, index: int) -> _Editor:
        return cls.open_each(data, [index])[0]

    @classmethod
    def open_each(cls, data: bytes, indexes: Iterable[int]) -> list[_Editor]:
        """Open documents of one file."""
        read = yaml_reader.read(data)
        problems = [*read.problems, *(problem for document in read.documents for problem in document.problems)]
        if problems:
            line = problems[0].mark[0] if problems[0].mark else 1
            raise ManifestError(f"edit line {line}: {problems[0].message}; mend the file by hand first")
        text = data.decode()
        bare = text.removeprefix(BOM)
        values, roots = tuple(document.value for document in read.documents), yaml_reader.lay_out(bare)
        return [cls._of(bare, index, values, roots[index], has_bom=bare != text) for index in indexes]

    @classmethod
    def _of(cls, bare: str, index: int, values: tuple[Json, ...], root: Node, *, has_bom: bool) -> _Editor:
        if _BARE_RETURN.search(bare) or any(_has_marked_key(one) for one in (root, *_collections(root))):
            raise ManifestError("edit: it has keys marked by '?', or lines that end as nobody's do; change it by hand")
        step, list_step = _steps(bare, root)
        return cls(
            text=bare,
            index=index,
            values=values,
            root=root,
            has_bom=has_bom,
            step=step,
            list_step=list_step,
            newline="\r\n" if "\r\n" in bare else "\n",
            quote="'" if bare.count("'") > bare.count('"') else '"',
        )

    def put(self, path: Path, missing: Missing, value: Json, raw: str) -> bytes:
        intended = with_value(self.values[self.index], path, missing, value)
        return self._cut(self.cuts(path, missing, value, raw), intended)

    def cuts(self, path: Path, missing: Missing, value: Json, raw: str) -> list[Cut]:
        """Give what sets a value."""
        node = yaml_layout.at(self.root, path)
        if not missing:
            return self._replaced(path, node, value, raw)
        if node.entries:
            return self._added(path, node, missing, value, raw)
        if self._is_block_gap(path, node, missing):
            return self._opened(path, missing, value, raw)
        return self._replaced(path, node, grown(None, missing, value), "")

    def remove(self, path: Path) -> bytes:
        holder = yaml_layout.at(self.root, path[:-1])
        assert holder.entries is not None  # the path is there
        entry = yaml_layout.entry(holder, path[-1])
        number = holder.entries.index(entry)
        cut = self._removed(holder, number) if holder.is_block else splice_flow.removed(holder.entries, number)
        return self._cut([Cut(start=cut[0], end=cut[1], text="")], without(self.values[self.index], path))

    def _cut(self, cuts: Iterable[Cut], intended: Json) -> bytes:
        wanted = [intended if number == self.index else value for number, value in enumerate(self.values)]
        return self.joined(cuts, wanted)

    def joined(self, cuts: Iterable[Cut], wanted: Sequence[Json]) -> bytes:
        """Carry out cuts, in their order, and see whether what they give is what was meant, document by document."""
        pieces, done = [BOM if self.has_bom else ""], 0
        for cut in cuts:
            pieces += [self.text[done : cut.start], cut.text]
            done = cut.end
        data = "".join([*pieces, self.text[done:]]).encode()
        found = yaml_reader.read(data)
        if found.problems or repr([one.value for one in found.documents]) != repr(list(wanted)):
            raise ManifestError("edit: it cannot be set without rewriting more of the file; change it by hand")
        return data

    # A value in place of another

    def _replaced(self, path: Path, node: Node, value: Json, raw: str) -> list[Cut]:
        style = self._style(path)
        if node.is_block:
            return self._block_replaced(path, node, value, style)
        if node.style in ("|", ">"):
            return [
                Cut(start=node.start, end=node.start + len(self._written(node).rstrip()), text=inline(value, style))
            ]
        if node.is_empty:
            return [self._filled(self._entry(path), value, raw, style)]
        new = quoted(value, node.style) if isinstance(value, str) and node.style in ('"', "'") else None
        return [Cut(start=node.start, end=node.end, text=new or _leaf(value, raw, style))]

    def _filled(self, entry: Entry, value: Json, raw: str, style: Style) -> Cut:
        text = _leaf(value, raw, style)
        if entry.opened is None:
            return Cut(start=entry.key_end, end=entry.key_end, text=f": {text}")
        return Cut(start=entry.opened, end=entry.opened, text=f" {text}")

    def _block_replaced(self, path: Path, node: Node, value: Json, style: Style) -> list[Cut]:
        same_kind = isinstance(value, dict if node.is_map else list) and value
        if same_kind:
            indent = self.newline + " " * self._column(node.start)
            return [Cut(start=node.start, end=node.end, text=indent.join(_lines(value, style)))]
        entry = self._entry(path)
        assert entry.opened is not None  # nothing in block style hangs on a key without a colon
        text = f" {inline(value, style)}"
        first = self._line_end(entry.opened)
        if first > node.start:
            return [Cut(start=entry.opened, end=node.end, text=text)]
        return [Cut(start=entry.opened, end=entry.opened, text=text), Cut(start=first, end=node.end, text="")]

    # A value where there was none

    def _added(self, path: Path, node: Node, missing: Missing, value: Json, raw: str) -> list[Cut]:
        assert node.entries  # asked for by the caller
        style = self._style(path)
        if not node.is_block:
            style = splice_flow.style_of(node, style)
            text = _flow_entry(missing, value, raw, style)
            return [Cut(start=at, end=at, text=new) for at, new in splice_flow.added(self.text, node, text)]
        block = self._prefers_block(node)
        lines = self._entry_lines(missing, value, raw, style, block=block)
        return [self._lines_after(node.end, lines, " " * self._column(node.entries[0].begin))]

    def _is_block_gap(self, path: Path, node: Node, missing: Missing) -> bool:
        """Say whether an empty value is one that lines below its key fill in."""
        if not node.is_empty or not path or isinstance(path[-1], int) or self._in_flow(path):
            return False
        return isinstance(missing[0], str) and self._prefers_block(yaml_layout.at(self.root, path[:-1]))

    def _opened(self, path: Path, missing: Missing, value: Json, raw: str) -> list[Cut]:
        entry = self._entry(path)
        lines = self._entry_lines(missing, value, raw, self._style(path), block=True)
        return [self._lines_after(entry.end, lines, " " * (self._column(entry.begin) + self.step))]

    def _lines_after(self, end: int, lines: Sequence[str], indent: str) -> Cut:
        """Write lines below the line that a value ends in."""
        block = self.newline.join(indent + line for line in lines)
        if self.text[:end].endswith("\n"):
            return Cut(start=end, end=end, text=f"{block}{self.newline}")
        end = self._line_end(end)
        return Cut(start=end, end=end, text=f"{self.newline}{block}")

    def _entry_lines(self, missing: Missing, value: Json, raw: str, style: Style, *, block: bool) -> list[str]:
        """Write what is missing below a collection in block style; only what a person gave is on one line."""
        first, rest = missing[0], missing[1:]
        if isinstance(first, NewEntry):
            own = f"{first.field}: {inline(first.key, style)}"
            if not block or not rest:
                (made,) = as_list(grown(None, missing, value))
                return [f"- {inline(made, style)}"]
            below = self._entry_lines(rest, value, raw, style, block=block)
            return [f"- {own}", *(f"  {line}" for line in below)]
        key = inline(first, style)
        if not rest:
            return [f"{key}: {_leaf(value, raw, style)}"]
        if not block:
            return [f"{key}: {inline(grown(None, rest, value), style)}"]
        step = " " * (self.list_step if isinstance(rest[0], NewEntry) else self.step)
        return [f"{key}:", *(step + line for line in self._entry_lines(rest, value, raw, style, block=block))]

    def _prefers_block(self, node: Node) -> bool:
        """Say how collections below a node are written: as those beside it are, else as most of the document."""
        beside = [entry.value for entry in node.entries or () if entry.value.entries]
        found = [one.is_block for one in beside] or [one.is_block for one in _collections(self.root)]
        return 2 * sum(found) >= len(found)

    # An entry less

    def _removed(self, holder: Node, number: int) -> tuple[int, int]:
        """Give the characters of an entry in block style: its lines, or where it shares one, up to the next entry."""
        assert holder.entries is not None
        entry = holder.entries[number]
        start = self.text.rfind("\n", 0, entry.begin) + 1
        if self.text[start : entry.begin].strip():
            return entry.begin, holder.entries[number + 1].begin
        if self.text[: entry.end].endswith("\n"):
            return start, entry.end
        end = self._line_end(entry.end)
        newline = self.newline if self.text.startswith(self.newline, end) else self.text[end : end + 1]
        return start, end + len(newline)

    # Where things stand

    def _style(self, path: Path) -> Style:
        style = Style(quote=self.quote, flow=self._in_flow(path))
        return splice_flow.style_of(yaml_layout.at(self.root, path[:-1]), style) if style.flow else style

    def _in_flow(self, path: Path) -> bool:
        return any(yaml_layout.at(self.root, path[:length]).style in ("{", "[") for length in range(len(path)))

    def _entry(self, path: Path) -> Entry:
        return yaml_layout.entry(yaml_layout.at(self.root, path[:-1]), path[-1])

    def _written(self, node: Node) -> str:
        return self.text[node.start : node.end]

    def _column(self, position: int) -> int:
        return position - self.text.rfind("\n", 0, position) - 1

    def _line_end(self, position: int) -> int:
        end = self.text.find("\n", position)
        end = len(self.text) if end < 0 else end
        return end - 1 if self.text[position:end].endswith("\r") else end


def _has_marked_key(node: Node) -> bool:
    """Say whether a key in block style stands behind a question mark, with its colon on another line."""
    return node.is_block and any(entry.opened is None for entry in node.entries or ())


def _leaf(value: Json, raw: str, style: Style) -> str:
    """Write a value on one line, a number as a person did."""
    return raw if raw and isinstance(value, int | float) else inline(value, style)


def _flow_entry(missing: Missing, value: Json, raw: str, style: Style) -> str:
    first, rest = missing[0], missing[1:]
    if isinstance(first, NewEntry):
        (made,) = as_list(grown(None, missing, value))
        return inline(made, style)
    below = inline(grown(None, rest, value), style) if rest else _leaf(value, raw, style)
    return f"{inline(first, style)}: {below}"


def _lines(value: Json, style: Style) -> list[str]:
    """Write a collection in block style, each of its entries on one line."""
    if isinstance(value, dict):
        return [f"{inline(key, style)}: {inline(item, style)}" for key, item in value.items()]
    return [f"- {inline(item, style)}" for item in as_list(value)]


def _collections(node: Node) -> Iterable[Node]:
    for entry in node.entries or ():
        if entry.value.entries:
            yield entry.value
            yield from _collections(entry.value)


def _steps(text: str, root: Node) -> tuple[int, int]:
    """Give how far maps and lists are indented below their keys, as the first of each kind is."""
    found: dict[bool, int] = {}
    for holder in (root, *_collections(root)):
        for entry in (holder.entries or ()) if holder.is_map and holder.is_block else ():
            if entry.value.is_block and entry.value.entries:
                column = _column_in(text, entry.value.start) - _column_in(text, entry.begin)
                found.setdefault(entry.value.is_map, column)
    return found.get(True, 2), found.get(False, found.get(True, 2))


def _column_in(text: str, position: int) -> int:
    return position - text.rfind("\n", 0, position) - 1
