"""`quota`: what the users and groups inside a VE have, and how much they may."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.agent.session import Session
    from reconciler.model.facts import Json
    from reconciler.model.quota import QuotaKind
    from reconciler.model.volume import VolumeObservation

_HEADER = ("KIND", "ID", "USED", "SOFT", "HARD", "GRACE", "FILES", "SOFT", "HARD", "GRACE")


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


def quota(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The VE, which must be up.")],
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE,
) -> int:
    """Tell what users and groups inside a VE have of its disk, and what they may have."""
    context.need_root()
    context.run(_quota(name, form))
    return int(ExitCode.OK)


async def _quota(name: str, form: Format) -> None:
    async with context.looking(context.load_config(), with_fleet=False) as session:
        uid, seen = await _look(session, name)
    match form:
        case Format.TABLE:
            output.table(_HEADER, _lines(seen))
        case Format.JSON:
            items = [_item(seen, kind, number) for kind, number in _ids(seen)]
            whole: Json = {"used": seen.used, "size": seen.size, "files": seen.files, "inodes": _inodes(seen)}
            output.document({"format": 1, "name": name, "uid": uid, "disk": whole, "items": [*items]})


async def _look(session: Session, name: str) -> tuple[str, VolumeObservation]:
    from reconciler.model.facts import Unknown
    from reconciler.model.observation import Facet, Scope

    found = {record.name: uid for uid in session.site.uids() if (record := session.site.read_record(uid))}
    uid = next((uid for known, uid in found.items() if known == name), None)
    if uid is None:
        raise StateError(f"look at the quotas of VE {name}: this host has none of that name; see `vectl get`")
    observed = await session.host.observe(Scope(uids=frozenset({uid}), host=False), frozenset({Facet.VOLUME}))
    seen = observed.ves[uid].volume
    if isinstance(seen, Unknown):
        raise StateError(f"look at the quotas of VE {name}: {seen.reason}")
    if not seen.is_image:
        raise StateError(
            f"look at the quotas of VE {name}: it has none; they come with disk.inodes, disk.users or disk.groups"
        )
    if seen.quotas is None:
        raise StateError(f"look at the quotas of VE {name}: the kernel has them only while it is up; start it")
    return uid, seen


def _ids(seen: VolumeObservation) -> Iterator[tuple[QuotaKind, int]]:
    """Give everybody who has something or a limit."""
    from reconciler.model.quota import QuotaKind

    assert seen.quotas is not None
    for kind in QuotaKind:
        for number in sorted({*seen.quotas.of(kind), *seen.quota_use.get(kind, {})}):
            yield kind, number


def _lines(seen: VolumeObservation) -> Iterator[Sequence[str]]:
    items = [_item(seen, kind, number) for kind, number in _ids(seen)]
    for item in items:
        yield (
            str(item["kind"]).removesuffix("s"),
            str(item["id"]),
            _size(item["used"]),
            _size(item["soft"]),
            _size(item["hard"]),
            _until(item["graceEnds"]),
            str(item["files"]),
            _count(item["softFiles"]),
            _count(item["hardFiles"]),
            _until(item["graceEndsFiles"]),
        )
    yield "all", "", _size(seen.used), "", _size(seen.size), "", str(seen.files), "", _count(_inodes(seen)), ""


def _inodes(seen: VolumeObservation) -> int | None:
    return seen.quotas.inodes if seen.quotas else None


def _item(seen: VolumeObservation, kind: QuotaKind, number: int) -> dict[str, Json]:
    from reconciler.model.quota import QuotaLimit, QuotaUse

    assert seen.quotas is not None
    limit = seen.quotas.of(kind).get(number, QuotaLimit())
    use = seen.quota_use.get(kind, {}).get(number, QuotaUse())
    return {
        "kind": kind.value,
        "id": number,
        "used": use.space,
        "soft": limit.soft,
        "hard": limit.hard,
        "graceEnds": use.space_until,
        "files": use.files,
        "softFiles": limit.soft_files,
        "hardFiles": limit.hard_files,
        "graceEndsFiles": use.files_until,
    }


def _size(value: Json) -> str:
    from reconciler.model.units import format_size

    return format_size(value) if isinstance(value, int) else "unlimited"


def _count(value: Json) -> str:
    return str(value) if isinstance(value, int) else "unlimited"


def _until(value: Json) -> str:
    return output.moment(value) if isinstance(value, int) else "-"
