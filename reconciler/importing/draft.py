"""Drafts: manifests in the making, which remember for every field what it was made of and what people should know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.importing.report import Ledger, Outcome, Setting
from reconciler.importing.words import visible
from reconciler.manifests.problem import Path
from reconciler.model.facts import Json

_PART = re.compile(
    r"\.?(?P<name>[A-Za-z_][A-Za-z0-9_-]*)|\[(?P<number>[0-9]{1,9})\]|\[(?P<quote>['\"])(?P<quoted>.*?)(?P=quote)\]|."
)

_WHOLE = (("mounts",), ("devices",))
"""Lists whose entries mean nothing without each of their fields."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A manifest in the making. ``head``: what its file says first; ``comments``: above which field stands what."""

    kind: str
    name: str
    metadata: dict[str, Json] = field(default_factory=dict)
    spec: dict[str, Json] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    comments: dict[Path, list[str]] = field(default_factory=dict)
    origins: dict[Path, Setting] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the file that it is written to, below the directory of manifests."""
        folder = "ves" if self.kind == "VirtualEnvironment" else f"{self.kind.lower()}s"
        return f"{folder}/{self.name}.yaml"

    @property
    def title(self) -> str:
        """How reports name it."""
        return self.name if self.kind == "VirtualEnvironment" else f"{self.kind.lower()}/{self.name}"

    def put(self, path: str, value: Json, setting: Setting | None = None, comment: str = "") -> Path:
        """Set a field by its path, such as ``memory.limit``."""
        parts: Path = tuple(path.split("."))
        target = self.spec
        for part in parts[:-1]:
            below = target.setdefault(str(part), {})
            assert isinstance(below, dict), "no field is below a value"
            target = below
        target[str(parts[-1])] = _clean(value)
        self._remember(parts, setting, comment)
        return parts

    def append(self, path: str, value: Json, setting: Setting | None = None, comment: str = "") -> Path:
        """Add an entry to a list at the top of the spec; give its path."""
        entries = self.spec.setdefault(path, [])
        assert isinstance(entries, list), "it is a list"
        entries.append(_clean(value))
        parts: Path = (path, len(entries) - 1)
        self._remember(parts, setting, comment)
        return parts

    def entries(self, path: str) -> list[dict[str, Json]]:
        """Give the entries of a list at the top of the spec that are maps."""
        found = self.spec.get(path)
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def label(self, key: str, value: str) -> None:
        """Give it a label."""
        labels = self.metadata.setdefault("labels", {})
        assert isinstance(labels, dict), "nothing else is put there"
        labels[key] = value

    def get(self, path: str) -> Json:
        """Give the value of a field, or None."""
        found: Json = self.spec
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def origin(self, path: Path) -> Setting | None:
        """Give what a field was made of, or what is above it."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return None

    def remark(self, path: Path, comment: str) -> None:
        """Say something above a field."""
        self.comments.setdefault(path, []).append(visible(comment))

    def remove(self, path: Path) -> Path | None:
        """Take out a field, or the nearest to it that is there; maps and lists that become empty go with it.

        Returns what was taken out; None if that would be all of it.
        """
        trail = _trail(self.spec, path[:2] if path[:1] in _WHOLE else path)
        while trail and len(trail) > 1 and _is_lonely(trail[-2][0], trail[-2][1]):
            trail.pop()
        if not trail:
            return None
        holder, key = trail[-1]
        del holder[key]  # type: ignore[arg-type]  # a map has text, a list a number
        gone = path[: len(trail)]
        self._forget(gone)
        return gone

    def _remember(self, parts: Path, setting: Setting | None, comment: str) -> None:
        if setting is not None:
            self.origins[parts] = setting
        if comment:
            self.remark(parts, comment)

    def _forget(self, gone: Path) -> None:
        """Let what is kept by path follow the entries of a list that move up."""
        for kept in (self.comments, self.origins):
            moved = {new: kept[old] for old in list(kept) if (new := _moved(old, gone)) is not None}
            kept.clear()
            kept.update(moved)  # type: ignore[arg-type]  # each gets its own values back


