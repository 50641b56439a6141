"""Collections within braces and brackets: where an entry is added or cut out, in the manner of its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from reconciler.manifests.inline import Style
from reconciler.manifests.yaml_layout import Entry, Node, skip

_QUOTES = ('"', "'")
_COMMENT = re.compile(r"[ \t]+#[^\r\n]*")


def style_of(node: Node, style: Style) -> Style:
    """Give the style of a new entry: where the keys beside it are in quotes, as in JSON, so is all its text."""
    texts = [entry.value.style for entry in node.entries or () if entry.value.entries is None]
    quoted = bool(texts) and not node.is_map and all(text in _QUOTES for text in texts)
    keys_quoted = node.is_map and all(
        entry.key_end - entry.begin > len(entry.key or "") for entry in node.entries or ()
    )
    return replace(style, flow=True, all_quoted=quoted or keys_quoted)


def added(text: str, node: Node, new: str) -> Iterator[tuple[int, str]]:
    """Give what is written where, for an entry behind the last of a collection that has some."""
    assert node.entries  # an empty one is replaced
    last = node.entries[-1]
    after = skip(text, last.end)
    has_comma = text.startswith(",", after)
    end = after + 1 if has_comma else last.end
    comment = _COMMENT.match(text, end)
    gap = _gap(text, node)
    if not has_comma:
        yield last.end, ","
    yield comment.end() if comment and "\n" in gap else end, f"{gap}{new}{',' if has_comma else ''}"


def removed(entries: Sequence[Entry], number: int) -> tuple[int, int]:
    """Give the characters of an entry beside others, with the comma that goes with it."""
    if number + 1 < len(entries):
        return entries[number].begin, entries[number + 1].begin
    return entries[number - 1].end, entries[number].end


def _gap(text: str, node: Node) -> str:
    """Give what stands between two entries beside the comma: a blank, or a line end and its indentation."""
    assert node.entries
    before = (
        text[node.start : node.entries[-1].begin]
        if len(node.entries) > 1 or "\n" in text[node.start : node.end]
        else " "
    )
    match = re.search(r"(?:\r?\n)?[ \t]*\Z", before)
    return match[0] if match and (match[0] or len(node.entries) > 1) else " "
