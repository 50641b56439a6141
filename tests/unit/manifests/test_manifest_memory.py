"""What is remembered of documents saves time, and changes nothing of what a load gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifests import parse, resolve
from reconciler.manifests.document import Document
from reconciler.manifests.load import Loaded, ParseCache, load_fleet
from reconciler.manifests.memory import Memory
from reconciler.manifests.resolved import ResolvedVe, Shared
from reconciler.model.compact import form
from reconciler.model.compute import ComputeSpec
from reconciler.model.devices import DevicesSpec
from reconciler.model.exchange import to_json
from reconciler.model.facts import Json
from reconciler.model.fleet import DriftSpec, HostSpec
from reconciler.model.mounts import MountSpec
from reconciler.model.network import NetworkSpec, VeNetworkSpec
from reconciler.model.power import PowerSpec
from reconciler.model.snapshots import SnapshotsSpec, Source
from reconciler.model.volume import TemplateSpec, VolumeSpec
from tests.unit.manifests.cases import BAD, GOOD, PATIENT, Case

HOSTS = b"""apiVersion: ve/v1
kind: Host
metadata: {name: node-a, labels: {rack: r1}}
spec: {address: 192.0.2.1, capacity: {memory: 8Gi}, reserve: {cpu: 0.5}, overcommit: {memory: 1.5}}
"""
LAN = b"""apiVersion: ve/v1
kind: Network
metadata: {name: lan}
spec: {subnets: [10.20.0.0/16, "fd00::/64"], gateway: [10.20.0.1], nat: true,
       forwards: [{listen: 80, to: "web1:80"}]}
"""
SMALL = b"apiVersion: ve/v1\nkind: Profile\nmetadata: {name: small}\nspec: {processes: 100, memory: {limit: 6Gi}}\n"
DEBIAN = (
    b"apiVersion: ve/v1\nkind: Template\nmetadata: {name: debian}\nspec: {source: {debootstrap: {suite: trixie}}}\n"
)


def web(number: int, more: str = "") -> bytes:
    """Give the manifest of a VE."""
    return (
        f"# of the shop\napiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: web{number}}}\nspec:\n"
        f"  profile: [small]\n  host: node-a\n  template: debian\n"
        f"  interfaces: [{{name: eth0, network: lan, addresses: [10.20.1.{number}/16]}}]\n{more}"
    ).encode()


FLEET = {
    "hosts.yaml": HOSTS,
    "net/lan.yaml": LAN,
    "profiles.yaml": SMALL,
    "templates.yaml": DEBIAN,
    **{f"ve/web{number}.yaml": web(number) for number in range(1, 5)},
    "ve/two.yaml": web(5) + b"---\n" + web(6, "  cpu: {limit: 1.5}\n  labels: {}\n").replace(b"  labels: {}\n", b""),
}


class Shelf:
    """A store whose values are JSON, as on a disk."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, name: str) -> Json:
        value: Json = json.loads(self.texts.get(name, "null"))
        return value

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def put(self, name: str, value: Json) -> None:
        self.texts[name] = json.dumps(value)


def load(files: Mapping[str, bytes], shelf: Shelf | None = None) -> Loaded:
    """Load files as a process does that knows nothing but what is on a shelf."""
    memory = None if shelf is None else Memory(shelf)
    return load_fleet(files, revision="r", cache=ParseCache(memory=memory))


def told(loaded: Loaded) -> str:
    """Give all that a load says: places, the order of everything that has one, and whether 1 is a float."""
    found = to_json(loaded.fleet) if loaded.fleet is not None else None
    return json.dumps([found, to_json(loaded.findings), to_json(loaded.concerns)])


