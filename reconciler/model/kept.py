"""Files beside a VE's data: what a kept state of it is, and what was put in the place of what."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.model.decode import parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import Digest, TemplateName
from reconciler.model.power import Launch, launch_from_json, launch_to_json
from reconciler.model.snapshots import SnapshotKind, VolumeMark

_FORMAT = 1
_META_REMEDY = "delete the snapshot, or mend the file by hand"
_MARK_REMEDY = "mend the file by hand, or roll the VE back to a snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMeta:
    """What a kept state is. ``launch``: of the memory that is with it, None without one.

    Units: ``taken_at`` seconds since the epoch.
    """

    name: str
    kind: SnapshotKind
    taken_at: float
    template: TemplateName
    template_digest: Digest
    is_image: bool
    launch: Launch | None = None


def encode_meta(meta: KeptMeta) -> bytes:
    """Give the text of a kept state's ``meta.json``."""
    content: dict[str, Json] = {
        "name": meta.name,
        "kind": meta.kind.value,
        "taken_at": meta.taken_at,
        "template": meta.template,
        "template_digest": meta.template_digest,
        "is_image": meta.is_image,
        "launch": None if meta.launch is None else launch_to_json(meta.launch),
    }
    return render_object(content, format=_FORMAT)


def decode_meta(data: bytes, *, where: str) -> KeptMeta:
    """Parse a ``meta.json``; ``where`` is its path, for the error.

    Raises: StateError.
    """
    fields = parse_object(data, format=_FORMAT, where=where, remedy=_META_REMEDY)
    kind, launch = fields.text("kind"), fields.json("launch")
    if kind not in list(SnapshotKind):
        raise fields.error(f"there is no kind {kind!r} of snapshots")
    meta = KeptMeta(
        name=fields.text("name"),
        kind=SnapshotKind(kind),
        taken_at=fields.number("taken_at"),
        template=TemplateName(fields.text("template")),
        template_digest=Digest(fields.text("template_digest")),
        is_image=fields.flag("is_image"),
        launch=None if launch is None else launch_from_json(launch, where=where),
    )
    fields.end()
    return meta


def encode_mark(mark: VolumeMark) -> bytes:
    """Give the text of a volume's ``mark.json``."""
    content: dict[str, Json] = {
        "request": mark.request,
        "template": mark.template,
        "template_digest": mark.template_digest,
    }
    return render_object(content, format=_FORMAT)


def decode_mark(data: bytes, *, where: str) -> VolumeMark:
    """Parse a ``mark.json``; ``where`` is its path, for the error.

    Raises: StateError.
    """
    fields = parse_object(data, format=_FORMAT, where=where, remedy=_MARK_REMEDY)
    mark = VolumeMark(
        request=fields.optional_text("request"),
        template=TemplateName(fields.text("template")),
        template_digest=Digest(fields.text("template_digest")),
    )
    fields.end()
    return mark
