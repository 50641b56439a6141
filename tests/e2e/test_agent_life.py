"""Claims about ends: of an init, from inside and outside; of the agent and of the keeper, which VEs live through."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from reconciler.host.keeper import records
from reconciler.host.keeper.protocol import LOG_NAME
from reconciler.model.condition import ConditionType
from reconciler.model.identity import VeName
from tests.support import leftovers
from tests.support.fleet import Fleet, Value, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("agent-life")

NAMES = ("plain", "steady", "never", "crashing")
RESTART = {"steady": "always", "never": "never"}
SUBNET = "10.191.4"

ROUNDED_S = 0.05
"""How much longer than it was a wait may look in the log, which gives tenths of a second."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    lan = network("lan", f"{SUBNET}.0/24", gateway=[f"{SUBNET}.1"], nat=True)
    with made_fleet(tmp_path_factory.getbasetemp(), lan) as made:
        for name in NAMES:
            describe(made, name)
        made.start_agent()
        made.await_ready(*NAMES)
        yield made


def describe(fleet: Fleet, name: str, **spec: Value) -> None:
    boot = {"stopTimeout": "5s", "restart": RESTART.get(name, "on-failure")}
    fleet.put(f"{name}.yaml", ve(name, f"{SUBNET}.{11 + NAMES.index(name)}/24", boot=boot, **spec))


def test_a_reboot_from_inside_starts_the_ve_again(fleet: Fleet) -> None:
    plain = fleet.ve("plain")
    former, others = plain.init, [fleet.ve(name).init for name in ("steady", "never")]
    plain.run("touch", "/root/kept", "/run/gone")
    with fleet.puts_right("plain", "power"):
        plain.try_run("reboot")
    assert plain.init != former
    plain.run("test", "-e", "/root/kept")
    plain.run("test", "!", "-e", "/run/gone")
    reaches(plain, f"{SUBNET}.1")
    assert [fleet.ve(name).init for name in ("steady", "never")] == others


def test_a_halt_from_inside_stays_down_until_somebody_starts_it(fleet: Fleet) -> None:
    plain = fleet.ve("plain")
    plain.try_run("poweroff")
    fleet.await_reason("plain", "HaltedInside", ConditionType.STALLED)
    fleet.ask("reconcile")
    with fleet.puts_right("steady", "memory.limit"):
        fleet.ve("steady").memory_limit_file.write_text(str(32 << 20))
    fleet.end_agent()
    fleet.start_agent()
    fleet.await_reason("plain", "HaltedInside", ConditionType.STALLED)
    assert not plain.runs
    fleet.ask("start", ve="plain", by="somebody")
    until(lambda: plain.runs, "it to run")
    fleet.await_ready("plain")


def test_a_halt_from_inside_ends_with_a_change_of_the_manifest(fleet: Fleet) -> None:
    plain = fleet.ve("plain")
    plain.try_run("poweroff")
    fleet.await_reason("plain", "HaltedInside", ConditionType.STALLED)
    describe(fleet, "plain", processes=99)
    until(lambda: plain.runs, "it to run")
    fleet.await_ready("plain")


def test_a_halt_is_no_crash_when_the_keeper_is_late_to_tell(fleet: Fleet) -> None:
    plain = fleet.ve("plain")
    init, parent, told = plain.init, keeper(fleet), fleet.told("plain")
    os.kill(parent, signal.SIGSTOP)
    try:
        plain.as_host("/sbin/poweroff", check=False)  # it is killed with all the others
        until(lambda: "(init) Z" in Path(f"/proc/{init.pid}/stat").read_text(), "init to have ended")
        with fleet.puts_right("steady", "memory.limit"):  # then the agent has looked at what happened before, too
            fleet.ve("steady").memory_limit_file.write_text(str(32 << 20))
    finally:
        os.kill(parent, signal.SIGCONT)
    fleet.await_reason("plain", "HaltedInside", ConditionType.STALLED)
    assert fleet.told("plain") == told  # nothing was tried before it was known
    assert not plain.runs
    fleet.ask("start", ve="plain", by="somebody")
    until(lambda: plain.runs, "it to run")
    fleet.await_ready("plain")


def test_one_that_shall_always_run_is_started_after_a_halt(fleet: Fleet) -> None:
    steady = fleet.ve("steady")
    former = steady.init
    with fleet.puts_right("steady", "power"):
        steady.try_run("poweroff")
    assert steady.init != former


def test_one_that_shall_never_be_started_again_is_not(fleet: Fleet) -> None:
    never = fleet.ve("never")
    os.kill(never.pid, signal.SIGKILL)
    told = fleet.await_reason("never", "InitEnded", ConditionType.STALLED)
    assert "signal 9" in told.message
    assert not never.runs
    fleet.ask("start", ve="never", by="somebody")
    until(lambda: never.runs, "it to run")
    fleet.await_ready("never")


def test_a_crash_loop_is_answered_ever_more_slowly_and_ends_by_itself(fleet: Fleet) -> None:
    crashing = fleet.ve("crashing")
    for _ in range(5):
        with fleet.puts_right("crashing", "power"):
            os.kill(crashing.pid, signal.SIGKILL)
    os.kill(crashing.pid, signal.SIGKILL)
    told = fleet.await_reason("crashing", "CrashLoop")
    assert "init ended" in told.message
    assert not crashing.runs
    until(lambda: crashing.runs, "it to be started after the delay")
    fleet.await_ready("crashing")


