"""Trees that come in archives: of a file, of an image's layers, of an image server."""

from __future__ import annotations

import os
from typing import TypeAlias, assert_never

from reconciler.errors import TemplateError
from reconciler.host import streams
from reconciler.host.trees import BUILD_S, Place
from reconciler.kernel import download, skopeo
from reconciler.kernel.hashing import sha256_of
from reconciler.kernel.unpack_child import Job, unpack
from reconciler.kernel.unpack_marks import Rules, Setuid
from reconciler.model.volume import OciSource, SimplestreamsSource, TarballSource

ArchivedSource: TypeAlias = TarballSource | OciSource | SimplestreamsSource

ARCHIVE_MOST = 16 << 30
"""The most that is fetched for one template. Units: bytes."""


def unpack_tree(source: ArchivedSource, place: Place) -> int:
    """Fetch what a source names, check it and unpack it; give the time of its newest content.

    Units: seconds since 1970.
    Raises: TemplateError; DownloadError; CommandError; MissingToolError; NoSpaceError; TimeLimitError; KernelError.
    """
    match source:
        case TarballSource():
            return _unpack_tarball(source, place)
        case OciSource():
            return _unpack_layers(source, place)
        case SimplestreamsSource():
            return _unpack_image(source, place)
        case _:
            assert_never(source)


def _unpack_tarball(source: TarballSource, place: Place) -> int:
    archive = source.path or download.local_path(source.url or "")
    if archive is None:
        assert source.url is not None, "a tarball has a path or a URL"
        archive = f"{place.scratch}/archive"
        place.told("downloading")
        download.fetch(source.url, archive, most=ARCHIVE_MOST, timeout_s=BUILD_S, told=place.progress)
    what = f"tarball {source.path or source.url}"
    if not os.path.isfile(archive):
        raise TemplateError(f"read {what}: there is no such file on this host; put it there, or correct the path")
    found = sha256_of(archive)
    if found != source.sha256:
        raise TemplateError(f"check {what}: expected sha256 {source.sha256}, got {found}")
    return _unpack(place, what, Rules(setuid=Setuid(source.setuid)), archive)


def _unpack_layers(source: OciSource, place: Place) -> int:
    layers = skopeo.fetch(
        source.image,
        source.digest,
        f"{place.scratch}/image",
        timeout_s=BUILD_S,
        most=ARCHIVE_MOST,
        told=place.told,
    )
    rules = Rules(setuid=Setuid(source.setuid), whiteouts=True)
    return _unpack(place, f"image {source.image}", rules, *layers.paths)


def _unpack_image(source: SimplestreamsSource, place: Place) -> int:
    server = streams.Server(source=source, scratch=place.scratch, most=ARCHIVE_MOST, timeout_s=BUILD_S, told=place.told)
    found = server.fetch()
    rules = Rules(setuid=Setuid(source.setuid), prefix=found.prefix)
    return _unpack(place, f"image {source.alias} of {source.server}", rules, found.path)


def _unpack(place: Place, what: str, rules: Rules, *archives: str) -> int:
    place.told(f"unpacking {what}")
    job = Job(archives=archives, tree=place.tree, what=what, rules=rules, seconds=BUILD_S)
    return unpack(job, told=place.progress).newest
