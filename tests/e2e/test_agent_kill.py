"""Claims about kill -9 at the worst moments: the next agent ends what the killed one began; nothing is left over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.host import lxcfs
from reconciler.kernel import command
from reconciler.state import layout
from reconciler.state.inventory import Inventory
from reconciler.state.journal import Journal
from tests.support import leftovers
from tests.support.fleet import Fleet, Value, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("agent-kill")

SUBNET = "10.191.5"
MOMENTS = ("before", "after")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    lan = network("lan", f"{SUBNET}.0/24", gateway=[f"{SUBNET}.1"], nat=True)
    with made_fleet(tmp_path_factory.getbasetemp(), lan) as made:
        for name in ("old", "bystander"):
            describe(made, name)
        made.start_agent()
        made.await_ready("old", "bystander")
        for name in ("old", "bystander"):
            made.ve(name).shell("echo precious > /root/data")
        made.end_agent()
        yield made


def describe(fleet: Fleet, name: str, *, address: str = "", **spec: Value) -> None:
    numbers = {"old": 11, "bystander": 12}
    number = numbers.get(name) or 20 + len(fleet.records())
    fleet.put(f"{name}.yaml", ve(name, address or f"{SUBNET}.{number}/24", **spec))


def kill_at(fleet: Fleet, effect: str, moment: str) -> None:
    """Let an agent die at an effect, and another one converge."""
    fleet.start_agent("--enable-failpoints", failpoints=f"{effect}:{moment}=kill", wait=False)
    assert fleet.await_agent_end() == -signal.SIGKILL
    fleet.start_agent()


@pytest.fixture
def left_in_order(fleet: Fleet) -> Iterator[None]:
    """Look, when the test has converged, that everything is there once and nothing else is, with no data lost."""
    bystander = fleet.ve("bystander")
    init = bystander.init
    yield
    wanted = {path.stem for path in fleet.manifests.glob("*.yaml")} - {"all"}
    fleet.await_ready(*wanted)
    fleet.end_agent()
    assert_in_order(fleet, wanted)
    assert bystander.init == init
    for name in ("old", "bystander"):
        assert fleet.ve(name).run("cat", "/root/data") == "precious\n"


def assert_in_order(fleet: Fleet, wanted: set[str]) -> None:
    records = fleet.records()
    uids = {record.uid for record in records.values()}
    assert set(records) == wanted
    assert os.listdir(fleet.instance.trash) == []
    assert set(os.listdir(fleet.instance.ves)) == uids
    assert Inventory(layout.inventory_dir(fleet.instance)).read().keys() == uids
    assert list(Journal(layout.journal_dir(fleet.instance)).unfinished()) == []
    assert volumes(fleet) == len(uids)
    for hierarchy in leftovers.cgroups(fleet.instance):
        assert {entry.name for entry in Path(hierarchy).iterdir() if entry.is_dir()} == uids
    inits = {fleet.ve(name).pid for name in wanted}
    assert {pid for uid in uids for pid in first_processes(fleet, uid)} == inits
    assert children(keeper(fleet)) == inits | lxcfs_of(fleet)
    assert set(os.listdir(f"{fleet.instance.run_dir}/runtime")) == uids
    assert sorted(links(fleet)) == sorted(fleet.ve(name).link() for name in wanted)


def volumes(fleet: Fleet) -> int:
    listed = command.run(["btrfs", "subvolume", "list", fleet.instance.pool], timeout_s=30.0)
    return len(listed.splitlines())


def first_processes(fleet: Fleet, uid: str) -> list[int]:
    """Find the processes of a VE's cgroup that are the first of a process namespace: one for each running copy."""
    procs = [line for path in leftovers.cgroups(fleet.instance) for line in members(Path(path, uid))]
    return sorted({pid for pid in procs if namespace_pid(pid) == 1})


def members(directory: Path) -> list[int]:
    return [int(word) for file in directory.rglob("cgroup.procs") for word in file.read_text().split()]


