"""Two hosts that follow the same manifests and share a coordinator: who has what, and what happens without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.fleet import host_key
from tests.support.etcd import EtcdCluster, EtcdMember, etcd
from tests.support.fleet import Document, Fleet, fleet, neighbour, until, ve
from tests.support.pki import Authority

pytestmark = pytest.mark.xdist_group("fleet-owners")


@dataclass(frozen=True)
class Pair:
    """Two hosts, one coordinator. ``a`` and ``b`` are their names too."""

    a: Fleet
    b: Fleet
    cluster: EtcdCluster
    documents: dict[str, Document] = field(default_factory=dict)

    @property
    def member(self) -> EtcdMember:
        """The coordinator's one member."""
        return self.cluster.members[0]

    def put(self, *documents: Document, without: str = "") -> None:
        """Add to the manifests of both, or put in the place of what has the same name."""
        self.documents.update({_name(document): document for document in documents})
        self.documents.pop(without, None)
        for one in (self.a, self.b):
            one.put("all.yaml", *self.documents.values(), *(_host(each) for each in (self.a, self.b)))


@contextmanager
def _pair(base: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        first = stack.enter_context(fleet(base, host="a"))
        authority = Authority(first.directory / "pki")
        cluster = stack.enter_context(etcd(first.directory / "etcd", tls=authority, namespace=first.namespace))
        _coordinate(first, cluster, authority)
        with neighbour(first, base, host="b") as second:
            _coordinate(second, cluster, authority)
            made = Pair(first, second, cluster)
            made.put()
            first.start_agent()
            second.start_agent()
            yield made


def _name(document: Document) -> str:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["name"])


def _coordinate(one: Fleet, cluster: EtcdCluster, authority: Authority) -> None:
    own = authority.issue(one.instance.host)
    address = {"endpoints": list(cluster.endpoints), "ca": authority.ca, "cert": own.cert, "key": own.key}
    config = json.loads(one.config.read_text())
    one.config.write_text(json.dumps({**config, "coordinator": {"etcd": address}}))


def _host(one: Fleet) -> Document:
    key = host_key.make_key(f"{one.instance.state_dir}/host.key")
    metadata = {"name": one.instance.host}
    return {"apiVersion": "ve/v1", "kind": "Host", "metadata": metadata, "spec": {"publicKey": key.public}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with _pair(tmp_path_factory.getbasetemp()) as made:
        yield made


def test_hosts_share_ves_and_never_ids(pair: Pair) -> None:
    pair.put(ve("one", host="a"), ve("two", host="b"), ve("three", host="b"))
    pair.a.await_ready("one")
    pair.b.await_ready("two", "three")
    bases = {record.id_base for each in (pair.a, pair.b) for record in each.records().values()}
    assert len(bases) == 3


def test_what_another_host_has_is_not_made_here(pair: Pair) -> None:
    pair.put(ve("wanderer", host="a"))
    pair.a.await_ready("wanderer")
    with pair.b.in_one_moment():
        pair.put(ve("wanderer", host="b"))
    told = pair.b.await_reason("wanderer", "OwnedElsewhere")
    assert "a" in told.message
    assert "wanderer" not in pair.b.records()
    assert pair.a.ve("wanderer").runs
    pair.put(ve("wanderer", host="a"))
    pair.a.await_ready("wanderer")


def test_without_the_coordinator_what_runs_goes_on_and_only_that_is_started(pair: Pair) -> None:
    pair.put(ve("steady", host="a"), ve("resting", host="a", power="stopped"))
    pair.a.await_ready("steady", "resting")
    init = pair.a.ve("steady").init
    pair.member.kill()
    until(lambda: "CoordinatorAway" in pair.a.told("host"), "the agent to miss the coordinator")
    pair.put(ve("steady", host="a", processes=321), ve("resting", host="a"), ve("fresh", host="a"))
    pair.a.await_ready("steady")
    assert pair.a.ve("steady").init == init
    pair.a.await_reason("resting", "OwnershipUnknown")
    pair.a.await_reason("fresh", "OwnershipUnknown")
    assert not pair.a.ve("resting").runs
    assert "fresh" not in pair.a.records()
    with pair.a.puts_right("steady", "power"):
        os.kill(pair.a.ve("steady").pid, signal.SIGKILL)
    pair.a.await_ready("steady")
    pair.member.start()
    pair.a.await_ready("resting", "fresh")


def test_a_ve_that_is_in_the_trash_has_left_its_name_to_other_hosts(pair: Pair) -> None:
    pair.put(ve("gone", host="a"))
    pair.a.await_ready("gone")
    pair.put(without="gone")
    pair.a.await_removed("gone")
    pair.put(ve("gone", host="b"))
    pair.b.await_ready("gone")


def test_every_host_tells_of_its_ves_and_any_host_shows_them(pair: Pair) -> None:
    pair.put(ve("here", host="a"), ve("there", host="b", power="stopped"))
    pair.a.await_ready("here")
    pair.b.await_ready("there")

    def shown() -> dict[str, tuple[str, str]]:
        items = json.loads(pair.a.vectl("get", "--fleet", "-o", "json"))["items"]
        return {item["name"]: (item["host"], item["power"]) for item in items}

    wanted = {"here": ("a", "running"), "there": ("b", "stopped")}
    until(lambda: wanted.items() <= shown().items(), "both hosts to tell")
    assert "there" in pair.a.vectl("get", "--fleet", "-o", "wide")
    hosts = json.loads(pair.b.vectl("host", "list", "-o", "json"))["items"]
    assert [(host["name"], host["alive"], host["maintenance"]) for host in hosts] == [
        ("a", True, False),
        ("b", True, False),
    ]
    assert pair.b.vectl("host", "list").splitlines()[1].split()[:3] == ["a", "alive", "no"]


def test_another_coordinator_is_believed_only_after_a_person_said_so(pair: Pair) -> None:
    pair.put(ve("steady", host="a"))
    pair.a.await_ready("steady")
    init = pair.a.ve("steady").init
    with pair.a.in_one_moment(), pair.b.in_one_moment():
        pair.member.kill()
        shutil.rmtree(pair.member.directory)
        pair.member.start()
        pair.cluster.await_health()
    pair.put(ve("late", host="a"))
    assert "accept-coordinator" in pair.a.await_reason("late", "OwnershipUnknown").message
    assert "late" not in pair.a.records()
    pair.a.complaint("host", "accept-coordinator", code=64)
    for one in (pair.a, pair.b):
        assert "cluster" in one.vectl("host", "accept-coordinator", "--yes")
    pair.a.await_ready("late", "steady")
    assert pair.a.ve("steady").init == init


def test_a_ve_that_is_renamed_and_given_to_another_host_at_once_is_not_made_anew_there(pair: Pair) -> None:
    pair.put(ve("former", host="a"))
    pair.a.await_ready("former")
    with pair.a.in_one_moment():
        pair.put(ve("latter", host="b", metadata={"renamedFrom": "former"}), without="former")
        assert "former is on a" in pair.b.await_reason("latter", "OwnedElsewhere").message
        assert "latter" not in pair.b.records()
        pair.put(ve("former", host="a"), without="latter")
    pair.a.await_ready("former")
