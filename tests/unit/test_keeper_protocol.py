"""Claims about what the keeper and its clients say, and about the records that it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from reconciler.errors import KeeperError, StateError
from reconciler.host.keeper import protocol, records
from reconciler.host.keeper.protocol import (
    Answer,
    Decide,
    Done,
    Dump,
    Ended,
    Exec,
    Failed,
    Hello,
    Hold,
    InitEnded,
    Launch,
    Launched,
    Open,
    Ping,
    Pong,
    Release,
    ReleaseClosed,
    Request,
    Restore,
    Serve,
    Show,
    Shutdown,
    Signal,
    Started,
    Watch,
)
from reconciler.kernel import dumping, restoring
from reconciler.kernel.criu import DumpSpec, RestoreSpec
from reconciler.kernel.dumping import Note, Volume
from reconciler.kernel.execute import ExecSpec
from reconciler.kernel.launch import LaunchSpec
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.kernel.provided import Directory, Node
from reconciler.kernel.views import Shown, ShowSpec

INIT = ProcessId(pid=4711, start_time=123456)
EXIT = Exit(kind="signaled", value=1)
MOUNT = OverlayMount(lower="/t", volume="/v", target="/r", id_base=100_000, id_count=65_536, nfs_export=True)

REQUESTS: tuple[Request, ...] = (
    Launch(
        uid="u1",
        spec=LaunchSpec(argv=("runc", "create"), env={"PATH": "/bin"}, overlay=MOUNT),
        pid_file="/p",
        timeout_s=30.0,
    ),
    Launch(uid="u1", spec=LaunchSpec(argv=("criu",), env={}, overlay=None, output="/o"), pid_file="/p", timeout_s=0.5),
    Exec(
        spec=ExecSpec(
            init=INIT,
            cgroups=("/a", "/b"),
            args=("sh", "-c", "echo \u00e4\n"),
            env={"A": "b"},
            groups=(1, 2),
            rlimits={"RLIMIT_NOFILE": (1024, -1)},
            tty=True,
        ),
        timeout_s=10.0,
    ),
    Signal(target=3, number=15),
    Show(
        spec=ShowSpec(init=INIT, files=(Shown(source="/a/proc/stat", target="/proc/stat"),), fstype="fuse.x"),
        timeout_s=1.0,
    ),
    Serve(argv=("lxcfs", "/m"), env={"A": "b"}, output="/l", timeout_s=1.0),
    Dump(
        uid="u1",
        spec=dumping.Dump(
            criu=DumpSpec(
                program="criu", pid=1, images="/i", work="/w", freezer="/f", externals={"/dev/null": "x"}, hook="/h"
            ),
            env={"A": "b"},
            cgroup="/c",
            unborn="/u",
            born="/b",
            volume=Volume(path="/v", group=7, device=None),
            note=Note(path="/n", text="t"),
            names={"1": "init"},
            timeout_s=1.0,
        ),
    ),
    Hold(
        uid="u1",
        spec=dumping.Dump(
            criu=DumpSpec(
                program="criu", pid=1, images="/i", work="/w", freezer="/f", externals={"/dev/null": "x"}, hook="/h"
            ),
            env={"A": "b"},
            cgroup="/c",
            unborn="/u",
            born="/b",
            volume=Volume(path="/v", group=7, device=None),
            note=None,
            names={"1": "init"},
            timeout_s=1.0,
            hold=dumping.Hold(data="/d", note=Note(path="/n", text="t")),
        ),
    ),
    Decide(uid="u1", resume=True),
    Restore(
        uid="u1",
        spec=restoring.Restore(
            criu=RestoreSpec(
                program="criu",
                images="/i",
                work="/w",
                root="/r",
                externals={"x": "/dev/null"},
                hook="/h",
                cgroup="/c/ve",
            ),
            env={"A": "b"},
            overlay=MOUNT,
            cgroup="/c",
            held="/f",
            born="/b",
            spent="/s",
            names={"1": "init"},
            timeout_s=1.0,
            scratch="/x",
            directories={"/x/0": Directory(source="/srv", read_only=True)},
            nodes={"/x/1": Node(name="/node", block=False, major=10, minor=200, mode=0o600)},
        ),
    ),
    Release(uid="u1"),
    ReleaseClosed(uid="u1"),
    Open(uid="u1"),
    Watch(),
    Ping(),
    Shutdown(force=True),
)
ANSWERS: tuple[Answer, ...] = (
    Hello(version=1, pid=2),
    Launched(init=INIT),
    Started(pid=3),
    Ended(exit=EXIT),
    Failed(kind="not-executed", message="execute 'x': no", errno=2),
    Failed(kind="failed", message="no", status=-9),
    Done(),
    Pong(version=1, pid=2, inits=3, programs=4),
    InitEnded(uid="u1", init=INIT, exit=EXIT),
)


def test_every_kind_of_message_is_tried_here() -> None:
    assert {type(request) for request in REQUESTS} == set(get_args(Request))
    assert {type(answer) for answer in ANSWERS} == set(get_args(Answer))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    assert protocol.decode_request(protocol.encode(7, request_)) == (7, request_)


@pytest.mark.parametrize("number", [None, 7])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_an_answer_arrives_as_it_was_sent(answer: Answer, number: int | None) -> None:
    assert protocol.decode_answer(protocol.encode(number, answer)) == (number, answer)


def test_a_field_of_a_newer_client_is_passed_over() -> None:
    packet = json.dumps({"id": 1, "type": "Shutdown", "body": {"force": True, "later": 1}}).encode()
    assert protocol.decode_request(packet) == (1, Shutdown(force=True))


def test_a_field_with_a_default_may_be_missing() -> None:
    packet = json.dumps({"id": 1, "type": "Shutdown", "body": {}}).encode()
    assert protocol.decode_request(packet) == (1, Shutdown(force=False))


@pytest.mark.parametrize(
    ("packet", "named"),
    [
        (b"\xff\xfe", "expected JSON"),
        (b"[1]", "expected an object"),
        (b'{"id": "1", "type": "Ping", "body": {}}', "'id' and 'type'"),
        (b'{"id": 1, "type": 5, "body": {}}', "'id' and 'type'"),
        (b'{"id": 1, "type": "Hello", "body": {}}', "numbered request"),
        (b'{"id": null, "type": "Ping", "body": {}}', "numbered request"),
        (b'{"id": 1, "type": "Ping", "body": []}', "an object as Ping"),
        (b'{"id": 1, "type": "Signal", "body": {"target": 1}}', "number"),
        (b'{"id": 1, "type": "Signal", "body": {"target": 1, "number": "9"}}', "Signal.number"),
        (b'{"id": 1, "type": "Signal", "body": {"target": 1, "number": true}}', "Signal.number"),
        (b'{"id": 1, "type": "Shutdown", "body": {"force": 1}}', "Shutdown.force"),
    ],
)
def test_a_request_of_another_shape_is_refused_by_name(packet: bytes, named: str) -> None:
    with pytest.raises(KeeperError, match=named):
        protocol.decode_request(packet)


@pytest.mark.parametrize(
    ("path", "value"), [("cgroups", ["/a", 1]), ("env", {"A": 1}), ("rlimits", {"R": [1]}), ("init", None)]
)
def test_a_wrong_type_deep_inside_is_refused_by_name(path: str, value: object) -> None:
    content = json.loads(protocol.encode(1, REQUESTS[2]))
    content["body"]["spec"][path] = value
    with pytest.raises(KeeperError, match=f"Exec.spec.{path}"):
        protocol.decode_request(json.dumps(content).encode())


def test_a_packet_that_the_socket_could_not_carry_is_not_sent() -> None:
    spec = LaunchSpec(argv=("x" * protocol.MESSAGE_BYTES,), env={}, overlay=None)
    with pytest.raises(KeeperError, match="packet"):
        protocol.encode(1, Launch(uid="u", spec=spec, pid_file="/p", timeout_s=1.0))


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records.write_init(str(tmp_path), "u1", INIT)
    records.write_exit(str(tmp_path), "u1", INIT, EXIT)
    init, end = records.read_init(str(tmp_path), "u1"), records.read_exit(str(tmp_path), "u1")
    assert init is not None
    assert end is not None
    assert (init.init, end.init, end.exit) == (INIT, INIT, EXIT)
    assert sorted(path.name for path in (tmp_path / "ves/u1").iterdir()) == ["exit.json", "init.json"]


def test_no_record_is_no_init(tmp_path: Path) -> None:
    assert records.read_init(str(tmp_path), "u1") is None
    assert records.read_exit(str(tmp_path), "u1") is None


def test_a_record_of_an_earlier_boot_speaks_of_nothing(tmp_path: Path) -> None:
    records.write_init(str(tmp_path), "u1", INIT)
    path = tmp_path / "ves/u1/init.json"
    path.write_text(path.read_text().replace(records.boot_id(), "another"))
    assert records.read_init(str(tmp_path), "u1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2, "boot_id": "x", "init": {}}'])
def test_a_damaged_record_is_an_error_and_not_absent(tmp_path: Path, text: str) -> None:
    records.write_init(str(tmp_path), "u1", INIT)
    (tmp_path / "ves/u1/init.json").write_text(text)
    with pytest.raises(StateError, match=r"init\.json"):
        records.read_init(str(tmp_path), "u1")


def test_a_record_of_another_format_is_an_error(tmp_path: Path) -> None:
    records.write_init(str(tmp_path), "u1", INIT)
    path = tmp_path / "ves/u1/init.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StateError, match="format"):
        records.read_init(str(tmp_path), "u1")


@pytest.mark.parametrize("uid", ["", "..", ".", "a/b", "../x", "a\nb", "a\0", "x" * 101, "-x"])
def test_a_uid_that_leads_elsewhere_is_refused(uid: str) -> None:
    with pytest.raises(KeeperError):
        records.directory("/run/x", uid)
