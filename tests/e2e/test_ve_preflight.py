"""Claims about what keeps a VE from being suspended: it is named, with its process, and criu itself does refuse it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from threading import Event

import pytest

from reconciler.errors import TimeLimitError
from reconciler.host import preflight
from reconciler.host.site import Site
from reconciler.kernel import process_state
from reconciler.model.condition import ConditionType, Status
from reconciler.model.migration import Obstacle, ObstacleKind, RunningState
from tests.support import holding
from tests.support.fleet import Document, Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.xdist_group("ve-preflight")

UNSHARE = {"uts": "0x04000000", "ipc": "0x08000000", "net": "0x40000000", "pid": "0x20000000", "cgroup": "0x02000000"}
TIME = "0x80"
USER = "0x10000000"


def manifest(**spec: Value) -> tuple[Document, ...]:
    shown = ve("web1", "10.191.41.11/24", features={"nesting": True, "fuse": True}, **spec)
    return network("lan", "10.191.41.0/24", gateway=["10.191.41.1"]), shown, ve("quiet")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), *manifest()) as made:
        made.start_agent()
        made.await_ready("web1", "quiet")
        holding.put(made.ve("web1"), holding.compiled(tmp_path_factory.mktemp("holder")))
        yield made


@pytest.fixture(scope="module")
def site(fleet: Fleet) -> Iterator[Site]:
    made = Site(fleet.instance)
    yield made
    made.close()


@pytest.fixture
def one(fleet: Fleet) -> Ve:
    return fleet.ve("web1")


def named(found: tuple[Obstacle, ...], kind: ObstacleKind, *, by: str | None = "holder") -> str:
    """Give what one kind of obstacle is, of which there must be one, and no other kind."""
    assert {obstacle.kind for obstacle in found} == {kind}, found
    assert all(obstacle.remedy for obstacle in found)
    assert all((obstacle.process and obstacle.process.name) == by for obstacle in found), found
    return found[0].what


def test_a_ve_with_all_that_criu_saves_has_no_obstacle(site: Site, one: Ve) -> None:
    with holding.holding(one, "plenty"):
        assert holding.obstacles(site, one) == ()
        assert holding.refusal(site, one) is None


@pytest.mark.parametrize(
    ("held", "kind", "what"),
    [
        *(((f"unshare {flag}"), ObstacleKind.NAMESPACE, "namespace of its own") for flag in UNSHARE.values()),
        (f"unshare {TIME}", ObstacleKind.NAMESPACE, "time namespace"),
        ("mptcp", ObstacleKind.SOCKET, "MPTCP"),
        ("netlink 33", ObstacleKind.SOCKET, "more than 32 groups"),
        ("netlink 0", ObstacleKind.WAITING, "netlink"),
        ("backlog", ObstacleKind.WAITING, "port"),
        ("watch /proc", ObstacleKind.WATCH, "/proc"),
        ("watch /sys", ObstacleKind.WATCH, "/sys"),
        ("ruleset", ObstacleKind.FILE, "landlock"),
        ("open /dev/fuse", ObstacleKind.DEVICE, "/dev/fuse"),
    ],
)
def test_what_a_process_holds_is_named_and_criu_refuses_it(
    site: Site, one: Ve, held: str, kind: ObstacleKind, what: str
) -> None:
    with holding.holding(one, *held.split()):
        assert what in named(holding.obstacles(site, one), kind)
        assert holding.refusal(site, one) is not None


@pytest.mark.parametrize(
    ("held", "kind", "what"),
    [
        (f"unshare {USER}", ObstacleKind.NAMESPACE, "user namespace"),
        ("vsock", ObstacleKind.SOCKET, "VSOCK"),
        ("ring", ObstacleKind.FILE, "io_uring"),
        ("faults", ObstacleKind.FILE, "userfaultfd"),
        ("perf", ObstacleKind.FILE, "perf_event"),
        ("secret", ObstacleKind.FILE, "secretmem"),
    ],
)
def test_so_is_what_the_filter_keeps_from_most_processes(
    site: Site, one: Ve, held: str, kind: ObstacleKind, what: str
) -> None:
    with holding.holding(one, *held.split(), filtered=False):
        assert what in named(holding.obstacles(site, one), kind)
        assert holding.refusal(site, one) is not None


def test_a_message_queue_is_named_with_its_user_and_without(site: Site, one: Ve) -> None:
    with holding.holding(one, "queue"):
        found = holding.obstacles(site, one)
        assert {obstacle.kind for obstacle in found} == {ObstacleKind.QUEUE, ObstacleKind.FILE}
        assert holding.refusal(site, one) is not None
        one.shell("killall holder; while pidof holder; do sleep 0.02; done; ls /dev/mqueue")
        assert "/held" in named(holding.obstacles(site, one), ObstacleKind.QUEUE, by=None)
        assert holding.refusal(site, one) is not None


def test_a_file_system_that_criu_does_not_know_is_named(site: Site, one: Ve) -> None:
    one.as_host("sh", "-c", "mkdir -p /tmp/held && mount -t ramfs held /tmp/held")
    with holding.holding(one, "plenty"):
        found = holding.obstacles(site, one)
        assert "ramfs" in named(found, ObstacleKind.MOUNT, by=None)
        assert holding.refusal(site, one) is not None


def test_a_part_of_its_own_files_at_another_place_is_no_obstacle(site: Site, one: Ve) -> None:
    one.as_host("sh", "-c", "mkdir -p /tmp/shown && mount --bind /etc /tmp/shown")
    try:
        assert holding.obstacles(site, one) == ()
    finally:
        one.as_host("umount", "/tmp/shown")


def test_an_overlay_made_inside_is_named_as_criu_dumps_it_and_cannot_restore_it(site: Site, one: Ve) -> None:
    one.as_host("sh", "-c", "mkdir -p /tmp/held && mount -t overlay -o lowerdir=/etc:/usr held /tmp/held")
    with holding.holding(one, "plenty"):
        assert "overlay" in named(holding.obstacles(site, one), ObstacleKind.MOUNT, by=None)


def test_a_look_never_asks_a_file_system_of_the_ve(site: Site, one: Ve) -> None:
    one.shell("mkdir -p /tmp/held")
    with holding.holding(one, "fuse", "/tmp/held"):
        found = holding.obstacles(site, one)
        assert {obstacle.kind for obstacle in found} == {ObstacleKind.MOUNT, ObstacleKind.DEVICE}
        assert holding.refusal(site, one) is not None


@pytest.mark.parametrize(
    ("held", "kind"),
    [("stopped", ObstacleKind.STOPPED), ("traced", ObstacleKind.TRACED), ("vfork", ObstacleKind.STUCK)],
)
def test_a_process_that_is_held_still_is_named(site: Site, one: Ve, held: str, kind: ObstacleKind) -> None:
    with holding.holding(one, held):
        assert named(holding.obstacles(site, one), kind)


@pytest.mark.long
@pytest.mark.parametrize("held", ["stopped", "traced", "vfork"])
def test_criu_gives_up_or_hangs_at_a_process_that_is_held_still(site: Site, one: Ve, held: str) -> None:
    with holding.holding(one, held):
        assert holding.refusal(site, one) is not None


def test_what_was_put_in_from_outside_is_named_while_it_runs(site: Site, one: Ve) -> None:
    running = one.begin("sleep", "600")
    until(lambda: "sleep" in one.as_host("ps"), "the program to run")
    try:
        assert "outside" in named(holding.obstacles(site, one), ObstacleKind.OUTSIDER, by="sleep")
    finally:
        one.as_host("killall", "sleep")
    assert running.exception() is not None
    until(lambda: not holding.obstacles(site, one), "the program to be gone")


def test_what_its_root_has_made_of_the_network_is_named_as_it_would_be_lost(site: Site, one: Ve) -> None:
    one.net("ip", "link", "add", "inner0", "type", "bridge")
    one.net("ip", "route", "add", "10.9.0.0/16", "via", "10.191.41.1")
    one.net("nft", "add", "table", "inet", "inner")
    one.net("nft", "add", "chain", "inet", "inner", "first")
    one.net("nft", "add", "rule", "inet", "inner", "first", "counter")
    found = holding.obstacles(site, one)
    assert {obstacle.kind for obstacle in found} == {ObstacleKind.NETWORK}
    assert any("inner0" in obstacle.what for obstacle in found)
    assert any("10.9.0.0/16" in obstacle.what for obstacle in found)
    assert any("1 rules" in obstacle.what for obstacle in found)
    one.net("ip", "route", "del", "10.9.0.0/16")
    one.net("nft", "delete", "table", "inet", "inner")
    one.net("ip", "link", "del", "inner0")
    assert holding.obstacles(site, one) == ()


def test_more_than_is_looked_at_is_no_look(site: Site, one: Ve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_state, "MAX_FILES", 5)
    with pytest.raises(process_state.TooMuchError, match="at most 5"):
        holding.obstacles(site, one)
    monkeypatch.setattr(process_state, "MAX_PROCESSES", 1)
    with pytest.raises(process_state.TooMuchError, match="at most 1 "):
        holding.obstacles(site, one)


def test_a_look_that_does_not_end_is_given_up_and_not_begun_again(
    site: Site, one: Ve, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = [], Event()

    def look(inside: object) -> RunningState:
        begun.append(inside)
        released.wait()
        return RunningState()

    async def looks() -> None:
        for _ in range(2):
            with pytest.raises(TimeLimitError, match="not ended"):
                await preflight.find_obstacles(site, one.uid)
        released.set()
        assert await preflight.find_obstacles(site, one.uid) == ()

    monkeypatch.setattr(preflight, "_look", look)
    monkeypatch.setattr(preflight, "_LOOK_S", 0.1 * PATIENCE)
    try:
        asyncio.run(looks())
    finally:
        released.set()
    assert len(begun) == 1
    monkeypatch.undo()
    assert holding.obstacles(site, one) == ()


def test_the_name_of_a_process_cannot_write_on_a_terminal(site: Site, one: Ve) -> None:
    with holding.holding(one, "name"):
        (pid,) = holding.holders(one)
        os.kill(pid, signal.SIGSTOP)
        (found,) = until(lambda: holding.obstacles(site, one), "the process to have stopped")
        assert found.process is not None
        assert found.process.name == "bad?[2J?name"


def test_people_are_told_what_and_how_to_mend_it(fleet: Fleet, one: Ve) -> None:
    with holding.holding(one, "mptcp"):
        told = json.loads(fleet.vectl("describe", "web1", "-o", "json"))["obstacles"]
        assert [(item["kind"], item["process"]["name"]) for item in told] == [("Socket", "holder")]
        text = fleet.vectl("describe", "web1")
        assert "MPTCP" in text
        assert "multipathtcp=0" in text


def test_the_agent_says_of_a_ve_that_runs_whether_it_could_be_suspended(fleet: Fleet) -> None:
    ready = until(lambda: fleet.conditions("quiet")[ConditionType.MIGRATION_READY], "the agent's first look")
    assert (ready.status, ready.reason) == (Status.TRUE, "NoObstacles")


def test_a_suspension_is_refused_with_the_obstacle_and_done_once_that_is_gone(fleet: Fleet, one: Ve) -> None:
    with holding.holding(one, "mptcp"):
        before = one.init
        fleet.put("all.yaml", *manifest(power="suspended"))
        refused = fleet.await_reason("web1", "SuspendFailed")
        assert "MPTCP" in refused.message
        assert "multipathtcp=0" in refused.message
        assert one.init == before
    fleet.await_ready("web1")
    assert not one.runs
    fleet.put("all.yaml", *manifest())
    fleet.await_ready("web1")
    assert one.runs