def namespace_pid(pid: int) -> int | None:
    """Give the pid that a process has in its own namespace; None, if it has ended since it was listed."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next(int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid"))


def keeper(fleet: Fleet) -> int:
    found = [line for line in leftovers.processes(fleet.instance) if "reconciler.host.keeper" in line]
    assert len(found) == 1, found
    return int(found[0].split(":")[0])


def lxcfs_of(fleet: Fleet) -> set[int]:
    """Give the pid of what serves the VEs their /proc, which outlives the agent as they do."""
    running = lxcfs.find(fleet.instance)
    return set() if running is None else {running.process.pid}


def children(pid: int) -> set[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found}


def links(fleet: Fleet) -> list[str]:
    mark = f"{fleet.instance.name}:"
    shown = fleet.host_json("ip", "-j", "link", "show", "type", "veth")
    return [link["ifname"] for link in shown if link.get("ifalias", "").startswith(mark)]


@pytest.mark.usefixtures("left_in_order")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "effect",
    [
        "CreateVolume",
        "CreateRuntime",
        "StartRuntime",
        *(
            pytest.param(effect, marks=pytest.mark.long)
            for effect in ("WriteRecord", "CreateCgroup", "CreateInterface")
        ),
    ],
)
def test_a_creation_is_taken_up_where_it_was_cut_off(fleet: Fleet, effect: str, moment: str) -> None:
    name = f"{effect.lower()}-{moment}"
    describe(fleet, name)
    kill_at(fleet, effect, moment)
    fleet.await_ready(name)
    reaches(fleet.ve(name), f"{SUBNET}.1")


@dataclass(frozen=True, slots=True)
class Change:
    """An edit of the VE ``old``, or of the host, that is cut off at an effect, and what has to come of it."""

    effect: str
    begin: Callable[[Fleet], object]
    is_done: Callable[[Fleet], object]


CHANGES = (
    Change(
        "SetLimit",
        lambda fleet: describe(fleet, "old", memory={"limit": "80Mi"}),
        lambda fleet: fleet.ve("old").limit("memory.limit") == 80 << 20,
    ),
    Change(
        "AddAddress",
        lambda fleet: describe(fleet, "old", address=f"{SUBNET}.19/24"),
        lambda fleet: fleet.ve("old").addresses() == {f"{SUBNET}.19/24"},
    ),
    Change(
        "LoadFilter",
        lambda fleet: fleet.host("nft", "delete", "table", "bridge", fleet.instance.name),
        lambda fleet: f"table bridge {fleet.instance.name}" in fleet.host("nft", "list", "tables"),
    ),
)


@pytest.mark.usefixtures("left_in_order")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.effect)
def test_a_change_is_taken_up_where_it_was_cut_off(fleet: Fleet, change: Change, moment: str) -> None:
    init = fleet.ve("old").init
    change.begin(fleet)
    kill_at(fleet, change.effect, moment)
    until(lambda: change.is_done(fleet), f"{change.effect} to be done")
    assert fleet.ve("old").init == init
    describe(fleet, "old")


@pytest.mark.usefixtures("left_in_order")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stop_is_taken_up_where_it_was_cut_off(fleet: Fleet, moment: str) -> None:
    old = fleet.ve("old")
    describe(fleet, "old", power="stopped")
    kill_at(fleet, "StopRuntime", moment)
    fleet.await_ready("old")
    assert not old.runs
    assert not old.cgroup.exists()
    describe(fleet, "old")


@pytest.mark.long
@pytest.mark.usefixtures("left_in_order")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_restart_is_taken_up_where_it_was_cut_off(fleet: Fleet, moment: str) -> None:
    former = fleet.ve("old").init
    describe(fleet, "old", rlimits={"nofile": 700})
    kill_at(fleet, "StopRuntime", moment)
    fleet.await_ready("old")
    assert fleet.ve("old").init != former
    describe(fleet, "old")


@pytest.mark.usefixtures("left_in_order")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_removal_is_taken_up_where_it_was_cut_off_and_can_be_taken_back(fleet: Fleet, moment: str) -> None:
    old = fleet.ve("old")
    fleet.drop("old.yaml")
    kill_at(fleet, "TrashVe", moment)
    fleet.await_removed("old")
    assert [entry.split(".")[0] for entry in os.listdir(fleet.instance.trash)] == [old.uid]
    describe(fleet, "old")
    fleet.await_ready("old")
    assert fleet.ve("old") == old


@pytest.mark.usefixtures("left_in_order")
def test_effects_that_were_done_and_said_to_have_failed_are_not_done_twice(fleet: Fleet) -> None:
    ambiguous = ("CreateVolume", "CreateCgroup", "CreateRuntime", "CreateInterface", "StartRuntime")
    failpoints = ";".join(f"{effect}:after=1*error(EIO)" for effect in ambiguous)
    describe(fleet, "ambiguous")
    fleet.start_agent("--enable-failpoints", failpoints=failpoints)
    for number in range(1, len(ambiguous) + 1):
        until(lambda number=number: injected(fleet, "ambiguous") >= number, "the next failure")  # type: ignore[misc]
        fleet.ask("reconcile", ve="ambiguous")  # without waiting for the back-off
    fleet.await_ready("ambiguous")
    assert injected(fleet, "ambiguous") == len(ambiguous)


def injected(fleet: Fleet, name: str) -> int:
    return fleet.told(name).count("InjectedFailureError")


@pytest.mark.usefixtures("left_in_order")
def test_a_killed_agent_leaves_no_process_behind(fleet: Fleet) -> None:
    fleet.start_agent()
    stay = {fleet.ve(name).pid for name in fleet.records()} | lxcfs_of(fleet) | {keeper(fleet)}
    fleet.end_agent(signal.SIGKILL)
    until(
        lambda: {int(line.split(":")[0]) for line in leftovers.processes(fleet.instance)} <= stay, "its helpers to end"
    )
    fleet.start_agent()
