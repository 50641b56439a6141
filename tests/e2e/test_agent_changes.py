"""Claims about edits of manifests: what can be changed in a running VE is, and what cannot restarts only that VE."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.condition import ConditionType, Status
from reconciler.state.conditions import SOURCE
from tests.support.fleet import Fleet, Value, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("agent-changes")

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    lan = network("lan", "10.191.2.0/24", "fd91:2::/64", gateway=["10.191.2.1", "fd91:2::1"])
    with made_fleet(tmp_path_factory.getbasetemp(), lan) as made:
        for name in NAMES:
            describe(made, name)
        made.start_agent()
        made.await_ready(*NAMES)
        yield made


def describe(fleet: Fleet, name: str, *addresses: str, **spec: Value) -> None:
    """Write the manifest of a VE, with its usual addresses unless told otherwise."""
    number = 11 + NAMES.index(name)
    fleet.put(f"{name}.yaml", ve(name, *(addresses or usual(number)), **spec))


def usual(number: int) -> tuple[str, str]:
    return f"10.191.2.{number}/24", f"fd91:2::{number}/64"


@pytest.fixture
def a(fleet: Fleet) -> Iterator[Ve]:
    yield fleet.ve("a")
    describe(fleet, "a")
    fleet.await_ready("a")


def neighbours(one: Ve) -> dict[str, str]:
    """Give the hardware addresses that a VE takes others to have, by address."""
    return {entry["dst"]: entry.get("lladdr", "") for entry in one.net_json("ip", "-j", "neigh")}


def mac(one: Ve) -> str:
    found: str = one.net_json("ip", "-j", "link", "show", "eth0")[0]["address"]
    return found


def test_limits_grow_and_shrink_in_a_running_ve(fleet: Fleet, a: Ve) -> None:
    init = a.init
    for memory, processes, cpu, disk in ((96, 300, 1.5, 128), (48, 50, 0.25, 48)):
        describe(
            fleet,
            "a",
            memory={"limit": f"{memory}Mi"},
            processes=processes,
            cpu={"limit": cpu, "weight": memory},
            disk={"size": f"{disk}Mi"},
        )
        fleet.await_ready("a")
        assert a.limit("memory.limit") == memory << 20
        assert a.limit("processes") == processes
        assert a.limit("cpu.limit") == cpu * 100_000
        assert a.limit("cpu.weight") == memory
        assert a.init == init
        room = a.shell(f"dd if=/dev/zero of=/big bs=1M count={disk * 2} 2>/dev/null; stat -c %s /big; rm /big")
        assert disk * 0.8 < int(room) / (1 << 20) <= disk


def test_a_field_that_is_taken_out_of_the_manifest_is_at_its_default_again(fleet: Fleet, a: Ve) -> None:
    init = a.init
    describe(fleet, "a", processes=50, cpu={"limit": 0.5})
    fleet.await_ready("a")
    assert (a.limit("processes"), a.limit("cpu.limit")) == (50, 50_000)
    describe(fleet, "a")
    fleet.await_ready("a")
    assert (a.limit("processes"), a.limit("cpu.limit")) == (4096, None)
    assert a.init == init


def test_a_ve_is_renumbered_while_it_runs(fleet: Fleet, a: Ve) -> None:
    init, b = a.init, fleet.ve("b")
    reaches(b, "10.191.2.11")
    describe(fleet, "a", "10.191.2.41/24", "fd91:2::41/64")
    fleet.await_ready("a")
    assert a.addresses() == {"10.191.2.41/24", "fd91:2::41/64"}
    for address in ("10.191.2.41", "fd91:2::41"):
        reaches(b, address)
    for address in ("10.191.2.11", "fd91:2::11"):
        assert b.try_run("ping", "-c", "1", "-W", "1", address)[0] != 0
    reaches(a, "10.191.2.1")
    assert a.init == init


def test_an_address_that_moves_to_another_ve_is_found_there_at_once(fleet: Fleet, a: Ve) -> None:
    b, c = fleet.ve("b"), fleet.ve("c")
    inits = a.init, b.init, c.init
    for address in ("10.191.2.11", "fd91:2::11"):
        reaches(b, address)
        assert neighbours(b)[address] == mac(a)
    try:
        describe(fleet, "a", *usual(13))
        describe(fleet, "c", *usual(11))
        fleet.await_ready("a", "c")
        for address in ("10.191.2.11", "fd91:2::11"):
            assert neighbours(b)[address] == mac(c)
            assert b.try_run("ping", "-c", "1", "-W", "2", address)[0] == 0
    finally:
        describe(fleet, "a")
        describe(fleet, "c")
        fleet.await_ready("a", "c")
    assert (a.init, b.init, c.init) == inits


def test_a_ve_without_an_interface_gets_one_and_loses_it_while_it_runs(fleet: Fleet, a: Ve) -> None:
    init = a.init
    describe(fleet, "a", interfaces=[])
    fleet.await_ready("a")
    assert [link["ifname"] for link in a.net_json("ip", "-j", "link")] == ["lo"]
    describe(fleet, "a")
    fleet.await_ready("a")
    reaches(a, "10.191.2.12")
    assert a.init == init


def test_names_change_while_it_runs(fleet: Fleet, a: Ve) -> None:
    init = a.init
    describe(fleet, "a", hostname="shop.example.org", dns={"servers": ["10.191.2.1"], "search": ["example.org"]})
    fleet.await_ready("a")
    assert a.run("hostname") == "shop.example.org\n"
    assert a.run("cat", "/etc/hostname") == "shop.example.org\n"
    assert "nameserver 10.191.2.1\n" in a.run("cat", "/etc/resolv.conf")
    assert a.init == init


def test_a_ve_is_stopped_and_started_by_its_manifest(fleet: Fleet, a: Ve) -> None:
    former, others = a.init, [fleet.ve(name).init for name in ("b", "c")]
    a.run("touch", "/root/kept")
    describe(fleet, "a", power="stopped")
    fleet.await_ready("a")
    assert not a.runs
    assert not a.cgroup.exists()
    assert a.link() not in fleet.host("ip", "link")
    describe(fleet, "a")
    fleet.await_ready("a")
    assert a.init != former
    a.run("test", "-e", "/root/kept")
    reaches(a, "10.191.2.12")
    assert [fleet.ve(name).init for name in ("b", "c")] == others


def test_a_ve_that_is_stopped_is_off_the_network_whoever_stays_in_its_namespace(fleet: Fleet, a: Ve) -> None:
    for stop in (lambda: fleet.ask("restart", ve="a", by="somebody"), lambda: describe(fleet, "a", power="stopped")):
        former = a.init
        with open(f"/proc/{former.pid}/ns/net"):  # as somebody who looks at its traffic
            reaches(fleet, "10.191.2.11")
            stop()
            fleet.await_ready("a")
            assert not a.runs or a.init != former
            assert a.runs is (a.link() in fleet.host("ip", "link"))
            describe(fleet, "a")
            fleet.await_ready("a")
            reaches(a, "10.191.2.12")


def test_what_is_fixed_at_start_restarts_the_ve_and_no_other(fleet: Fleet, a: Ve) -> None:
    former, others = a.init, [fleet.ve(name).init for name in ("b", "c")]
    describe(fleet, "a", rlimits={"nofile": 777})
    fleet.await_ready("a")
    assert a.init != former
    limits = Path(f"/proc/{a.pid}/limits").read_text().splitlines()
    assert next(line.split()[3:5] for line in limits if line.startswith("Max open files")) == ["777", "777"]
    assert [fleet.ve(name).init for name in ("b", "c")] == others


def test_a_rename_keeps_the_ve(fleet: Fleet, a: Ve) -> None:
    init, others = a.init, [fleet.ve(name).init for name in ("b", "c")]
    try:
        fleet.drop("a.yaml")
        fleet.put("new.yaml", ve("new", *usual(11), metadata={"renamedFrom": "a"}))
        fleet.await_ready("new")
        assert fleet.ve("new") == a
        assert "a" not in fleet.records()
        assert a.init == init
        assert a.run("hostname") == "new\n"
    finally:
        fleet.drop("new.yaml")
        fleet.put("a.yaml", ve("a", *usual(11), metadata={"renamedFrom": "new"}))
        fleet.await_ready("a")
    assert [fleet.ve(name).init for name in ("b", "c")] == others


def test_a_rename_that_nobody_declared_is_refused(fleet: Fleet, a: Ve) -> None:
    init = a.init
    try:
        fleet.drop("a.yaml")
        fleet.put("new.yaml", ve("new", *usual(11)))
        told = fleet.await_reason("new", "LooksLikeRename", ConditionType.STALLED)
        assert "renamedFrom: a" in told.message
        with fleet.puts_right("b", "memory.limit"):
            fleet.ve("b").memory_limit_file.write_text(str(32 << 20))
        assert set(fleet.records()) == set(NAMES)
        assert a.init == init
    finally:
        fleet.drop("new.yaml")


def test_a_paused_ve_is_left_alone_and_the_others_are_not(fleet: Fleet, a: Ve) -> None:
    fleet.ask("pause", ve="a", reason="maintenance", by="somebody")
    try:
        fleet.await_reason("a", "Paused", ConditionType.PAUSED)
        a.memory_limit_file.write_text(str(32 << 20))
        describe(fleet, "a", processes=77)
        describe(fleet, "b", processes=77)
        fleet.await_ready("b")
        with fleet.puts_right("b", "memory.limit"):
            fleet.ve("b").memory_limit_file.write_text(str(32 << 20))
        fleet.await_reason("a", "Paused")
        assert (a.limit("memory.limit"), a.limit("processes")) == (32 << 20, 4096)
    finally:
        fleet.ask("unpause", ve="a", by="somebody")
        describe(fleet, "b")
    until(lambda: (a.limit("memory.limit"), a.limit("processes")) == (64 << 20, 77), "the limits of the manifest")
    fleet.await_ready("a", "b")


def test_a_pause_of_all_leaves_everything_alone(fleet: Fleet, a: Ve) -> None:
    fleet.ask("pause", reason="maintenance", by="somebody")
    try:
        for name in NAMES:
            fleet.await_reason(name, "Paused", ConditionType.PAUSED)
        a.memory_limit_file.write_text(str(32 << 20))
        fleet.host("nft", "delete", "table", "bridge", fleet.instance.name)
        describe(fleet, "b", processes=77)
        until(lambda: fleet.conditions("b")[ConditionType.READY].revision == fleet.revision(), "the edit to be seen")
        assert a.limit("memory.limit") == 32 << 20
        assert fleet.ve("b").limit("processes") == 4096
        assert f"table bridge {fleet.instance.name}" not in fleet.host("nft", "list", "tables")
    finally:
        describe(fleet, "b")
        fleet.ask("unpause", by="somebody")
    until(lambda: a.limit("memory.limit") == 64 << 20, "the limit to be put right")
    until(lambda: f"table bridge {fleet.instance.name}" in fleet.host("nft", "list", "tables"), "the rules")
    fleet.await_ready(*NAMES)


def test_an_edit_that_is_not_whole_yet_is_not_taken(fleet: Fleet, a: Ve) -> None:
    init = a.init
    whole = (fleet.manifests / "a.yaml").read_text()
    descriptor = os.open(fleet.manifests / "a.yaml", os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, whole[: len(whole) // 2].encode())
        until(lambda: fleet.conditions(SOURCE)[ConditionType.VALID].status is Status.FALSE, "the half to be refused")
        os.write(descriptor, whole[len(whole) // 2 :].encode())
    finally:
        os.close(descriptor)
    until(lambda: fleet.conditions(SOURCE)[ConditionType.VALID].status is Status.TRUE, "the whole to be taken")
    fleet.await_ready("a")
    assert a.init == init
