"""What is remembered of a git source: up to where it was trusted, and which rewrites a person accepted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from reconciler.errors import UsageError
from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.model.trust import Remembered, Rewrite
from reconciler.state.document import Document

_FORMAT = 1
_SOURCES_KEPT = 16
_REWRITES_KEPT = 64


class SourceState:
    """What is remembered of the sources of an instance, by their names, in one file."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        remedy = "restore it; if it is lost, name in the trust file as anchor the commit that is known to be good"
        self._document = Document(path=f"{state_dir}/source/state.json", format=_FORMAT, remedy=remedy)

    def read(self, source: str) -> Remembered:
        """Read what is remembered of a source; nothing, if it was never looked at.

        Raises: StateError, KernelError.
        """
        return self._read().get(source, Remembered())

    def trust(self, source: str, commit: str, *, signed: bool, latest: float) -> None:
        """Remember up to where a source was verified and accepted, durably; what was accepted on the way is done with.

        Units: ``latest`` seconds since the epoch.
        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        with self._document.locked():
            known = self._read()
            before = known.pop(source, Remembered())
            after = replace(before, trusted=commit, signed=signed, latest=latest)
            if commit != before.trusted:  # a person's word counts once: the same rewrite needs another one
                after = replace(after, accepted=())
            if after != before:
                self._write({**known, source: after})

    def accept(self, source: str, rewrite: Rewrite) -> None:
        """Remember that a person accepted a rewrite, which begins at the commit that is trusted now.

        Raises: UsageError, if another one is; StateError, KernelError, NoSpaceError, BusyError.
        """
        with self._document.locked():
            known = self._read()
            before = known.pop(source, Remembered())
            if before.trusted != rewrite.old:
                now = before.trusted or "none was yet"
                raise UsageError(f"accept rewrite of {rewrite.old[:12]}: expected the commit that is trusted, {now}")
            accepted = (*before.accepted, rewrite)[-_REWRITES_KEPT:]
            self._write({**known, source: replace(before, accepted=accepted)})

    def _read(self) -> dict[str, Remembered]:
        fields = self._document.read()
        if fields is None:
            return {}
        found = {}
        for item in fields.objects("sources"):
            found[item.text("name")] = Remembered(
                trusted=item.optional_text("trusted"),
                signed=item.flag("signed"),
                latest=item.number("latest"),
                accepted=tuple(map(_rewrite, item.objects("accepted_rewrites"))),
            )
            item.end()
        fields.end()
        return found

    def _write(self, known: dict[str, Remembered]) -> None:
        """Write the sources, the one that was changed last; the oldest ones are forgotten."""
        kept = list(known.items())[-_SOURCES_KEPT:]
        self._document.write({"sources": [_source(name, remembered) for name, remembered in kept]})


def _rewrite(item: Fields) -> Rewrite:
    rewrite = Rewrite(old=item.text("old"), new=item.text("new"), by=item.text("by"), at=item.number("at"))
    item.end()
    return rewrite


def _source(name: str, remembered: Remembered) -> Json:
    return {
        "name": name,
        "trusted": remembered.trusted,
        "signed": remembered.signed,
        "latest": remembered.latest,
        "accepted_rewrites": _rewrites(remembered.accepted),
    }


def _rewrites(rewrites: Iterable[Rewrite]) -> list[Json]:
    return [{"old": one.old, "new": one.new, "by": one.by, "at": one.at} for one in rewrites]
