"""Images: what is known of each template's image beside its content, and who needs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import assert_never

from reconciler.errors import StateError
from reconciler.host.site import Site
from reconciler.kernel import files
from reconciler.kernel.syscalls import file_errors
from reconciler.model.decode import parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import Digest, TemplateName
from reconciler.model.volume import (
    BuiltinSource,
    DebootstrapSource,
    ImageObservation,
    ImageSource,
    OciSource,
    SimplestreamsSource,
    TarballSource,
    TemplateSource,
)

_FORMAT = 1
_WORDS_MOST = 1000
_REMEDY = "remove it: the image is good without"


def note_file(site: Site, digest: Digest) -> str:
    """Give the file with what is known of an image."""
    return f"{site.instance.templates}/{digest}.json"


def read_note(site: Site, digest: Digest) -> bytes:
    """Read the text of what is known of an image, for another host.

    Raises: KernelError.
    """
    content = files.read_bytes_if_exists(note_file(site, digest))
    return content or _encode(ImageObservation(name=TemplateName("-"), source="unknown", size=0, built_at=0, used_at=0))


def parse_note(data: bytes, *, where: str) -> ImageObservation:
    """Parse the text of what another host knows of an image.

    Raises: StateError.
    """
    name, source, built_at, is_original = _parse_note(data, where=where)
    if not f"{name}{source}".isprintable() or max(len(name), len(source)) > _WORDS_MOST:
        raise StateError(f"read {where}: expected a name and a source that can be shown")
    return ImageObservation(
        name=name, source=source, size=0, built_at=built_at, used_at=built_at, is_original=is_original
    )


def write_note(site: Site, digest: Digest, note: ImageObservation) -> None:
    """Write down what is known of an image, before that has its name.

    Raises: KernelError; NoSpaceError.
    """
    files.write_atomic(note_file(site, digest), _encode(note))


def _encode(note: ImageObservation) -> bytes:
    fields: dict[str, Json] = {
        "name": str(note.name),
        "source": note.source,
        "built_at": note.built_at,
        "is_original": note.is_original,
    }
    return render_object(fields, format=_FORMAT)


def observe(site: Site, digests: Mapping[Digest, Digest]) -> Mapping[Digest, ImageObservation]:
    """Look at the images that the index knows."""
    found = {}
    for digest in set(digests.values()):
        with suppress(FileNotFoundError):
            info = os.stat(site.instance.template_image(digest))
            note = site.parsed.read(note_file(site, digest), _parse_note)
            name, source, built_at, is_original = note or (TemplateName("-"), "unknown", info.st_mtime, True)
            found[digest] = ImageObservation(
                name=name,
                source=source,
                size=info.st_size,
                built_at=built_at,
                used_at=info.st_mtime,
                is_original=is_original,
            )
    return found


def _parse_note(data: bytes, *, where: str) -> tuple[TemplateName, str, float, bool]:
    fields = parse_object(data, format=_FORMAT, where=where, remedy=_REMEDY)
    note = (
        TemplateName(fields.text("name")),
        fields.text("source"),
        fields.number("built_at"),
        fields.flag("is_original"),
    )
    fields.end()
    return note


def touch(site: Site, *digests: Digest) -> None:
    """Take note that images were of use until now.

    Raises: KernelError.
    """
    for digest in digests:
        with file_errors("touch image", digest), suppress(FileNotFoundError):
            os.utime(site.instance.template_image(digest))


def words(source: TemplateSource) -> str:
    """Say for people what a template is built from."""
    match source:
        case BuiltinSource():
            return f"builtin {source.name}"
        case DebootstrapSource():
            return f"debootstrap {source.suite}"
        case TarballSource():
            return f"tarball {source.path or (source.url or '').partition('?')[0]}"
        case OciSource():
            return f"oci {source.image}"
        case SimplestreamsSource():
            return f"simplestreams {source.alias} of {source.server}"
        case ImageSource():
            return "image"
        case _:
            assert_never(source)


# Who needs an image


def users(site: Site) -> Iterator[tuple[str, Digest]]:
    """Yield who needs which image: each VE, its snapshots, a volume put in another's place, and the same in the trash.

    Raises: StateError, if that cannot be read of one of them; KernelError.
    """
    for top, where in ((site.instance.ves, ""), (site.instance.trash, " in the trash")):
        with file_errors("list", top):
            names = sorted(os.listdir(top))
        for name in names:
            for user, digest in users_in(site, f"{top}/{name}"):
                yield f"{user}{where}", digest


def users_in(site: Site, directory: str) -> Iterator[tuple[str, Digest]]:
    """Yield what in the directory of one VE needs which image.

    Raises: as `users`.
    """
    ve = os.path.basename(directory)
    record = site.parsed.read(f"{directory}/record.json", _parse_use)
    if record is not None:
        ve = record[0]
        yield from _use(f"VE {ve}", record)
    yield from _use(f"the volume of VE {ve}", site.parsed.read(f"{directory}/volume/mark.json", _parse_use))
    yield from _use(f"the memory of VE {ve}", site.parsed.read(f"{directory}/suspended/meta.json", _parse_use))
    with suppress(FileNotFoundError):
        for name in os.listdir(f"{directory}/snapshots"):
            meta = site.parsed.read(f"{directory}/snapshots/{name}/meta.json", _parse_use)
            yield from _use(f"snapshot {name} of VE {ve}", meta)


def _use(user: str, found: tuple[str, str | None] | None) -> Iterator[tuple[str, Digest]]:
    if found is not None and found[1] is not None:
        yield user, Digest(found[1])


def _parse_use(data: bytes, *, where: str) -> tuple[str, str | None]:
    """Read nothing but the name and the image from a file that another module writes."""
    try:
        fields = json.loads(data)
        name, digest = fields.get("name", ""), fields["template_digest"]
    except (ValueError, KeyError, AttributeError, TypeError) as err:
        raise StateError(f"read {where}: expected an object with template_digest: {err!r}") from err
    return str(name), None if digest is None else str(digest)
