"""The record of a VE as the file beside its data holds it."""

from __future__ import annotations

from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import Digest, TemplateName, Uid, VeName
from reconciler.model.volume import Record

RECORD_FORMAT = 1

_REMEDY = "mend the file by hand or move the VE's directory out of the pool; until then the VE is left alone"


def encode_record(record: Record) -> bytes:
    """Give the text of a record's file, the same for the same record."""
    return render_object(record_to_json(record), format=RECORD_FORMAT)


def decode_record(data: bytes, *, where: str) -> Record:
    """Parse the text of a record's file; ``where`` is its path, for the error.

    Raises: StateError.
    """
    return record_from_fields(parse_object(data, format=RECORD_FORMAT, where=where, remedy=_REMEDY))


def record_to_json(record: Record) -> dict[str, Json]:
    """Give the JSON form of a record, without the format's number."""
    weight: dict[str, Json] = {} if record.cpu_weight is None else {"cpu_weight": record.cpu_weight}
    return weight | {
        "uid": record.uid,
        "name": record.name,
        "id_base": record.id_base,
        "template": record.template,
        "template_digest": record.template_digest,
        "init": list(record.init),
        "source": record.source,
        "created_at": record.created_at,
        "protect": record.protect,
        "applied": dict(record.applied),
        "requests_done": list(record.requests_done),
        "snapshot_births": dict(record.snapshot_births),
    }


def record_from_fields(fields: Fields) -> Record:
    """Take a record apart from JSON.

    Raises: StateError.
    """
    digest = fields.optional_text("template_digest")
    record = Record(
        uid=Uid(fields.text("uid")),
        name=VeName(fields.text("name")),
        id_base=fields.integer("id_base"),
        template=TemplateName(fields.text("template")),
        template_digest=None if digest is None else Digest(digest),
        init=fields.texts("init"),
        source=fields.text("source"),
        created_at=fields.number("created_at"),
        protect=fields.flag("protect"),
        applied=dict(fields.mapping("applied")),
        requests_done=fields.texts("requests_done"),
        snapshot_births=fields.numbers("snapshot_births"),
        cpu_weight=fields.integer("cpu_weight") if fields.has("cpu_weight") else None,
    )
    fields.end()
    return record
