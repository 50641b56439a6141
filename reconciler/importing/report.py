"""The account of an import: what became of every key, with the file and the line that it stands in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.importing.words import shown
from reconciler.model.facts import Json

FORMAT = 1
"""Number of the report's present format."""

ENTRIES_MAX = 100_000
"""Beyond it the import is refused: nobody reads such a report, and no fleet of one host has so many keys."""


class Outcome(StrEnum):
    """What became of a key.

    mapped: a field says the same. changed: a field says nearly the same. dropped: it is lost, and somebody should know.
    ignored: nothing is lost. guessed: a field that no key says, and that had to have a value.
    """

    MAPPED = "mapped"
    CHANGED = "changed"
    DROPPED = "dropped"
    IGNORED = "ignored"
    GUESSED = "guessed"


TOLD = (Outcome.DROPPED, Outcome.CHANGED, Outcome.GUESSED)
"""What people are told of one by one, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A key with its value, and where it was written. ``secret``: the value is repeated nowhere.

    Units: ``line`` from 1, 0 where it is about the file as a whole.
    """

    file: str
    line: int
    key: str
    value: str = ""
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one key. ``path``: the field of the manifest; ``of``: the object, empty for what is of none."""

    setting: Setting
    outcome: Outcome
    of: str = ""
    path: str = ""
    message: str = ""

    def to_json(self) -> dict[str, Json]:
        """Give it as the report prints it."""
        setting = self.setting
        return {
            "file": setting.file,
            "line": setting.line,
            "key": shown(setting.key),
            "value": None if setting.secret else shown(setting.value),
            "outcome": self.outcome.value,
            "object": self.of,
            "path": self.path,
            "message": self.message,
        }


@dataclass(slots=True)
class Ledger:
    """Collects the entries of an import, in whatever order they come. ``has_failed``: something was left out whole."""

    entries: list[Entry] = field(default_factory=list)
    has_failed: bool = False

    def note(self, setting: Setting, outcome: Outcome, message: str = "", *, of: str = "", path: str = "") -> None:
        """Write down what became of a key."""
        if len(self.entries) < ENTRIES_MAX:
            self.entries.append(Entry(setting=setting, outcome=outcome, of=of, path=path, message=message))

    def fail(self, setting: Setting, message: str, *, of: str = "") -> None:
        """Write down that something was left out whole."""
        self.has_failed = True
        self.note(setting, Outcome.DROPPED, message, of=of)

    def ordered(self) -> list[Entry]:
        """Give the entries by file and line; those of one line in the order in which they came."""
        return sorted(self.entries, key=lambda entry: (entry.setting.file, entry.setting.line))

    def counts(self) -> dict[str, Json]:
        """Count the entries by outcome."""
        return {outcome.value: sum(entry.outcome is outcome for entry in self.entries) for outcome in Outcome}


def told_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Give what people should read, the worst first; what is the same of many is one line, at the first place."""
    groups: dict[tuple[Outcome, str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.outcome, entry.setting.key, entry.path, entry.message), []).append(entry)
    for outcome in TOLD:
        for (of, *_), group in groups.items():
            if of is outcome:
                yield _line(group)


def _line(group: Sequence[Entry]) -> str:
    setting, entry = group[0].setting, group[0]
    place = f"{setting.file}:{setting.line}" if setting.line else setting.file
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    said = "" if setting.secret or not setting.value else f"={shown(setting.value)}"
    field_path = f" -> {entry.path}" if entry.path else ""
    return f"{entry.outcome.value}: {place}{more}: {shown(setting.key)}{said}{field_path}: {entry.message}"
