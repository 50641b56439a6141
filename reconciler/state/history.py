"""How long actions took on this host: the ground of every downtime that a plan calls measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TypeAlias

from reconciler.model.action import Operation
from reconciler.model.facts import Json
from reconciler.state.document import Document

_FORMAT = 1
_SAMPLES = 20
_KEYS = 500
"""More kinds of action than there are; the one not seen for longest goes first."""

Key: TypeAlias = tuple[Operation, str]
"""An operation and the path of the field that it changes."""


class History:
    """The last durations by operation and path, in one file."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        self._document = Document(
            path=f"{state_dir}/durations.json", format=_FORMAT, remedy="remove it: durations are measured anew"
        )

    def add(self, op: Operation, path: str, seconds: float) -> None:
        """Remember one measured duration.

        Units: seconds.
        Raises: StateError, KernelError, NoSpaceError.
        """
        with self._document.locked():
            samples = self._read()
            samples[op, path] = [*samples.pop((op, path), []), round(seconds, 3)][-_SAMPLES:]
            self._write(dict(list(samples.items())[-_KEYS:]))

    def medians(self) -> Mapping[Key, float]:
        """Give the median of the last durations of each kind of action.

        Units: seconds.
        Raises: StateError, KernelError.
        """
        return {key: statistics.median(seconds) for key, seconds in self._read().items()}

    def _read(self) -> dict[Key, list[float]]:
        fields = self._document.read()
        if fields is None:
            return {}
        samples = {}
        for item in fields.objects("durations"):
            key = (item.word("op", Operation), item.text("path"))
            samples[key] = item.floats("seconds")
            item.end()
        fields.end()
        return samples

    def _write(self, samples: Mapping[Key, list[float]]) -> None:
        durations: list[Json] = [
            {"op": op.value, "path": path, "seconds": list(seconds)} for (op, path), seconds in samples.items()
        ]
        self._document.write({"durations": durations})
