"""Claims about two instances on one host: they share names, and never meet."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from reconciler.host import lxcfs
from reconciler.model.identity import VeName
from tests.support import leftovers
from tests.support.fleet import Document, Fleet, neighbour, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("ve-instances")


def documents(number: int) -> tuple[Document, ...]:
    lan = network("lan", f"10.191.{number}.0/24", gateway=[f"10.191.{number}.1"], nat=True)
    return lan, *(ve(name, f"10.191.{number}.{host}/24") for name, host in (("a", 11), ("b", 12)))


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Fleet]]:
    base = tmp_path_factory.getbasetemp()
    with made_fleet(base, *documents(14)) as one, neighbour(one, base, *documents(15)) as other:
        for each in (one, other):
            each.start_agent()
        for each in (one, other):
            each.await_ready("a", "b")
        yield one, other


def everything(fleet: Fleet) -> dict[str, object]:
    """Give what of an instance an effect of another one would change, once its agent has nothing left to do."""
    fleet.settle()
    ves = {name: fleet.ve(name) for name in ("a", "b")}
    mark = f"{fleet.instance.name}:"
    return {
        "inits": {name: one.init for name, one in ves.items()},
        "ids": {name: fleet.records()[VeName(name)].id_base for name in ves},
        "links": [
            (link["ifname"], link["ifindex"], link.get("master"))
            for link in fleet.host_json("ip", "-j", "link")
            if link.get("ifalias", "").startswith(mark)
        ],
        "tables": [
            fleet.host("nft", "-a", "list", "table", family, fleet.instance.name) for family in ("bridge", "inet")
        ],
        "limits": {name: one.cgroup.read_limits() for name, one in ves.items()},
        "cgroups": leftovers.cgroups(fleet.instance),
        "passes": fleet.actions(),
    }


def test_both_run_ves_of_the_same_names(fleets: tuple[Fleet, Fleet]) -> None:
    one, other = fleets
    assert one.ve("a").uid != other.ve("a").uid
    assert one.ve("a").init != other.ve("a").init
    reaches(one.ve("a"), "10.191.14.12")
    reaches(other.ve("a"), "10.191.15.12")


def test_ids_of_ves_do_not_overlap(fleets: tuple[Fleet, Fleet]) -> None:
    bases = sorted(record.id_base for fleet in fleets for record in fleet.records().values())
    assert all(later - earlier >= 65536 for earlier, later in pairwise(bases))


def test_what_happens_to_one_is_nothing_to_the_other(fleets: tuple[Fleet, Fleet]) -> None:
    one, other = fleets
    before = everything(other)
    with one.puts_right("a", "memory.limit"):
        one.ve("a").memory_limit_file.write_text(str(32 << 20))
    with one.puts_right("host/filter", "rules"):
        one.host("nft", "delete", "table", "bridge", one.instance.name)
    with one.puts_right("a", "power"):
        os.kill(one.ve("a").pid, signal.SIGKILL)
    with one.puts_right("a", "interfaces.eth0.addresses"):
        one.ve("a").net("ip", "addr", "add", "10.191.14.99/24", "dev", "eth0")
    one.put("all.yaml", *documents(14)[:2])
    one.await_removed("b")
    one.put("all.yaml", *documents(14))
    one.await_ready("a", "b")
    assert everything(other) == before


def test_taking_one_down_leaves_the_other_as_it_is(fleets: tuple[Fleet, Fleet]) -> None:
    one, other = fleets
    before = everything(one)
    other.end_agent()
    other.vectl("down", "--yes")
    assert leftovers.find(other.instance, other.namespace) == []
    assert everything(one) == before
    with one.puts_right("a", "hostname"):
        one.ve("a").run("hostname", "intruder")
        one.ask("reconcile")
    other.start_agent()
    until(lambda: other.is_ready("b"), "the other one to be made anew")
    other.await_ready("a", "b")
    assert everything(one)["inits"] == before["inits"]


def test_an_instance_has_one_agent(fleets: tuple[Fleet, Fleet]) -> None:
    one, other = fleets
    before = everything(one)
    said = one.complaint("agent", "--source", str(other.manifests))
    assert one.agent is not None
    assert f"held by another process, pid {one.agent.pid}" in said
    assert everything(one) == before


def test_the_end_of_ones_lxcfs_is_nothing_to_the_other(fleets: tuple[Fleet, Fleet]) -> None:
    one, other = fleets
    mine, others = lxcfs.find(one.instance), lxcfs.find(other.instance)
    assert mine is not None
    assert others is not None
    with other.puts_right("a", "views"):
        os.kill(others.process.pid, signal.SIGKILL)
    assert lxcfs.find(one.instance) == mine
    assert lxcfs.is_alive(one.instance)
    assert one.ve("a").try_run("cat", *lxcfs.TARGETS)[0] == 0
