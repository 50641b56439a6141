"""``vectl template``: the images that VEs are made from."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, StateError, UsageError

if TYPE_CHECKING:
    from reconciler.host.host import RealHost
    from reconciler.model.facts import Json
    from reconciler.model.identity import Digest
    from reconciler.model.observation import HostObservation
    from reconciler.model.volume import ImageObservation, TemplateSpec
    from reconciler.state.config import Config

app = typer.Typer(no_args_is_help=True, help="What VEs are made from.", rich_markup_mode=None)

_HEADER = ("NAME", "SOURCE", "DIGEST", "SIZE", "USED BY", "AGE")
_DIGITS = 12
_USERS_SHOWN = 3
_Template = Annotated[str, typer.Argument(metavar="NAME|DIGEST", help="The template's name, or how its digest begins.")]


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """``image`` and ``digest`` are None of a template that was not built."""

    name: str
    source: str
    key: Digest
    digest: Digest | None = None
    image: ImageObservation | None = None
    declared: bool = False
    used_by: Sequence[str] = ()


@app.command(name="list")
def list_(form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE) -> int:
    """List the templates that are built, and those that manifests declare."""
    context.need_root()
    rows = context.run(_rows(context.load_config()))
    match form:
        case Format.JSON:
            output.document(_document(rows))
        case Format.YAML:
            output.yaml(_document(rows))
        case Format.TABLE:
            now = time.time()
            output.table(_HEADER, (_line(row, now) for row in rows))
    return int(ExitCode.OK)


@app.command()
def build(
    template: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    path: Annotated[
        str | None,
        typer.Option("--manifests", "-f", metavar="PATH", help="Manifests that declare it, if not those in force."),
    ] = None,
    from_ve: Annotated[
        str | None,
        typer.Option("--from-ve", metavar="VE@SNAPSHOT", help="Make it of a snapshot of a VE, without its identity."),
    ] = None,
) -> int:
    """Build a template now, rather than when the first VE needs it; print its digest."""
    context.need_root()
    config = context.load_config()
    if from_ve is not None and path is not None:
        raise UsageError("template build: expected either --manifests or --from-ve")
    if from_ve is None:
        digest = context.run(_build(config, _declared(config, template, path)))
    else:
        digest = context.run(_capture(config, template, from_ve))
    output.data(digest)
    return int(ExitCode.OK)


@app.command()
def rm(template: _Template) -> int:
    """Remove the image of a template that nothing uses; it is built anew when it is needed."""
    context.need_root()
    config = context.load_config()
    found = _find(context.run(_rows(config)), template)
    context.run(_remove(config, found.key))
    output.words(f"{found.name} is removed")
    return int(ExitCode.OK)


@app.command()
def export(
    template: _Template,
    file: Annotated[str, typer.Argument(metavar="FILE", help="NAME.erofs, .tar, .tar.gz, .tar.xz or .tar.zst.")],
) -> int:
    """Write a template's root file system into a file: a tar archive, or the image as it is."""
    from reconciler.kernel import erofs

    context.need_root()
    config = context.load_config()
    found = _find(context.run(_rows(config)), template)
    assert found.digest is not None, "it was found by its image"
    erofs.export(config.instance.template_image(found.digest), os.path.abspath(file))
    output.words(f"{found.name} is in {file}")
    return int(ExitCode.OK)


# What there is


async def _rows(config: Config) -> list[_Row]:
    from reconciler.model.facts import Unknown
    from reconciler.model.observation import EVERYTHING, Facet

    _, fleet = context.last_good(config)
    declared = {} if fleet is None else {template.key: template for template in fleet.templates.values()}
    async with _host(config) as host:
        observed = await host.observe(EVERYTHING, frozenset({Facet.SNAPSHOTS}))
    if isinstance(observed.templates, Unknown):
        raise StateError(f"list templates: {observed.templates.reason}")
    users = _users(observed)
    rows = [
        _built(key, digest, observed.images[digest], declared.get(key), users.get(digest, ()))
        for key, digest in observed.templates.items()
        if digest in observed.images
    ]
    rows += [_unbuilt(template) for key, template in declared.items() if key not in observed.templates]
    return sorted(rows, key=lambda row: (row.name, row.digest or ""))


def _built(
    key: Digest, digest: Digest, image: ImageObservation, template: TemplateSpec | None, users: Sequence[str]
) -> _Row:
    name = image.name if template is None else template.name
    declared = template is not None
    return _Row(
        name=name, source=image.source, key=key, digest=digest, image=image, declared=declared, used_by=tuple(users)
    )


def _unbuilt(template: TemplateSpec) -> _Row:
    from reconciler.host.images import words

    return _Row(name=template.name, source=words(template.source), key=template.key, declared=True)


