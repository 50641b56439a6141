"""One file of state: a JSON object with a format number, replaced whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from reconciler.kernel import files
from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.state import layout

_LOCK_WAIT_S = 10.0


class Durability(Enum):
    """What a power cut may do to a file that was just written."""

    NONE = "none"
    """Anything: it need not outlive this boot, and nobody waits for the disk."""
    WHOLE = "whole"
    """Bring back the one before, or none if there was none."""
    LASTING = "lasting"
    """Nothing."""


_WRITERS: Mapping[Durability, Callable[[str, bytes], None]] = {
    Durability.NONE: files.write_volatile,
    Durability.WHOLE: files.write_whole,
    Durability.LASTING: files.write_atomic,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that holds an object of one ``format``. ``remedy``: what to do when it is damaged."""

    path: str
    format: int
    remedy: str
    durability: Durability = Durability.LASTING

    def exists(self) -> bool:
        """Tell whether there is a file."""
        return os.path.exists(self.path)

    def read(self) -> Fields | None:
        """Read the file; None, if there is none.

        Raises: StateError, if it is damaged or of another format; KernelError, if it cannot be read.
        """
        data = files.read_bytes_if_exists(self.path)
        if data is None:
            return None
        return parse_object(data, format=self.format, where=self.path, remedy=self.remedy)

    def write(self, content: Mapping[str, Json]) -> None:
        """Replace the file; makes its directory.

        Raises: KernelError, NoSpaceError.
        """
        layout.make_directory(os.path.dirname(self.path))
        _WRITERS[self.durability](self.path, render_object(content, format=self.format))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the file between our reading and our writing.

        Raises: BusyError.
        """
        layout.make_directory(os.path.dirname(self.path))
        with files.lock(f"{self.path}.lock", wait_s=_LOCK_WAIT_S):
            yield
