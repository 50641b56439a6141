"""Image servers of Incus and LXC: the index of a server, the image of an alias and a fingerprint, and its files.

A fingerprint is the SHA-256 of the metadata's file and the root file system's after it, as if they were one file; of
an image in one file it is that file's.

Source: simplestreams.readthedocs.io; Incus shared/simplestreams/products.go.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.errors import TemplateError
from reconciler.kernel import download
from reconciler.kernel.hashing import sha256_of
from reconciler.model.volume import SimplestreamsSource

_Node: TypeAlias = Mapping[str, object]

_INDEX = "streams/v1/index.json"
_INDEX_MOST = 64 << 20
_INDEX_S = 120.0
_METADATA = ("incus.tar.xz", "lxd.tar.xz")
_COMBINED = ("incus_combined.tar.gz", "lxd_combined.tar.gz")
_SHOWN = 5
_IN_COMBINED = "rootfs"
_ROOTS = {
    "combined_squashfs_sha256": ("squashfs",),
    "combined_rootxz_sha256": ("root.tar.xz",),
    "combined_sha256": ("root.tar.xz", "squashfs"),
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An archive with a root file system; ``prefix``: the directory in it where that lies."""

    path: str
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An image server as one build sees it. ``scratch``: a directory for what is fetched.

    Units: ``most`` bytes of a file; seconds.
    """

    source: SimplestreamsSource
    scratch: str
    most: int
    timeout_s: float
    told: Callable[[str], None]

    def fetch(self) -> Found:
        """Fetch the image of the source's alias and fingerprint.

        Raises: TemplateError, if the server has none, or another one; DownloadError; NoSpaceError; TimeLimitError.
        """
        versions = [*self._versions()]
        wanted = self.source.fingerprint
        for items in versions:
            for item in items:
                if item.get("ftype") in _COMBINED and item.get("sha256") == wanted:
                    return Found(path=self._get(item), prefix=_IN_COMBINED)
                if item.get("ftype") in _METADATA and wanted in (item.get(name) for name in _ROOTS):
                    return Found(path=self._get(item, self._root_of(item, items)))
        known = [str(item[name]) for items in versions for item in items for name in _ROOTS if name in item]
        raise TemplateError(
            f"find image {self.source.alias} on {self.source.server}: it has no version of fingerprint {wanted}; "
            f"of {_architecture()} it has {', '.join(known[-_SHOWN:]) or 'none'}"
        )

    def _versions(self) -> Iterator[Sequence[_Node]]:
        """Give the items of each version of the alias."""
        aliases: set[str] = set()
        for product in self._products():
            if product.get("arch") != _architecture():
                continue
            own = {alias.strip() for alias in str(product.get("aliases", "")).split(",")}
            aliases |= own
            if self.source.alias in own:
                for version in _nodes(product.get("versions")):
                    yield tuple(_nodes(version.get("items")))
        if self.source.alias not in aliases:
            raise TemplateError(
                f"find image {self.source.alias} on {self.source.server}: it has no such alias for {_architecture()}; "
                f"it has {', '.join(sorted(aliases - {''})[:_SHOWN]) or 'none at all'}"
            )

    def _products(self) -> Iterator[_Node]:
        for index in _nodes(self._read(_INDEX).get("index")):
            if index.get("datatype", "image-downloads") == "image-downloads" and isinstance(index.get("path"), str):
                yield from _nodes(self._read(str(index["path"])).get("products"))

    def _read(self, path: str) -> _Node:
        url = download.join(self.source.server, path)
        data = download.read(url, most=_INDEX_MOST, timeout_s=_INDEX_S, scratch=f"{self.scratch}/index")
        try:
            value = json.loads(data)
        except ValueError as err:
            raise TemplateError(f"read {url}: expected JSON: {err}") from err
        if not isinstance(value, dict):
            raise TemplateError(f"read {url}: expected an object, got {type(value).__name__}")
        return value

    def _root_of(self, metadata: _Node, items: Sequence[_Node]) -> _Node:
        """Give the root file system that a fingerprint is of, beside the metadata that names it."""
        kinds = [
            kind for name, kinds in _ROOTS.items() if metadata.get(name) == self.source.fingerprint for kind in kinds
        ]
        found = next((item for kind in kinds for item in items if item.get("ftype") == kind), None)
        if found is None:
            raise TemplateError(f"find image {self.source.alias} on {self.source.server}: its {kinds[0]} is not listed")
        return found

    def _get(self, *items: _Node) -> str:
        """Fetch files; give the last one, when all of them together are what the fingerprint says."""
        paths = []
        for number, item in enumerate(items):
            paths.append(f"{self.scratch}/item{number}")
            url = download.join(self.source.server, str(item.get("path")))
            download.fetch(url, paths[-1], most=self.most, timeout_s=self.timeout_s, told=self.told)
        found = sha256_of(*paths)
        if found != self.source.fingerprint:
            raise TemplateError(
                f"check image {self.source.alias} of {self.source.server}: "
                f"expected the fingerprint {self.source.fingerprint}, got {found}"
            )
        return paths[-1]


def _nodes(value: object) -> Iterator[_Node]:
    if isinstance(value, dict):
        yield from (node for node in value.values() if isinstance(node, dict))


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)
