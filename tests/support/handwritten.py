"""Manifests as hands write them: any mix of styles, quotes, comments, indentation and line ends for a value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from reconciler.model.facts import Json

_PLAIN = ("web1", "512Mi", "unlimited", "/srv/data", "10.20.0.1", "a b", "on-failure")
_QUOTED = ("fd00:20::1/64", "12", "true", "", "#no comment", "it's", 'say "so"', "a: b", "null", "- x", "ü")
_KEYS = ("alpha", "beta", "gamma", "delta", "net.ipv4.ip_forward", "a-b_c")


def value(chance: Random, depth: int = 3) -> Json:
    """Make a value of a document."""
    kind = chance.randrange(8) if depth else chance.randrange(5)
    match kind:
        case 0:
            return chance.choice([0, 7, -3, 1.5, True, False])
        case 1:
            return chance.choice(_QUOTED)
        case 2:
            return None
        case 3 | 4:
            return chance.choice(_PLAIN)
        case 5:
            return [value(chance, depth - 1) for _ in range(chance.randrange(4))]
    keys = chance.sample(_KEYS, chance.randrange(4))
    return {key: value(chance, depth - 1) for key in keys}


@dataclass(slots=True, kw_only=True)
class Hand:
    """One who writes files. ``newline``: the line end of all that they write."""

    chance: Random
    newline: str = "\n"
    comments: int = field(default=0, init=False)
    step: int = field(default=2, init=False)

    def file(self, documents: Sequence[dict[str, Json]]) -> bytes:
        """Write a file, whose documents hold at least one key each."""
        self.step = self.chance.choice([2, 2, 4])
        lines: list[str] = [self._comment()] if self.chance.random() < 0.5 else []
        for number, document in enumerate(documents):
            lines += ["---"] if number or self.chance.random() < 0.3 else []
            as_json = self.chance.random() < 0.1
            lines += [json.dumps(document, ensure_ascii=False)] if as_json else self._map_lines(document)
            lines += self._noise()
        text = self.newline.join(lines) + self.chance.choice(["", self.newline, self.newline])
        return (self.chance.choice(["", "", "\ufeff"]) + text).encode()

    def _comment(self) -> str:
        self.comments += 1
        return f"# note {self.comments}, it's: here"

    def _noise(self) -> list[str]:
        """Write a blank line, or a comment on a line of its own."""
        return [self.chance.choice(["", self._comment()])] if self.chance.random() < 0.15 else []

    def _tail(self) -> str:
        return f"  {self._comment()}" if self.chance.random() < 0.2 else ""

    def _map_lines(self, mapping: dict[str, Json]) -> list[str]:
        lines: list[str] = []
        for key, item in mapping.items():
            lines += self._noise()
            lines += self._hung(f"{self._key(key)}:", item, list_step=self.chance.choice([0, self.step]))
        return lines

    def _list_lines(self, items: list[Json]) -> list[str]:
        lines: list[str] = []
        for item in items:
            lines += self._noise()
            if isinstance(item, dict) and item and self.chance.random() < 0.7:
                below = self._map_lines(item)
                while below[0].strip() == "" or below[0].lstrip().startswith("#"):
                    del below[0]
                lines += [f"- {below[0]}", *(f"  {line}" if line else "" for line in below[1:])]
            else:
                lines += self._hung("-", item, list_step=self.step)
        return lines

    def _hung(self, head: str, item: Json, *, list_step: int) -> list[str]:
        """Write what hangs on a key or a dash."""
        in_block = self.chance.random() < 0.6
        if isinstance(item, dict) and item and in_block and head != "-":
            return [head + self._tail(), *self._indented(self._map_lines(item), self.step)]
        if isinstance(item, list) and item and in_block and head != "-":
            return [head + self._tail(), *self._indented(self._list_lines(item), list_step)]
        if isinstance(item, dict | list) and item and self.chance.random() < 0.3:
            return self._wide(head, item)
        if isinstance(item, str) and item.isascii() and item.isalnum() and self.chance.random() < 0.1:
            return [f"{head} {self.chance.choice(['|-', '>-'])}", " " * self.step + item]
        if item is None and self.chance.random() < 0.5:
            return [head + self._tail()]
        return [f"{head} {self._inline(item, flow=False)}{self._tail()}"]

    def _wide(self, head: str, item: dict[str, Json] | list[Json]) -> list[str]:
        """Write a collection in flow style on several lines."""
        opens, closes = ("{", "}") if isinstance(item, dict) else ("[", "]")
        entries = self._pairs(item) if isinstance(item, dict) else [self._inline(one, flow=True) for one in item]
        last = self.chance.choice(["", ","])
        ends = [","] * (len(entries) - 1) + [last]
        lines = [f"{entry}{end}{self._tail()}" for entry, end in zip(entries, ends, strict=True)]
        return [f"{head} {opens}", *self._indented(lines, 2 * self.step), f"{' ' * self.step}{closes}{self._tail()}"]

    def _indented(self, lines: list[str], step: int) -> list[str]:
        return [" " * step + line if line.strip() else line for line in lines]

    def _key(self, key: str) -> str:
        return self.chance.choice([key, key, key, f'"{key}"', f"'{key}'"])

    def _inline(self, item: Json, *, flow: bool) -> str:
        match item:
            case dict():
                return self.chance.choice(["{%s}", "{ %s }"]) % ", ".join(self._pairs(item))
            case list():
                return f"[{', '.join(self._inline(one, flow=True) for one in item)}]"
            case str():
                return self._text(item)
        return "~" if item is None else json.dumps(item)

    def _pairs(self, mapping: dict[str, Json]) -> list[str]:
        return [f"{self._key(key)}: {self._inline(item, flow=True)}" for key, item in mapping.items()]

    def _text(self, text: str) -> str:
        double, single = json.dumps(text, ensure_ascii=False), "'" + text.replace("'", "''") + "'"
        return self.chance.choice([double, single, *([text, text, text] if text in _PLAIN else [])])
