"""Configurations: lines of ``KEY="value"``, which look like shell and are not: nothing in them is evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.importing.report import Ledger, Outcome, Setting

BYTES_MAX = 1 << 20
LINES_MAX = 20_000
VALUE_MAX = 16_384
_VALUE_LINES_MAX = 100

_KEY = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]{0,63})=(.*)\Z", re.DOTALL)
_NEXT = re.compile(r"\s*(?:export\s+)?[A-Z_][A-Z0-9_]*=")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?\Z', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?\Z", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXPANDS = re.compile(r"(?<!\\)(?:`|\$[A-Za-z_({0-9@*#?!])")
_VEID = re.compile(r"\$(?:VEID\b|\{VEID\})")
_SECRET = frozenset({"VE_ENVIRONMENT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration. ``below``: the global one, whose keys count where this one has none."""

    file: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    below: Mapping[str, Setting] = field(default_factory=dict)

    def get(self, key: str) -> Setting | None:
        """Give a key with its value, its own or the global one."""
        return self.settings.get(key) or self.below.get(key)

    def all(self) -> Mapping[str, Setting]:
        """Give all keys that count."""
        return {**self.below, **self.settings}


def parse(file: str, data: bytes, ledger: Ledger, *, veid: str = "") -> dict[str, Setting]:
    """Read a configuration; what is no setting, comes twice or is more than a value is told and left out.

    ``veid``: what ``$VEID`` stands for.
    """
    settings: dict[str, Setting] = {}
    for line, text in _logical_lines(file, data, ledger):
        setting = _setting(file, line, text, ledger, veid)
        if setting is None:
            continue
        first = settings.setdefault(setting.key, setting)
        if first is not setting:
            ledger.note(setting, Outcome.DROPPED, f"the key is in line {first.line} already, and the first counts")
    return settings


def _logical_lines(file: str, data: bytes, ledger: Ledger) -> Iterator[tuple[int, str]]:
    """Give lines with their numbers; a value in quotes, or a backslash at the end, joins several."""
    lines = data[:BYTES_MAX].decode("utf-8", errors="replace").split("\n")
    if len(data) > BYTES_MAX or len(lines) > LINES_MAX:
        here = Setting(file=file, line=0, key="")
        ledger.note(here, Outcome.DROPPED, f"only {LINES_MAX} lines and {BYTES_MAX} bytes of a file are read")
        lines = lines[:LINES_MAX]
    at = 0
    while at < len(lines):
        begun, text = at, lines[at].rstrip("\r")
        at += 1
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        while text.endswith("\\") and at < len(lines) and at - begun < _VALUE_LINES_MAX:
            text, at = text[:-1] + lines[at].rstrip("\r"), at + 1
        if (joined := _joined(text, lines, at)) is not None:
            text, at = joined
        yield begun + 1, text


def _joined(text: str, lines: list[str], at: int) -> tuple[str, int] | None:
    """Give a value whose quote is closed on a later line, before another setting begins."""
    match = _KEY.match(text)
    if match is None or not match[2].startswith('"') or match[2].count('"') - match[2].count('\\"') != 1:
        return None
    for end in range(at, min(at + _VALUE_LINES_MAX, len(lines))):
        if _NEXT.match(lines[end]):
            return None
        if '"' in lines[end]:
            return " ".join([text, *(line.strip() for line in lines[at : end + 1])]), end + 1
    return None


def _setting(file: str, line: int, text: str, ledger: Ledger, veid: str) -> Setting | None:
    match = _KEY.match(text)
    if match is None:
        ledger.note(Setting(file=file, line=line, key=text.strip()), Outcome.DROPPED, "expected KEY=value")
        return None
    key, raw = match[1], match[2]
    if veid:
        raw = _VEID.sub(veid, raw)
    part = _part(raw)
    value = part or ""
    if not raw.startswith("'"):
        value = _ESCAPED.sub(r"\1", value)
    setting = Setting(file=file, line=line, key=key, value=value, secret=key in _SECRET)
    if (why := _refusal(raw, part)) is not None:
        ledger.note(setting, Outcome.DROPPED, why)
        return None
    return setting


def _refusal(raw: str, part: str | None) -> str | None:
    if part is None:
        return "expected a value whose quote is closed"
    if len(part) > VALUE_MAX:
        return f"expected a value of at most {VALUE_MAX} characters"
    if _EXPANDS.search(part) and not raw.startswith("'"):
        return "the value is one for a shell to expand, and nothing of it is evaluated; write what it stands for"
    return None


def _part(raw: str) -> str | None:
    """Give what is between the quotes, or before a comment; None if a quote is open."""
    if raw.startswith('"'):
        match = _QUOTED.match(raw)
        if match is not None:
            return match[1]
        end = raw.rfind('"')
        return None if end == 0 else raw[1:end]
    if raw.startswith("'"):
        match = _SINGLE.match(raw)
        return None if match is None else match[1]
    return re.split(r"\s#", raw, maxsplit=1)[0].strip()
