"""One file of state: a JSON object with a format number, replaced whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler.kernel import files
from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.state import layout

_LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that holds an object of one ``format``. ``remedy``: what to do when it is damaged.

    ``volatile``: it need not outlive this boot, so nobody waits for the disk.
    """

    path: str
    format: int
    remedy: str
    volatile: bool = False

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
        """Replace the file, durably unless it is volatile; makes its directory.

        Raises: KernelError, NoSpaceError.
        """
        layout.make_directory(os.path.dirname(self.path))
        write = files.write_volatile if self.volatile else files.write_atomic
        write(self.path, render_object(content, format=self.format))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the file between our reading and our writing.

        Raises: BusyError.
        """
        layout.make_directory(os.path.dirname(self.path))
        with files.lock(f"{self.path}.lock", wait_s=_LOCK_WAIT_S):
            yield