def _is_lonely(holder: dict[str, Json] | list[Json], key: str | int) -> bool:
    below = holder[key]  # type: ignore[index]  # a map has text, a list a number
    return isinstance(below, dict | list) and len(below) == 1


def _trail(spec: dict[str, Json], path: Path) -> list[tuple[dict[str, Json] | list[Json], str | int]]:
    """Give the way to a path, as far as it is there: holders and keys."""
    trail: list[tuple[dict[str, Json] | list[Json], str | int]] = []
    found: Json = spec
    for part in path:
        match found, part:
            case dict(), str() if part in found:
                trail.append((found, part))
                found = found[part]
            case list(), int() if part < len(found):
                trail.append((found, part))
                found = found[part]
            case _:
                break
    return trail


def _moved(path: Path, gone: Path) -> Path | None:
    if path[: len(gone)] == gone:
        return None
    at, last = len(gone) - 1, gone[-1]
    if path[:at] != gone[:at] or len(path) <= at or not isinstance(last, int):
        return path
    own = path[at]
    return (*path[:at], own - 1, *path[at + 1 :]) if isinstance(own, int) and own > last else path


def _clean(value: Json) -> Json:
    match value:
        case str():
            return visible(value)
        case list():
            return [_clean(entry) for entry in value]
        case dict():
            return {visible(key): _clean(entry) for key, entry in value.items()}
        case _:
            return value


@dataclass(slots=True, kw_only=True)
class Job:
    """One object that is being imported: its draft, and the ledger that all share."""

    draft: Draft
    ledger: Ledger
    seen: set[tuple[str, int, str]] = field(default_factory=set)

    def put(self, setting: Setting, path: str, value: Json) -> None:
        """Set a field that says the same as a key."""
        self.draft.put(path, value, setting)
        self._note(setting, Outcome.MAPPED, path=path)

    def change(self, setting: Setting, path: str, value: Json, why: str) -> None:
        """Set a field that says nearly the same as a key."""
        self.draft.put(path, value, setting, f"{setting.key}: {why}")
        self._note(setting, Outcome.CHANGED, why, path=path)

    def changed(self, setting: Setting, path: str, why: str) -> None:
        """Say that what was set elsewhere is nearly the same as a key."""
        self._note(setting, Outcome.CHANGED, why, path=path)

    def mapped(self, setting: Setting, path: str) -> None:
        """Say that what was set elsewhere says the same as a key."""
        self._note(setting, Outcome.MAPPED, path=path)

    def drop(self, setting: Setting, why: str) -> None:
        """Leave out a key."""
        self._note(setting, Outcome.DROPPED, why)

    def ignore(self, setting: Setting, why: str) -> None:
        """Leave out a key with which nothing is lost."""
        self._note(setting, Outcome.IGNORED, why)

    def guess(self, setting: Setting, path: str, value: Json, why: str) -> None:
        """Set a field that no key says."""
        self.draft.put(path, value, setting, f"a guess: {why}")
        self._note(setting, Outcome.GUESSED, why, path=path)

    def guessed(self, setting: Setting, path: str, why: str) -> None:
        """Say that what was set elsewhere is a guess."""
        self._note(setting, Outcome.GUESSED, why, path=path)

    def has_said(self, setting: Setting) -> bool:
        """Say whether something was written down of a key."""
        return (setting.file, setting.line, setting.key) in self.seen

    def _note(self, setting: Setting, outcome: Outcome, why: str = "", *, path: str = "") -> None:
        self.seen.add((setting.file, setting.line, setting.key))
        self.ledger.note(setting, outcome, why, of=self.draft.title, path=path)


def parse_path(text: str) -> Path:
    """Read a path as `reconciler.manifests.problem.format_path` prints it; what cannot be read ends it."""
    return tuple(_parts(text))


def _parts(text: str) -> Iterator[str | int]:
    for match in _PART.finditer(text):
        if match["name"] is not None:
            yield match["name"]
        elif match["number"] is not None:
            yield int(match["number"])
        elif match["quoted"] is not None:
            yield match["quoted"]
        else:
            return
