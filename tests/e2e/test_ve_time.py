"""Claims about what is kept of a VE's data, by its manifests: snapshots, the return to one, copies, a new beginning."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import btrfs
from reconciler.model.condition import ConditionType
from reconciler.model.identity import VeName
from reconciler.model.volume import Record
from tests.support.fleet import Document, Fleet, Value, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = [pytest.mark.xdist_group("ve-time"), pytest.mark.timeout(300)]

GOLDEN = [{"name": "golden"}]
OTHER: Document = {
    "apiVersion": "ve/v1",
    "kind": "Template",
    "metadata": {"name": "other"},
    "spec": {"source": {"builtin": "busybox"}},
}
_INSTALL = """
mkdir -p /usr/local/bin /home/ann
cat > /usr/local/bin/app <<'END'
#!/bin/sh
echo works
END
chmod 755 /usr/local/bin/app
dd if=/dev/urandom of=/home/ann/data bs=4096 count=64 2>/dev/null
chown -R 1000:1000 /home/ann
ln /home/ann/data /home/ann/same
echo own > /etc/own
sync
"""
_BREAK = "rm /usr/local/bin/app; echo broken > /home/ann/data; echo late > /root/late"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp()) as made:
        made.start_agent()
        yield made


def describe(fleet: Fleet, name: str, **spec: Value) -> None:
    fleet.put(f"{name}.yaml", ve(name, **spec))


def installed(fleet: Fleet, name: str, **spec: Value) -> str:
    """Make a VE, install something in it, and keep that; give the sum of its data."""
    describe(fleet, name, **spec)
    fleet.await_ready(name)
    fleet.ve(name).shell(_INSTALL)
    describe(fleet, name, snapshots=GOLDEN, **spec)
    fleet.await_ready(name)
    return sum_of(fleet, name)


def sum_of(fleet: Fleet, name: str) -> str:
    return fleet.ve(name).shell("md5sum /home/ann/data | cut -c1-32; stat -c %h:%u /home/ann/same; app 2>&1 || true")


def record(fleet: Fleet, name: str) -> Record:
    return fleet.records()[VeName(name)]


def kept(fleet: Fleet, name: str) -> dict[str, Path]:
    """Give the directories of the snapshots of a VE."""
    folder = Path(fleet.instance.snapshots_dir(record(fleet, name).uid))
    return {path.name: path for path in sorted(folder.glob("[!.]*"))} if folder.exists() else {}


def put_aside(fleet: Fleet, name: str) -> str:
    [found] = [other for other in kept(fleet, name) if other.startswith("before-")]
    return found


def test_what_was_broken_is_back_after_a_rollback_and_can_be_had_again(fleet: Fleet) -> None:
    before = installed(fleet, "web")
    assert record(fleet, "web").snapshot_births.keys() == {"golden"}
    fleet.ve("web").shell(_BREAK)
    init = fleet.ve("web").init
    describe(fleet, "web", snapshots=GOLDEN, rollback={"to": "golden", "request": "bad upgrade"})
    fleet.await_ready("web")
    web = fleet.ve("web")
    assert (sum_of(fleet, "web"), web.shell("cat /root/late 2>&1 || true").count("late")) == (before, 1)
    assert web.init != init
    assert record(fleet, "web").requests_done == ("golden: bad upgrade",)
    aside = put_aside(fleet, "web")
    web.shell("echo new > /root/new")
    describe(fleet, "web", snapshots=GOLDEN, rollback={"to": "golden", "request": "bad upgrade"}, description="again")
    fleet.await_ready("web")
    assert fleet.ve("web").shell("cat /root/new") == "new\n"
    describe(fleet, "web", snapshots=GOLDEN, rollback={"to": aside, "request": "undo"})
    fleet.await_ready("web")
    assert fleet.ve("web").shell("cat /root/late /home/ann/data; ls /root") == "late\nbroken\nlate\n"


def test_a_rollback_of_a_stopped_ve_leaves_it_stopped(fleet: Fleet) -> None:
    installed(fleet, "still")
    fleet.ve("still").shell("echo late > /etc/own; sync")
    describe(fleet, "still", snapshots=GOLDEN, power="stopped")
    fleet.await_ready("still")
    describe(fleet, "still", snapshots=GOLDEN, power="stopped", rollback={"to": "golden", "request": "1"})
    fleet.await_ready("still")
    assert not fleet.ve("still").runs
    assert (fleet.ve("still").upper / "etc/own").read_text() == "own\n"


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("StopRuntime:after", marks=pytest.mark.long),
        pytest.param("RollBack:before", marks=pytest.mark.long),
        "RollBack:after",
        pytest.param("WriteRecord:before", marks=pytest.mark.long),
    ],
)
def test_an_agent_that_is_killed_in_a_rollback_leaves_the_old_or_the_new_and_it_is_done_once(
    fleet: Fleet, point: str
) -> None:
    name = f"k{point.partition(':')[0].lower()}{point[-1]}"
    before = installed(fleet, name)
    fleet.ve(name).shell(_BREAK)
    assert fleet.end_agent() == 0
    fleet.start_agent("--enable-failpoints", failpoints=f"{point}=kill", wait=False)
    describe(fleet, name, snapshots=GOLDEN, rollback={"to": "golden", "request": point})
    assert fleet.await_agent_end() == -signal.SIGKILL
    fleet.start_agent()
    fleet.await_ready(name)
    assert sum_of(fleet, name) == before
    assert record(fleet, name).requests_done == (f"golden: {point}",)
    assert put_aside(fleet, name)


def test_a_clone_has_the_data_of_the_snapshot_and_an_identity_of_its_own(fleet: Fleet) -> None:
    before = installed(fleet, "origin")
    fleet.ve("origin").shell(_BREAK)
    describe(fleet, "copy", source={"clone": "origin", "snapshot": "golden"})
    describe(fleet, "mirror", source={"clone": "origin"}, power="stopped")
    fleet.await_ready("copy", "mirror", "origin")
    assert sum_of(fleet, "copy") == before
    assert fleet.ve("copy").shell("hostname") == "copy\n"
    assert (fleet.ve("mirror").upper / "root/late").read_text() == "late\n"
    fleet.ve("copy").shell("echo mine > /etc/own")
    assert fleet.ve("origin").shell("cat /etc/own") == "own\n"
    describe(fleet, "copy", source={"clone": "nobody"}, description="no longer of interest")
    fleet.await_ready("copy")


def test_a_clone_of_nothing_is_not_made_and_says_why(fleet: Fleet) -> None:
    describe(fleet, "orphan", source={"clone": "nobody"})
    assert "nobody" in fleet.await_reason("orphan", "CloneSourceMissing").message
    fleet.drop("orphan.yaml")


def test_another_template_needs_consent_and_carries_over_what_is_kept(fleet: Fleet) -> None:
    before = installed(fleet, "anew", keep=["/home", "/srv"])
    fleet.put("anew.yaml", OTHER, ve("anew", snapshots=GOLDEN, keep=["/home", "/srv"], template="other"))
    message = fleet.await_reason("anew", "NeedsConsent").message
    assert fleet.ve("anew").shell("cat /etc/own") == "own\n"
    fleet.vectl("approve", message.rpartition("approve ")[2].strip("`"))
    fleet.await_ready("anew")
    assert sum_of(fleet, "anew").splitlines()[:2] == before.splitlines()[:2]
    assert "own" not in fleet.ve("anew").shell("cat /etc/own 2>/dev/null || true")
    assert record(fleet, "anew").template == "other"
    aside = put_aside(fleet, "anew")
    rollback = {"to": aside, "request": "the old one was better"}
    fleet.put("anew.yaml", ve("anew", snapshots=GOLDEN, keep=["/home", "/srv"], rollback=rollback))
    fleet.await_ready("anew")
    assert sum_of(fleet, "anew") == before
    assert record(fleet, "anew").template == "busybox"


def test_a_schedule_takes_snapshots_in_time_and_keeps_the_last(fleet: Fleet) -> None:
    describe(fleet, "hourly", snapshotSchedule={"every": "1s", "keep": 2})
    fleet.await_ready("hourly")
    first = set(kept(fleet, "hourly"))
    until(lambda: len(kept(fleet, "hourly")) >= 2 and not first & set(kept(fleet, "hourly")), "the first to go")
    assert len(kept(fleet, "hourly")) <= 3
    describe(fleet, "hourly")
    message = fleet.await_reason("hourly", "NeedsConsent").message
    fleet.vectl("approve", message.rpartition("approve ")[2].strip("`"))
    fleet.await_ready("hourly")
    assert kept(fleet, "hourly") == {}


def test_a_removed_snapshot_goes_with_consent_and_a_lost_one_is_missed(fleet: Fleet) -> None:
    installed(fleet, "loser")
    listed = json.loads(fleet.vectl("snapshot", "list", "loser", "-o", "json"))
    assert [(item["name"], item["kind"], item["memory"]) for item in listed["items"]] == [("golden", "named", False)]
    assert listed["items"][0]["used"] is not None
    assert "golden" in fleet.vectl("snapshot", "list")
    assert "golden" in fleet.vectl("describe", "loser")
    describe(fleet, "loser")
    message = fleet.await_reason("loser", "NeedsConsent").message
    assert kept(fleet, "loser").keys() == {"golden"}
    fleet.vectl("approve", message.rpartition("approve ")[2].strip("`"))
    fleet.await_ready("loser")
    assert kept(fleet, "loser") == {}
    assert not record(fleet, "loser").snapshot_births
    describe(fleet, "loser", snapshots=[{"name": "second"}])
    fleet.await_ready("loser")
    fleet.end_agent()
    btrfs.delete_subvolume(str(kept(fleet, "loser")["second"] / "volume"))
    (kept(fleet, "loser")["second"] / "meta.json").unlink()
    kept(fleet, "loser")["second"].rmdir()
    fleet.start_agent()
    assert "second" in fleet.await_reason("loser", "SnapshotLost", ConditionType.STALLED).message
    assert kept(fleet, "loser") == {}
