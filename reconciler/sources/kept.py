"""What was read of manifests, kept on disk by the names of their blobs: what did not change is not parsed again.

Only plain values are kept, as JSON; they are validated anew each time. A file that is damaged, of another version or
not ours is as good as none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.errors import VectlError
from reconciler.kernel import files
from reconciler.model.facts import Json
from reconciler.sources.snapshot import TOTAL_MAX

if TYPE_CHECKING:
    from reconciler.manifests.yaml_builder import RawDocument
    from reconciler.manifests.yaml_reader import RawFile

_FORMAT = 1


class KeptOnDisk:
    """Implements `manifests.load.KeptFiles` in one file, which is written by `save` alone.

    Shape: by content, of each document line, column and value. ``version``: of this program: another one may read
    files otherwise.
    """

    def __init__(self, path: str, *, version: str) -> None:
        self._path, self._version = path, version
        self._found: Mapping[str, Json] | None = None
        self._used: dict[str, Json] = {}
        self._is_new = False

    def get(self, content: str) -> RawFile | None:
        """Give what was read; None, if nothing was kept of it."""
        from reconciler.manifests.yaml_reader import RawFile

        documents = self._used.get(content, self._before().get(content))
        if not isinstance(documents, list):
            return None
        try:
            raw = RawFile(documents=tuple(_documents(documents)))
        except (TypeError, ValueError):
            return None
        return raw

    def put(self, content: str, raw: RawFile) -> None:
        """Keep what was read, if nothing is wrong with it."""
        if not raw.problems and not any(document.problems for document in raw.documents):
            self._used[content] = [[*document.mark(()), document.value] for document in raw.documents]
            self._is_new = True

    def missing(self, contents: Iterable[str]) -> set[str]:
        """Name the contents of which nothing was kept."""
        return set(contents) - self._before().keys() - self._used.keys()

    def save(self, contents: Iterable[str]) -> None:
        """Write what is known of these contents and forget all else; without room or rights for it, do without."""
        if self._is_new:
            known = {**self._before(), **self._used}
            kept = {content: known[content] for content in contents if content in known}
            with suppress(OSError, VectlError):
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                files.write_volatile(self._path, self._text(kept))
        self._found, self._used, self._is_new = None, {}, False

    def _text(self, kept: Mapping[str, Json]) -> bytes:
        return json.dumps({"format": _FORMAT, "version": self._version, "files": kept}, separators=(",", ":")).encode()

    def _before(self) -> Mapping[str, Json]:
        if self._found is None:
            self._found = _read(self._path, self._version)
        return self._found


def _documents(documents: Iterable[Json]) -> Iterator[RawDocument]:
    from reconciler.manifests.yaml_builder import RawDocument

    for document in documents:
        if not isinstance(document, list):
            raise TypeError("expected line, column and value")
        line, column, value = document
        if not isinstance(line, int) or not isinstance(column, int):
            raise TypeError("expected numbers")
        yield RawDocument(value=value, values={(): (line, column)}, keys={})


def _read(path: str, version: str) -> Mapping[str, Json]:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if info.st_uid != os.geteuid() or info.st_mode & 0o022 or info.st_size > 2 * TOTAL_MAX:
                return {}
            found = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or (found.get("format"), found.get("version")) != (_FORMAT, version):
        return {}
    kept = found.get("files")
    return kept if isinstance(kept, dict) else {}