_OTHERS = [
    None,
    b"",
    b"a: [",
    *FLEET.values(),
    *(case.data for case in (*GOOD, *BAD[::5])),
    LAN.replace(b"10.20", b"10.21"),
    LAN.replace(b"web1", b"web3"),
    LAN.replace(b"nat: true", b"nat: false, vxlan: {id: 7, port: 4789}"),
    SMALL.replace(b"100", b"'100'"),
    SMALL.replace(b"small", b"tiny"),
    SMALL.replace(b"100", b"50"),
    DEBIAN.replace(b"trixie", b"bookworm"),
    HOSTS.replace(b"node-a", b"node-b"),
    HOSTS.replace(b"8Gi", b"1Ti"),
    web(1, "  boot: {dependsOn: [web2, web1]}\n"),
    web(2, "  boot: {dependsOn: [web1]}\n  replicas: {hosts: [node-a]}\n  rlimits: {nofile: unlimited}\n"),
    web(3, "  source: {clone: web2}\n  devices: [{nic: eth1}]\n  mounts: [{source: /srv, target: /srv}]\n"),
    web(4, "  rollback: {to: a, request: b}\n  snapshots: [{name: a}]\n  drift: {fields: {interfaces: warn}}\n"),
]
_CHANGES = st.lists(st.tuples(st.sampled_from([*FLEET, "new.yaml"]), st.sampled_from(_OTHERS)), max_size=5)


@PATIENT
@given(st.lists(_CHANGES, min_size=1, max_size=3))
def test_every_revision_is_the_same_with_what_was_remembered_of_others(
    revisions: list[list[tuple[str, bytes]]],
) -> None:
    files, shelf = dict(FLEET), Shelf()
    load(files, shelf)
    for changes in revisions:
        files |= dict(changes)
        there = {name: data for name, data in files.items() if data is not None}
        alone = load(there)
        for _ in range(2):
            remembered = load(there, shelf)
            assert remembered == alone
            assert told(remembered) == told(alone)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.file)
def test_whatever_a_manifest_may_say_is_remembered_as_it_is(case: Case) -> None:
    files, shelf = {"a.yaml": case.data}, Shelf()
    alone = load(files)
    assert [told(load(files, shelf)) for _ in range(2)] == [told(alone)] * 2


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.file)
def test_a_mistake_is_told_each_time(case: Case) -> None:
    files, shelf = {"a.yaml": case.data}, Shelf()
    alone = load(files)
    assert [told(load(files, shelf)) for _ in range(2)] == [told(alone)] * 2


def _forbidden(*_args: object, **_named: object) -> None:
    pytest.fail("read or resolved again")


def test_what_is_remembered_is_neither_read_nor_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    first = load(FLEET, shelf)
    assert first.fleet is not None
    for module, name in ((parse, "parse"), (parse, "parse_raw"), (resolve, "resolve"), (resolve, "commons")):
        monkeypatch.setattr(module, name, _forbidden)
    assert load(FLEET, shelf) == first


def test_only_what_changed_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, resolved, original = Shelf(), [], resolve.resolve

    def told_of(document: Document, context: Shared) -> ResolvedVe:
        resolved.append(document.name)
        return original(document, context)

    load(FLEET, shelf)
    monkeypatch.setattr(resolve, "resolve", told_of)
    load({**FLEET, "ve/web1.yaml": web(1, "  cpu: {limit: 2}\n")}, shelf)
    assert resolved == ["web1"]
    resolved.clear()
    load({**FLEET, "profiles.yaml": SMALL.replace(b"100", b"50")}, shelf)
    assert resolved == [f"web{number}" for number in range(1, 7)]


def test_the_heavy_libraries_stay_away_where_all_is_remembered() -> None:
    program = (
        "import sys\n"
        "import reconciler.manifests.load, reconciler.manifests.memory, reconciler.sources.memo\n"
        "print([name for name in ('pydantic', 'ruamel.yaml', 'asyncio', 'pyroute2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


KINDS = [
    ComputeSpec, DevicesSpec, DriftSpec, HostSpec, MountSpec, NetworkSpec, PowerSpec, SnapshotsSpec, Source,
    TemplateSpec, VeNetworkSpec, VolumeSpec,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_value_comes_back_as_it_was_written(kind: type) -> None:
    @PATIENT
    @given(st.from_type(kind).filter(lambda value: re.search(r"\bnan\b", repr(value)) is None))
    def check(value: object) -> None:
        written: Callable[[object], Json] = form(kind).write
        assert form(kind).read(json.loads(json.dumps(written(value)))) == value

    check()


def test_a_type_without_a_form_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a type of the model"):
        form(complex)