def _users(observed: HostObservation) -> Mapping[Digest, list[str]]:
    """Name who is on each image: VEs, their snapshots, and what is in the trash."""
    from reconciler.model.facts import Unknown

    users: defaultdict[Digest, list[str]] = defaultdict(list)
    for seen in observed.ves.values():
        if isinstance(seen.record, Unknown):
            continue
        if seen.record.template_digest is not None:
            users[seen.record.template_digest].append(str(seen.record.name))
        kept = {} if isinstance(seen.snapshots, Unknown) else seen.snapshots.snapshots
        for name, snapshot in kept.items():
            if snapshot.template_digest != seen.record.template_digest:
                users[snapshot.template_digest].append(f"{seen.record.name}@{name}")
    for entry in () if isinstance(observed.trash, Unknown) else observed.trash:
        for digest in entry.images:
            users[digest].append(f"{entry.record.name} (trash)")
    return users


def _line(row: _Row, now: float) -> tuple[str, ...]:
    from reconciler.model.units import format_duration, format_size

    image = row.image
    return (
        row.name,
        row.source,
        "-" if row.digest is None else row.digest[:_DIGITS],
        "not built" if image is None else format_size(image.size),
        ", ".join(_shortened(row.used_by)) or "-",
        "-" if image is None else format_duration(max(0.0, round(now - image.built_at))),
    )


def _shortened(names: Sequence[str]) -> Iterator[str]:
    shown = sorted(names)
    yield from shown[:_USERS_SHOWN]
    if len(shown) > _USERS_SHOWN:
        yield f"{len(shown) - _USERS_SHOWN} more"


def _document(rows: Sequence[_Row]) -> Json:
    return {"format": 1, "items": [_to_json(row) for row in rows]}


def _to_json(row: _Row) -> Json:
    image = row.image
    return {
        "name": row.name,
        "source": row.source,
        "declared": row.declared,
        "built": image is not None,
        "key": row.key,
        "digest": row.digest,
        "size": None if image is None else image.size,
        "builtAt": None if image is None else image.built_at,
        "usedAt": None if image is None else image.used_at,
        "usedBy": [*sorted(row.used_by)],
    }


def _find(rows: Sequence[_Row], wanted: str) -> _Row:
    found = [row for row in rows if row.digest is not None and (row.name == wanted or row.digest.startswith(wanted))]
    if not found:
        names = ", ".join(sorted({row.name for row in rows if row.digest is not None})) or "none"
        raise StateError(f"find template {wanted}: no image of that name or digest is here; there is {names}")
    if len(found) > 1:
        digests = ", ".join(str(row.digest)[:_DIGITS] for row in found)
        raise UsageError(f"find template {wanted}: {len(found)} images are of that name; name one by digest: {digests}")
    return found[0]


# What is done


@asynccontextmanager
async def _host(config: Config) -> AsyncIterator[RealHost]:
    """Work on templates alone: nothing but their own locks keeps others from it, so an agent may run beside."""
    from reconciler.host import ground
    from reconciler.host.host import RealHost
    from reconciler.host.site import Site

    ground.prepare_directories(config.instance)
    site = Site(config.instance)
    site.told = site.progress = output.words
    try:
        yield RealHost(site)
    finally:
        site.close()


def _declared(config: Config, name: str, path: str | None) -> TemplateSpec:
    fleet = context.last_good(config)[1] if path is None else context.load_fleet(path)[0]
    declared = {} if fleet is None else fleet.templates
    for template in declared.values():
        if template.name == name:
            return template
    where = "the manifests in force" if path is None else path
    known = ", ".join(sorted(declared)) or "none"
    raise StateError(f"find template {name}: {where} declare no such template; they declare {known}")


async def _build(config: Config, template: TemplateSpec) -> Digest:
    from reconciler.host.templates import read_index
    from reconciler.model.volume import BuildTemplate

    async with _host(config) as host:
        await host.perform(BuildTemplate(template=template))
        return read_index(host.site)[template.key]


async def _capture(config: Config, name: str, from_ve: str) -> Digest:
    from reconciler.model.facts import Unknown
    from reconciler.model.identity import SnapshotName, TemplateName
    from reconciler.model.observation import EVERYTHING
    from reconciler.model.volume import CaptureTemplate

    ve, _, snapshot = from_ve.partition("@")
    if not ve or not snapshot:
        raise UsageError(f"template build --from-ve {from_ve}: expected VE@SNAPSHOT")
    async with _host(config) as host:
        before = await host.observe(EVERYTHING, frozenset())
        records = (seen.record for seen in before.ves.values() if not isinstance(seen.record, Unknown))
        found = [record.uid for record in records if record.name == ve]
        if not found:
            raise StateError(f"template build --from-ve {from_ve}: this host has no VE of that name")
        effect = CaptureTemplate(uid=found[0], snapshot=SnapshotName(snapshot), name=TemplateName(name))
        await host.perform(effect)
        after = await host.observe(EVERYTHING, frozenset())
    digest = max(after.images.keys() - before.images.keys(), key=lambda digest: after.images[digest].built_at)
    output.words(f"to make VEs of it, declare a Template with `source: {{image: {digest}}}`")
    return digest


async def _remove(config: Config, key: Digest) -> None:
    from reconciler.model.volume import RemoveTemplate

    async with _host(config) as host:
        await host.perform(RemoveTemplate(key=key))
