"""Reading: documents as `incus list`, `incus config show`, `incus profile show`, `incus network list` and a preseed
have them, one or many, apart or in one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.importing.report import Ledger, Outcome, Setting
from reconciler.manifests import yaml_reader
from reconciler.manifests.problem import Path
from reconciler.manifests.yaml_builder import RawDocument
from reconciler.model.facts import Json

_LISTS = {
    "instances": "instance",
    "containers": "instance",
    "profiles": "profile",
    "networks": "network",
    "storage_volumes": "volume",
    "volumes": "volume",
    "storage_pools": "pool",
    "projects": "project",
}
_NETWORK_TYPES = frozenset({"bridge", "ovn", "macvlan", "sriov", "physical", "loopback", "vlan", "bond"})
_SECRET = ("user.", "cloud-init.", "environment.", "systemd.credential", "raw.", "smbios11.", "security.sev.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object of Incus, with where each of its keys stands."""

    kind: str
    file: str
    path: Path
    values: Mapping[str, Json]
    document: RawDocument = field(repr=False)

    @property
    def name(self) -> str:
        """Its name; empty, if it has none."""
        return text(self.values.get("name"))

    def setting(self, *path: str) -> Setting:
        """Give a key of it with its value, such as ``("config", "limits.cpu")``."""
        found: Json = dict(self.values)
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        line, _ = self.document.mark((*self.path, *path))
        secret = len(path) == 2 and path[0].endswith("config") and path[1].startswith(_SECRET)
        return Setting(file=self.file, line=line, key=".".join(path), value=text(found), secret=secret)

    def below(self, key: str) -> dict[str, str]:
        """Give a map of texts, such as ``config``."""
        found = self.values.get(key)
        return {name: text(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def devices(self, key: str) -> dict[str, dict[str, str]]:
        """Give the devices, by name."""
        found = self.values.get(key)
        devices = found.items() if isinstance(found, dict) else ()
        return {name: {k: text(v) for k, v in one.items()} for name, one in devices if isinstance(one, dict)}


def text(value: Json) -> str:
    """Give a scalar as Incus has it, which keeps all of them as text."""
    match value:
        case None | dict() | list():
            return ""
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def read(file: str, data: bytes, ledger: Ledger) -> Iterator[Item]:
    """Give the objects of a file; what is none is told."""
    found = yaml_reader.read(data)
    problems = [*found.problems, *(problem for document in found.documents for problem in document.problems)]
    for problem in problems:
        here = Setting(file=file, line=problem.mark[0] if problem.mark else 0, key="")
        ledger.fail(here, f"{problem.message}; the file is left out")
    if problems:
        return
    for document in found.documents:
        for item in _items(file, document, (), document.value, ""):
            if item.kind in ("pool", "project", "volume", "unknown"):
                _tell(item, ledger)
            else:
                yield item


def _items(file: str, document: RawDocument, path: Path, value: Json, kind: str) -> Iterator[Item]:
    if isinstance(value, list):
        for position, entry in enumerate(value):
            yield from _items(file, document, (*path, position), entry, kind)
    elif isinstance(value, dict):
        lists = {key: _LISTS[key] for key in value if key in _LISTS and isinstance(value[key], list)}
        if lists and not kind and _kind(value) == "unknown":
            for key, of in lists.items():
                yield from _items(file, document, (*path, key), value[key], of)
            return
        yield Item(kind=kind or _kind(value), file=file, path=path, values=value, document=document)


def _kind(value: Mapping[str, Json]) -> str:
    kind = value.get("type")
    if value.keys() & {"architecture", "expanded_config", "status_code"} or kind in ("container", "virtual-machine"):
        return "instance"
    if "content_type" in value:
        return "volume"
    if "driver" in value:
        return "pool"
    if "managed" in value or kind in _NETWORK_TYPES:
        return "network"
    if "devices" in value and not value.keys() & {"instances", "profiles", "networks"}:
        return "profile"
    return "unknown"


_WHY = {
    "pool": (Outcome.IGNORED, "a storage pool: vectl has a pool of its own"),
    "project": (Outcome.IGNORED, "a project: names are unique in the fleet"),
    "volume": (Outcome.DROPPED, "a volume: mount it on the host, and declare that directory below mounts"),
    "unknown": (Outcome.DROPPED, "expected an instance, a profile or a network"),
}


def _tell(item: Item, ledger: Ledger) -> None:
    outcome, why = _WHY[item.kind]
    line, _ = item.document.mark(item.path)
    ledger.note(Setting(file=item.file, line=line, key=item.name or item.kind), outcome, why)
