"""Configurations: lines of ``key: value``, comments that are the description, and sections of snapshots."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from reconciler.importing.report import Ledger, Outcome, Setting

LINES_MAX = 20_000
VALUE_MAX = 16_384
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.\-]{0,127})\s*(?::|=(?=.*)) ?(.*)\Z")
_SECTION = re.compile(r"\s*\[([^\]]{1,128})\]\s*\Z")
_SECRET = frozenset({"env", "lxc.environment", "lxc.environment.runtime"})
PENDING = "pve:pending"


@dataclass(slots=True, kw_only=True)
class Config:
    """A configuration. ``raw``: lines that go to LXC as they are, of which a key may come more than once."""

    file: str
    settings: dict[str, Setting] = field(default_factory=dict)
    raw: list[Setting] = field(default_factory=list)
    sections: list[Setting] = field(default_factory=list)
    description: list[str] = field(default_factory=list)

    def get(self, key: str) -> Setting | None:
        """Give a key with its value."""
        return self.settings.get(key)

    def numbered(self, word: str) -> list[tuple[int, Setting]]:
        """Give the keys that are a word with a number, such as ``net0``, by number."""
        found = [
            (int(key[len(word) :]), setting)
            for key, setting in self.settings.items()
            if key.startswith(word) and key[len(word) :].isdecimal() and len(key) - len(word) < 4
        ]
        return sorted(found, key=lambda one: one[0])


def parse(file: str, data: bytes, ledger: Ledger) -> Config:
    """Read a configuration as it is now; sections of snapshots and of what is pending are only named."""
    config, is_ours = Config(file=file), True
    lines = data.decode("utf-8", errors="replace").split("\n")
    if len(lines) > LINES_MAX:
        here = Setting(file=file, line=0, key="")
        ledger.note(here, Outcome.DROPPED, f"only {LINES_MAX} lines of a file are read")
    for number, line in enumerate(lines[:LINES_MAX], start=1):
        text = line.rstrip("\r")
        if match := _SECTION.match(text):
            is_ours = False
            config.sections.append(Setting(file=file, line=number, key=match[1]))
        elif is_ours and text.startswith("#"):
            config.description.append(unquote(text[1:].strip()))
        elif is_ours and text.strip():
            _take(config, number, text, ledger)
    return config


def _take(config: Config, number: int, text: str, ledger: Ledger) -> None:
    match = _LINE.match(text)
    if match is None or len(match[2]) > VALUE_MAX:
        ledger.note(Setting(file=config.file, line=number, key=text.strip()), Outcome.DROPPED, "expected key: value")
        return
    key = match[1]
    setting = Setting(file=config.file, line=number, key=key, value=match[2].strip(), secret=key in _SECRET)
    if key.startswith("lxc."):
        config.raw.append(setting)
    elif (first := config.settings.setdefault(key, setting)) is not setting:
        ledger.note(first, Outcome.DROPPED, f"the key is in line {number} again, and the last counts")
        config.settings[key] = setting


def options(text: str, default: str = "") -> dict[str, str]:
    """Read ``key=value,key=value``; ``default``: the key of what has none."""
    found: dict[str, str] = {}
    for word in text.split(",")[:256]:
        key, sign, value = word.partition("=")
        if sign:
            found.setdefault(key.strip(), value.strip())
        elif word.strip() and default:
            found.setdefault(default, word.strip())
    return found
