"""Setting fields of a VE in the file that it is written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.errors import ManifestError
from reconciler.manifests import assignment, changed, merge, splice, yaml_reader
from reconciler.manifests.assignment import Assignment, Target
from reconciler.manifests.inline import Style, inline
from reconciler.manifests.problem import Path
from reconciler.manifests.yaml_builder import RawDocument
from reconciler.model.facts import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one assignment. ``before`` and ``after`` as written, None for nothing.

    ``line``: where the field or what holds it stands. ``profile``: the one that gave the value before, "" for none.
    """

    name: str
    line: int
    before: str | None
    after: str | None
    profile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A file before and after."""

    file: str
    before: bytes
    after: bytes
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A document in its file."""

    file: str
    index: int
    raw: RawDocument


def set_fields(files: Mapping[str, bytes], ve: str, wanted: Sequence[Assignment]) -> Edited:
    """Set fields of a VE, in its own manifest and nowhere else.

    Raises: ManifestError, if it is in none or several, or cannot be changed; UsageError, for what no VE has.
    """
    found = _only(ve, list(_documents(files, "VirtualEnvironment", ve)))
    profiles = {_name(one.raw.value): one.raw.value for one in _documents(files, "Profile", None)}
    data, changes = files[found.file], []
    for one in wanted:
        raw = yaml_reader.read(data).documents[found.index]
        target = assignment.find(raw.value, one)
        profile = _profile_of(raw.value, profiles, target.named)
        after = _carried_out(data, found, raw.value, one, target)
        changes.append(_change(one, raw, target, profile=profile))
        data = after
    return Edited(file=found.file, before=files[found.file], after=data, changes=tuple(changes))


def give_hosts(files: Mapping[str, bytes], hosts: Mapping[str, str]) -> tuple[Edited, ...]:
    """Write the hosts of VEs into their manifests, each file once. ``hosts``: by VE.

    Raises: ManifestError, as `set_fields`.
    """
    found: dict[str, list[_Found]] = {}
    for one in _documents(files, "VirtualEnvironment", None):
        found.setdefault(str(_name(one.raw.value)), []).append(one)
    by_file: dict[str, list[tuple[_Found, Assignment]]] = {}
    for ve in sorted(hosts):
        one = _only(ve, found.get(ve, []))
        by_file.setdefault(one.file, []).append((one, assignment.parse(f"host={hosts[ve]}")))
    return tuple(_with_hosts(file, files[file], by_file[file]) for file in sorted(by_file))


def _with_hosts(file: str, data: bytes, wanted: Sequence[tuple[_Found, Assignment]]) -> Edited:
    puts, changes, root = [], [], assignment.schema()
    for found, one in wanted:
        target = assignment.find(found.raw.value, one, root=root)
        puts.append(splice.Put(index=found.index, path=target.path, missing=target.missing, value=one.raw))
        changes.append(_change(one, found.raw, target, profile=""))
    try:
        after = splice.put_all(data, puts)
    except ManifestError as err:
        raise ManifestError(f"set host in {file}: {err}") from err
    return Edited(file=file, before=data, after=after, changes=tuple(changes))


def _documents(files: Mapping[str, bytes], kind: str, name: str | None) -> Iterator[_Found]:
    """Give the documents of a kind, or of it and a name, that can be read at all."""
    for file, data in sorted(files.items()):
        if kind.encode() not in data or (name is not None and name.encode() not in data):
            continue
        for index, raw in enumerate(yaml_reader.read(data).documents):
            is_it = isinstance(raw.value, dict) and raw.value.get("kind") == kind
            if is_it and name in (None, _name(raw.value)):
                yield _Found(file=file, index=index, raw=raw)


def _name(document: Json) -> Json:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return metadata.get("name") if isinstance(metadata, dict) else None


def _only(ve: str, found: Sequence[_Found]) -> _Found:
    if not found:
        raise ManifestError(f"set {ve}: no manifest of that name; name the place of the manifests by --source")
    if len(found) > 1:
        places = ", ".join(f"{one.file}:{one.raw.mark(())[0]}" for one in found)
        raise ManifestError(f"set {ve}: expected one manifest of that name, found {places}")
    return found[0]


def _carried_out(data: bytes, found: _Found, document: Json, one: Assignment, target: Target) -> bytes:
    try:
        if one.raw:
            value = assignment.parse_value(one, takes_text=target.takes_text)
            return splice.put(data, found.index, target.path, target.missing, value, raw=one.raw)
        return data if target.missing else _removed(data, found.index, document, target.path)
    except ManifestError as err:
        raise ManifestError(f"set {one.name} in {found.file}: {err}") from err


def _removed(data: bytes, index: int, document: Json, path: Path) -> bytes:
    """Remove a field; what it was alone in stays as an empty map or list, where that has to be there."""
    path = changed.doomed(document, path)
    holder = changed.value_at(document, path[:-1])
    if isinstance(holder, dict | list) and len(holder) == 1:
        return splice.put(data, index, path[:-1], (), type(holder)())
    return splice.remove(data, index, path)


def _change(one: Assignment, raw: RawDocument, target: Target, *, profile: str) -> Change:
    return Change(
        name=one.name,
        line=raw.mark(target.path)[0],
        before=None if target.missing else _shown(changed.value_at(raw.value, target.path)),
        after=one.raw or None,
        profile=profile if target.missing or not one.raw else "",
    )


def _shown(value: Json) -> str:
    return inline(value, Style())


def _profile_of(document: Json, profiles: Mapping[Json, Json], named: Path) -> str:
    """Name the last of a VE's profiles that gives a field of its spec."""
    spec = document.get("spec") if isinstance(document, dict) else None
    names = spec.get("profile") if isinstance(spec, dict) else None
    for name in reversed(names if isinstance(names, list) else [names]):
        profile = profiles.get(name) if isinstance(name, str) else None
        body = profile.get("spec") if isinstance(profile, dict) else None
        if isinstance(body, dict) and named[:1] == ("spec",) and merge.by_position(body, named[1:]) is not None:
            return str(name)
    return ""
