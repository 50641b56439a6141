"""Whether a VE can be suspended: what is an obstacle, what is none, and how people are told."""

from __future__ import annotations

import pytest

from reconciler.model.condition import ConditionType, Status
from reconciler.model.migration import (
    MountState,
    Obstacle,
    ObstacleKind,
    OpenFile,
    Process,
    ProcessState,
    RunningState,
)
from reconciler.plan import migration

SH = Process(name="sh", pid=12)


def of_process(**state: object) -> tuple[Obstacle, ...]:
    return migration.judge(RunningState(processes=(ProcessState(process=SH, **state),)))  # type: ignore[arg-type]


def of_file(**file: object) -> tuple[Obstacle, ...]:
    return of_process(files=(OpenFile(**{"name": "x", **file}),))  # type: ignore[arg-type]


def test_a_plain_ve_has_no_obstacle() -> None:
    plain = ProcessState(process=SH, files=(OpenFile(name="anon_inode:[eventpoll]"),))
    mounts = tuple(MountState(target=f"/{kind}", fstype=kind) for kind in ("proc", "tmpfs", "cgroup2"))
    assert migration.judge(RunningState(processes=(plain,), mounts=mounts)) == ()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"state": "T"}, ObstacleKind.STOPPED),
        ({"state": "t"}, ObstacleKind.TRACED),
        ({"is_traced": True}, ObstacleKind.TRACED),
        ({"state": "D"}, ObstacleKind.STUCK),
        ({"is_outsider": True}, ObstacleKind.OUTSIDER),
        ({"nested": frozenset({"uts"})}, ObstacleKind.NAMESPACE),
    ],
)
def test_a_process_that_criu_cannot_hold_is_an_obstacle(state: dict[str, object], kind: ObstacleKind) -> None:
    (found,) = of_process(**state)
    assert (found.kind, found.process, bool(found.remedy)) == (kind, SH, True)
    assert str(found).startswith("sh (pid 12) ")


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ({"name": "anon_inode:[io_uring]"}, ObstacleKind.FILE),
        ({"name": "anon_inode:bpf-prog"}, ObstacleKind.FILE),
        ({"name": "/queue", "is_outside": True}, ObstacleKind.FILE),
        ({"name": "/dev/fuse", "device": (10, 229)}, ObstacleKind.DEVICE),
        ({"name": "/dev/loop0", "device": (1, 0), "is_block": True}, ObstacleKind.DEVICE),
        ({"protocol": "MPTCP"}, ObstacleKind.SOCKET),
        ({"protocol": "AF_VSOCK"}, ObstacleKind.SOCKET),
        ({"protocol": "TCP", "waits": "has not accepted"}, ObstacleKind.WAITING),
        ({"name": "anon_inode:inotify", "unresolved": ("/proc",)}, ObstacleKind.WATCH),
    ],
)
def test_an_open_file_that_criu_cannot_save_is_an_obstacle(file: dict[str, object], kind: ObstacleKind) -> None:
    (found,) = of_file(**file)
    assert (found.kind, found.process, bool(found.remedy)) == (kind, SH, True)


@pytest.mark.parametrize(
    "file",
    [
        {"name": "anon_inode:inotify"},
        {"name": "anon_inode:[pidfd]"},
        {"name": "/dev/null", "device": (1, 3)},
        {"name": "/dev/pts/0", "device": (136, 0)},
        {"name": "/dev/net/tun", "device": (10, 200)},
        {"protocol": "TCPv6"},
        {"protocol": "UNIX-STREAM"},
        {"protocol": "PACKET"},
    ],
)
def test_an_open_file_that_criu_saves_is_none(file: dict[str, object]) -> None:
    assert of_file(**file) == ()


def test_a_file_that_is_open_often_is_told_of_once() -> None:
    (found,) = of_process(files=(OpenFile(name="anon_inode:[io_uring]"),) * 3)
    assert found.what == "has open anon_inode:[io_uring] (3 times)"


def test_a_service_in_a_namespace_is_told_by_which_setting_of_systemd() -> None:
    (found,) = of_process(nested=frozenset({"net"}))
    assert "PrivateNetwork=no" in found.remedy


@pytest.mark.parametrize(
    ("mount", "is_obstacle"),
    [
        (MountState(target="/m", fstype="ramfs"), True),
        (MountState(target="/m", fstype="fuse.sshfs"), True),
        (MountState(target="/m", fstype="overlay"), True),
        (MountState(target="/dev/x", fstype="tmpfs", is_part=True), True),
        (MountState(target="/sys/fs/cgroup", fstype="cgroup2", is_part=True), False),
        (MountState(target="/proc/bus", fstype="proc"), False),
    ],
)
def test_a_mount_that_criu_cannot_make_anew_is_an_obstacle(mount: MountState, is_obstacle: bool) -> None:
    assert bool(migration.judge(RunningState(mounts=(mount,)))) is is_obstacle


@pytest.mark.parametrize(
    "seen",
    [
        RunningState(queues=("q",)),
        RunningState(links=("docker0",)),
        RunningState(routes=("10.9.0.0/16",)),
        RunningState(nics=("enp5s0",)),
        RunningState(filter_rules=3),
        RunningState(no_criu="run criu: no such program; run `make criu`"),
        RunningState(no_template="the image of its template x is gone; build it anew"),
    ],
)
def test_what_the_ve_as_a_whole_lacks_or_would_lose_is_an_obstacle(seen: RunningState) -> None:
    (found,) = migration.judge(seen)
    assert (found.process, bool(found.what), bool(found.remedy)) == (None, True, True)


def test_the_condition_names_the_obstacles_and_says_how_many_more_there_are() -> None:
    found = tuple(
        Obstacle(kind=ObstacleKind.QUEUE, what=f"queue {number}", remedy="-") for number in range(migration.SHOWN + 2)
    )
    condition = migration.ready_condition(found)
    assert (condition.type, condition.status) == (ConditionType.MIGRATION_READY, Status.FALSE)
    assert condition.message.startswith("queue 0. queue 1")
    assert condition.message.endswith(". And 2 more")


def test_an_error_names_the_remedies() -> None:
    found = migration.judge(RunningState(queues=("q",)))
    assert migration.sentence(found).endswith("; end what uses it, then remove /dev/mqueue/q")


def test_what_passes_in_a_moment_does_not_make_a_ve_unready() -> None:
    (waiting,) = of_file(protocol="TCP", waits="has not accepted all connections to its port 80")
    assert migration.ready_condition((waiting,)).status is Status.TRUE


def test_a_ve_that_could_not_be_looked_at_is_unknown() -> None:
    condition = migration.unknown_condition("too much of it")
    assert (condition.status, condition.message) == (Status.UNKNOWN, "too much of it")