def test_a_ve_that_cannot_boot_is_tried_ever_more_seldom(fleet: Fleet) -> None:
    plain = fleet.ve("plain")
    describe(fleet, "plain", power="stopped")
    fleet.await_ready("plain")
    begin = len(fleet.log.read_text())
    fleet.host("ip", "link", "add", plain.link(), "type", "bridge")  # where the host's end of its interface belongs
    try:
        describe(fleet, "plain")
        told = fleet.await_reason("plain", "BusyError")
        assert plain.link() in told.message
        until(lambda: len(failures(fleet, "plain", begin)) >= 3, "three tries")
    finally:
        fleet.host("ip", "link", "del", plain.link())
    tries = failures(fleet, "plain", begin)[:3]
    for (at_s, wait_s), (next_s, _) in pairwise(tries):
        assert next_s - at_s >= wait_s - ROUNDED_S
    assert tries[2][1] > tries[1][1] > tries[0][1] >= 1.0
    fleet.ask("reconcile", ve="plain")
    until(lambda: plain.runs, "it to run")
    fleet.await_ready("plain")


def failures(fleet: Fleet, name: str, begin: int) -> list[tuple[float, float]]:
    """Give when the passes of a VE failed, and for how long each made the next one wait. Units: seconds."""
    lines = [json.loads(line) for line in fleet.log.read_text()[begin:].splitlines() if line.startswith("{")]
    return [
        (seconds(line["timestamp"]), line["retry_in_s"])
        for line in lines
        if line["event"] == "pass.failed" and line["key"] == name
    ]


def seconds(timestamp: str) -> float:
    hours, minutes, rest = timestamp.removesuffix("Z").split("T")[1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["told-to-end", "killed"])
def test_ves_outlive_the_agent_and_the_next_one_finds_nothing_to_do(fleet: Fleet, number: signal.Signals) -> None:
    fleet.settle()
    before, done = host(fleet), fleet.actions()
    status = fleet.end_agent(number)
    assert status == (0 if number == signal.SIGTERM else -number)
    assert host(fleet) == before
    fleet.start_agent()
    fleet.settle()
    assert fleet.actions() == done
    with fleet.puts_right("plain", "hostname"):
        fleet.ve("plain").run("hostname", "intruder")
        fleet.ask("reconcile")
    fleet.settle()
    assert fleet.actions()[len(done) :] == ["plain: 1"]
    assert host(fleet) == before


def host(fleet: Fleet) -> dict[str, object]:
    """Give what any effect would leave a trace in: inits, links, rules with their handles, records, cgroups."""
    ves = {name: fleet.ve(name) for name in NAMES}
    return {
        "inits": {name: one.init for name, one in ves.items()},
        "links": {
            link["ifname"]: (link["ifindex"], link.get("master")) for link in fleet.host_json("ip", "-j", "link")
        },
        "rules": fleet.host("nft", "-a", "list", "ruleset"),
        "records": {name: os.stat(fleet.instance.record_file(one.uid)).st_mtime_ns for name, one in ves.items()},
        "cgroups": {name: os.stat(one.memory_limit_file.parent).st_ino for name, one in ves.items()},
        "limits": {name: one.cgroup.read_limits() for name, one in ves.items()},
    }


def keeper(fleet: Fleet) -> int:
    """Find the instance's keeper."""
    found = [line for line in leftovers.processes(fleet.instance) if "reconciler.host.keeper" in line]
    assert len(found) == 1, found
    return int(found[0].split(":")[0])


def test_ves_outlive_the_keeper_and_their_end_is_then_of_unknown_cause(fleet: Fleet) -> None:
    ves = {name: fleet.ve(name) for name in ("plain", "never")}
    inits = {name: one.init for name, one in ves.items()}
    former = keeper(fleet)
    os.kill(former, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{former}").exists(), "the keeper to be gone")
    with fleet.puts_right("plain", "memory.limit"):
        ves["plain"].memory_limit_file.write_text(str(32 << 20))
    assert {name: one.init for name, one in ves.items()} == inits
    reaches(fleet, f"{SUBNET}.11")
    with fleet.puts_right("plain", "power"):
        for one in ves.values():
            os.kill(one.pid, signal.SIGKILL)
    assert ves["plain"].init != inits["plain"]
    told = fleet.await_reason("never", "InitEnded", ConditionType.STALLED)
    assert "cause unknown" in told.message
    exit_ = records.read_exit(fleet.instance.run_dir, ves["plain"].uid)
    assert exit_ is None or exit_.init != inits["plain"]
    assert keeper(fleet) != former
    fleet.ask("start", ve="never", by="somebody")
    fleet.await_ready("plain", "never")
    assert ves["plain"].run("id", "-u") == "0\n"
    assert Path(fleet.instance.run_dir, LOG_NAME).exists()


def test_a_stop_by_hand_stays_and_a_restart_by_hand_does_not(fleet: Fleet) -> None:
    plain = fleet.ve("plain")
    former = plain.init
    fleet.ask("restart", ve="plain", by="somebody")
    assert plain.init != former
    fleet.ask("stop", ve="plain", by="somebody", reason="maintenance")
    assert not plain.runs
    fleet.ask("reconcile")
    with fleet.puts_right("steady", "memory.limit"):
        fleet.ve("steady").memory_limit_file.write_text(str(32 << 20))
    fleet.await_reason("plain", "Paused", ConditionType.PAUSED)
    assert not plain.runs
    fleet.ask("start", ve="plain", by="somebody")
    until(lambda: plain.runs, "it to run")
    fleet.await_ready("plain")
    assert fleet.records()[VeName("plain")].uid == plain.uid
