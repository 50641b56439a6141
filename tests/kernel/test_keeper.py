"""Claims about the keeper, with real VEs: a busybox template, an overlay on btrfs, the OCI runtime."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from reconciler.errors import CommandError, KeeperError, TimeLimitError
from reconciler.host import bundle
from reconciler.host.keeper import client as keeper_client
from reconciler.host.keeper import protocol, records
from reconciler.host.keeper.client import Execution, KeeperClient
from reconciler.host.keeper.protocol import Exec, InitEnded, Launch
from reconciler.kernel import (
    btrfs,
    busybox,
    capabilities,
    cgroup_layout,
    erofs,
    execute,
    files,
    mount,
    overlay,
    pidfd,
    runc,
)
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.execute import ExecSpec
from reconciler.kernel.launch import LaunchSpec
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.model.instance import DEFAULT_LIB
from tests.support import probe

pytestmark = pytest.mark.kernel

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
DEADLINE_S = 30.0
CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What the VEs of a test module share."""

    directory: str
    instance: str

    @property
    def run_dir(self) -> str:
        return f"{self.directory}/run"

    @property
    def pool(self) -> str:
        return f"{self.directory}/pool"

    @property
    def template(self) -> str:
        return f"{self.directory}/template"


@dataclass(kw_only=True)
class Ve:
    """One VE of a test: everything a host would make before it asks the keeper."""

    stand: Stand
    run_dir: str
    id_base: int
    uid: str = field(default_factory=lambda: f"ve-{secrets.token_hex(4)}")
    nesting: bool = False
    program: str = "runc"

    def __post_init__(self) -> None:
        self.directory = records.directory(self.run_dir, self.uid)
        self.volume = f"{self.stand.pool}/{self.uid}"
        self.rootfs = f"{self.directory}/rootfs"
        self.tree = CgroupTree(cgroup_layout.detect(), f"/{self.stand.instance}/{self.uid}")
        self.runtime = runc.Runtime(
            program=self.program, root=f"{self.run_dir}/runtime", log=f"{self.directory}/runc.log"
        )

    def build(self) -> None:
        os.makedirs(self.rootfs)
        btrfs.create_subvolume(self.volume)
        overlay.make_layers(self.volume)
        self.tree.create()
        self.tree.delegate(uid=self.id_base, gid=self.id_base)
        self.write_config(self.spec())

    def spec(self) -> bundle.BundleSpec:
        return bundle.BundleSpec(
            hostname=self.uid,
            rootfs=self.rootfs,
            id_base=self.id_base,
            cgroup=self.tree.cgroup,
            nesting=self.nesting,
            rlimits=execute.allowed_rlimits({"RLIMIT_NOFILE": (1024, 524_288)}),
            cgroup_mount="v2" if self.tree.layout.is_pure_v2 else "hybrid",
        )

    def write_config(self, spec: bundle.BundleSpec) -> None:
        Path(self.directory, "config.json").write_text(json.dumps(bundle.build_config(spec)))

    def launch_request(self) -> Launch:
        pid_file = f"{self.directory}/pid"
        mounted = OverlayMount(
            lower=self.stand.template,
            volume=self.volume,
            target=self.rootfs,
            id_base=self.id_base,
            id_count=65_536,
            nfs_export=True,
        )
        argv = self.runtime.create_argv(self.uid, bundle=self.directory, pid_file=pid_file)
        return Launch(
            uid=self.uid,
            spec=LaunchSpec(argv=argv, env=dict(os.environ), overlay=mounted),
            pid_file=pid_file,
            timeout_s=DEADLINE_S,
        )

    async def boot(self, keeper: KeeperClient) -> ProcessId:
        init = await keeper.launch(self.launch_request(), log=self.runtime.log)
        runc.start(self.runtime, self.uid)
        await self.booted(init)
        return init

    async def booted(self, init: ProcessId) -> None:
        """Wait until init has executed its program: only then does it look as the VE's own."""
        await until(lambda: Path(f"/proc/{init.pid}/comm").read_text() == "init\n")

    def exec_spec(self, init: ProcessId, *args: str) -> ExecSpec:
        return ExecSpec(
            init=init,
            cgroups=self.tree.inner_directories(),
            args=args,
            env=ENV,
            nesting=self.nesting,
            rlimits={"RLIMIT_NOFILE": (1024, 524_288)},
        )

    async def run(self, keeper: KeeperClient, init: ProcessId, *args: str) -> tuple[int, str]:
        return await run(keeper, self.exec_spec(init, *args))

    def clean(self) -> None:
        self.tree.kill()
        with suppress(CommandError):
            runc.delete(self.runtime, self.uid)
        self.tree.remove()
        btrfs.delete_subvolume(self.volume)


async def run(keeper: KeeperClient, spec: ExecSpec) -> tuple[int, str]:
    """Run a program to its end; give its status and what it printed."""
    with opened(os.devnull) as null, OutputPipe() as output:
        execution = await keeper.execute(
            Exec(spec=spec, timeout_s=DEADLINE_S), stdio=(null, output.writer, output.writer)
        )
        text = await output.read()
        return await asyncio.wait_for(execution.wait(), DEADLINE_S), text


@contextmanager
def opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR if path == os.devnull else os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class OutputPipe:
    """A pipe whose writing end is given away."""

    def __enter__(self) -> OutputPipe:
        self.reader, self.writer = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self.reader, self.writer):
            with suppress(OSError):
                os.close(descriptor)

    async def read(self) -> str:
        os.close(self.writer)
        data = await asyncio.wait_for(asyncio.to_thread(self._read_all), DEADLINE_S)
        return data.decode()

    def _read_all(self) -> bytes:
        parts = []
        while part := os.read(self.reader, 65_536):
            parts.append(part)
        return b"".join(parts)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def next_end(events: AsyncIterator[InitEnded], uid: str) -> InitEnded:
    async def find() -> InitEnded:
        async for event in events:
            if event.uid == uid:
                return event
        raise AssertionError("the keeper went away")

    return await asyncio.wait_for(find(), DEADLINE_S)


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    instance = f"vectl-test-{os.getpid()}-{secrets.token_hex(3)}"
    made = Stand(directory=f"{tempfile.gettempdir()}/{instance}", instance=instance)
    os.mkdir(made.directory, 0o711)  # not pytest's: a VE's root must be able to pass through
    for name in ("tree", "template", "pool", "run"):
        os.mkdir(f"{made.directory}/{name}")
    busybox.build_tree(f"{made.directory}/tree", programs=f"{DEFAULT_LIB}/bin")
    image, pool = f"{made.directory}/template.erofs", f"{made.directory}/pool.img"
    erofs.make_image(f"{made.directory}/tree", image, uuid="11111111-2222-3333-4444-555555555555", all_root=True)
    with open(pool, "wb") as file:
        file.truncate(512 << 20)
    btrfs.make_filesystem(pool, label="vectl-test")
    mount.mount_image(image, made.template, fstype="erofs", read_only=True)
    try:
        mount.mount_image(pool, made.pool, fstype="btrfs", read_only=False)
        yield made
    finally:
        asyncio.run(end_keeper(made.run_dir))
        for path in (made.pool, made.template):
            mount.unmount(path, lazy=True)
        files.remove_tree(made.directory)
        for hierarchy in cgroup_layout.detect().hierarchies():
            with suppress(FileNotFoundError):
                os.rmdir(hierarchy.path(f"/{made.instance}"))


async def end_keeper(run_dir: str) -> None:
    with suppress(KeeperError):
        keeper = await KeeperClient.connect(run_dir)
        await keeper.shut_down(force=True)


@pytest.fixture
def make_ve(stand: Stand) -> Iterator[Callable[..., Ve]]:
    made: list[Ve] = []

    def make(*, run_dir: str = stand.run_dir, nesting: bool = False, program: str = "runc") -> Ve:
        id_base = 1_000_000 + 65_536 * (os.getpid() % 10_000)
        ve = Ve(stand=stand, run_dir=run_dir, id_base=id_base, nesting=nesting, program=program)
        made.append(ve)
        ve.build()
        return ve

    yield make
    for ve in made:
        ve.clean()


@asynccontextmanager
async def keeper_of(run_dir: str) -> AsyncIterator[KeeperClient]:
    async with await keeper_client.ensure_keeper(run_dir) as keeper:
        yield keeper


@dataclass(frozen=True, slots=True)
class Running:
    """A booted VE with a connection to its keeper."""

    keeper: KeeperClient
    ve: Ve
    init: ProcessId


def with_ve(stand: Stand, ve: Ve, test: Callable[[Running], Awaitable[None]]) -> None:
    async def body() -> None:
        async with keeper_of(stand.run_dir) as keeper:
            await test(Running(keeper, ve, await ve.boot(keeper)))

    asyncio.run(body())


def test_a_ve_is_created_held_back_and_let_go(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def body() -> None:
        ve = make_ve()
        async with keeper_of(stand.run_dir) as keeper:
            init = await keeper.launch(ve.launch_request(), log=ve.runtime.log)
            assert pidfd.identify(init.pid) == init
            assert runc.awaits_release(ve.runtime, ve.uid)
            assert ve.tree.processes() == {init.pid}
            written = records.read_init(ve.run_dir, ve.uid)
            assert written is not None
            assert written.init == init
            assert runc.release(ve.runtime.fifo(ve.uid))
            assert not runc.release(ve.runtime.fifo(ve.uid))
            await ve.booted(init)
            assert await ve.run(keeper, init, "id", "-u") == (0, "0\n")
            status = Path(f"/proc/{init.pid}/status").read_text()
            assert f"PPid:\t{(await keeper.ping()).pid}\n" in status
            assert f"Uid:\t{ve.id_base}\t" in status

    asyncio.run(body())


def test_every_runtime_of_this_host_boots_the_same_ve_twice(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        ve = running.ve
        assert not runc.awaits_release(ve.runtime, ve.uid)
        assert await ve.run(running.keeper, running.init, "id", "-u") == (0, "0\n")
        assert sorted(os.listdir(f"/proc/{running.init.pid}/fd")) == ["0", "1", "2"]
        os.kill(running.init.pid, signal.SIGKILL)
        await until(lambda: records.read_exit(ve.run_dir, ve.uid))
        runc.delete(ve.runtime, ve.uid)
        await ve.boot(running.keeper)

    for program in runtimes():
        with_ve(stand, make_ve(program=program), test)


def runtimes() -> list[str]:
    """List the runtimes to try: crun starts no VE where cgroup v1 is mounted as well."""
    other = ["crun"] if cgroup_layout.detect().is_pure_v2 and shutil.which("crun") else []
    return ["runc", *other]


def test_the_root_file_system_never_shows_on_the_host(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        assert not mount.is_mounted(running.ve.rootfs)
        assert os.listdir(running.ve.rootfs) == []
        assert os.path.exists(f"/proc/{running.init.pid}/root/etc/inittab")
        status, text = await running.ve.run(running.keeper, running.init, "touch", "/root/made")
        assert (status, text) == (0, "")
        assert os.stat(f"{running.ve.volume}/upper/root/made").st_uid == 0

    with_ve(stand, make_ve(), test)


@pytest.mark.parametrize(
    ("command", "number"),
    [("reboot", signal.SIGHUP), ("halt", signal.SIGINT), ("poweroff", signal.SIGINT)],
)
def test_how_a_ve_ended_itself_is_written_down(
    stand: Stand, make_ve: Callable[..., Ve], command: str, number: signal.Signals
) -> None:
    async def test(running: Running) -> None:
        async with keeper_of(stand.run_dir) as watcher:
            events = watcher.events()
            waiting = asyncio.ensure_future(next_end(events, running.ve.uid))
            await asyncio.sleep(0)
            await watcher.ping()
            await running.ve.run(running.keeper, running.init, "sh", "-c", command)
            event = await waiting
        assert event.exit == Exit(kind="signaled", value=number)
        assert event.init == running.init
        written = records.read_exit(running.ve.run_dir, running.ve.uid)
        assert written is not None
        assert (written.init, written.exit) == (running.init, event.exit)

    with_ve(stand, make_ve(), test)


def test_a_kill_from_the_host_is_told_from_a_halt(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        os.kill(running.init.pid, signal.SIGKILL)
        await until(lambda: records.read_exit(running.ve.run_dir, running.ve.uid))
        written = records.read_exit(running.ve.run_dir, running.ve.uid)
        assert written is not None
        assert written.exit == Exit(kind="signaled", value=signal.SIGKILL)

    with_ve(stand, make_ve(), test)


def test_an_end_of_an_earlier_init_is_not_taken_for_the_present_ones(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        os.kill(running.init.pid, signal.SIGKILL)
        await until(lambda: records.read_exit(running.ve.run_dir, running.ve.uid))
        runc.delete(running.ve.runtime, running.ve.uid)
        again = await running.ve.boot(running.keeper)
        written, ended = (read(running.ve.run_dir, running.ve.uid) for read in (records.read_init, records.read_exit))
        assert written is not None
        assert ended is not None
        assert written.init == again
        assert ended.init == running.init != again

    with_ve(stand, make_ve(), test)


def test_init_holds_nothing_of_the_host(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        descriptors = f"/proc/{running.init.pid}/fd"
        assert sorted(os.listdir(descriptors)) == ["0", "1", "2"]
        assert {os.readlink(f"{descriptors}/{name}") for name in "012"} == {"/dev/null"}
        status, text = await running.ve.run(
            running.keeper, running.init, "sh", "-c", "ls /proc/self/fd; ls -l /proc/$$/fd"
        )
        assert status == 0
        assert set(text.split("\n")[:4]) == {"0", "1", "2", "3"}  # 3 is ls itself, reading the directory
        assert Path(f"/proc/{running.init.pid}/oom_score_adj").read_text() == "0\n"

    with_ve(stand, make_ve(), test)


def test_exec_is_bound_as_init_is(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    fields = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "SigIgn")

    def facts(text: str) -> dict[str, str]:
        return {k: v for k, _, v in (line.partition(":\t") for line in text.splitlines()) if k in fields}

    async def test(running: Running) -> None:
        status, text = await running.ve.run(running.keeper, running.init, "cat", "/proc/1/status", "/proc/self/status")
        assert status == 0
        init, program = (facts(part) for part in text.split("Name:")[1:])
        assert program["SigIgn"] == "0000000000000000"
        assert {**init, "SigIgn": ""} == {**program, "SigIgn": ""}
        assert int(program["CapBnd"], 16) == capabilities.mask(capabilities.SYSTEM)
        _, limits = await running.ve.run(running.keeper, running.init, "cat", "/proc/1/limits", "/proc/self/limits")
        half = len(limits) // 2
        assert limits[:half] == limits[half:]

    with_ve(stand, make_ve(), test)


def test_exec_is_in_every_namespace_and_cgroup_of_the_ve(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        script = "for p in 1 self; do for n in /proc/$p/ns/*; do readlink $n; done; echo; done; cat /proc/self/cgroup"
        status, text = await running.ve.run(running.keeper, running.init, "sh", "-c", script)
        assert status == 0
        init, program, cgroups = text.split("\n\n")
        assert init == program
        assert {line.split(":", 2)[2] for line in cgroups.split()} == {"/"}

    with_ve(stand, make_ve(), test)


def test_exec_goes_to_inits_own_cgroup_where_only_leaves_take_processes(
    stand: Stand, make_ve: Callable[..., Ve]
) -> None:
    async def test(running: Running) -> None:
        layout = running.ve.tree.layout
        assert layout.unified is not None
        inner = f"{layout.unified}{running.ve.tree.inner}"
        os.mkdir(f"{inner}/init.scope")
        while pids := Path(f"{inner}/cgroup.procs").read_text().split():  # one may fork before it is moved
            for pid in pids:
                with suppress(ProcessLookupError):
                    Path(f"{inner}/init.scope/cgroup.procs").write_text(pid)
        if layout.is_pure_v2:
            Path(f"{inner}/cgroup.subtree_control").write_text("+pids")
        status, text = await running.ve.run(running.keeper, running.init, "cat", "/proc/self/cgroup")
        assert status == 0
        assert ("0::/init.scope" if layout.is_pure_v2 else "0::/") in text.split()
        assert execute._leaf_of_init(inner, running.init.pid) == f"{inner}/init.scope"

    with_ve(stand, make_ve(), test)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + 9), ("kill -15 $$", 128 + 15)]
)
def test_exec_gives_the_status_of_its_program(
    stand: Stand, make_ve: Callable[..., Ve], script: str, status: int
) -> None:
    async def test(running: Running) -> None:
        assert await running.ve.run(running.keeper, running.init, "sh", "-c", script) == (status, "")

    with_ve(stand, make_ve(), test)


def test_exec_runs_as_the_user_and_where_it_was_told(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        spec = replace(
            running.ve.exec_spec(
                running.init, "sh", "-c", "id -u; id -g; id -G; pwd; umask; echo $NAME; grep CapEff /proc/self/status"
            ),
            uid=33,
            gid=100,
            groups=(42,),
            cwd="/www",
            umask=0o077,
            env={**ENV, "NAME": "value"},
        )
        status, text = await run(running.keeper, spec)
        assert (status, text) == (0, "33\n100\n100 42\n/www\n0077\nvalue\nCapEff:\t0000000000000000\n")

    with_ve(stand, make_ve(), test)


@pytest.mark.parametrize(("program", "status"), [("nosuch", 127), ("/etc/passwd", 126), ("/nosuch", 127)])
def test_a_program_that_cannot_be_executed_is_told_as_a_shell_would(
    stand: Stand, make_ve: Callable[..., Ve], program: str, status: int
) -> None:
    async def test(running: Running) -> None:
        with pytest.raises(CommandError) as caught:
            await running.ve.run(running.keeper, running.init, program)
        assert caught.value.status == status

    with_ve(stand, make_ve(), test)


def test_exec_in_a_ve_that_has_ended_is_an_error(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        spec = running.ve.exec_spec(replace(running.init, start_time=running.init.start_time + 1), "true")
        with pytest.raises(KeeperError, match="it has ended"):
            await run(running.keeper, spec)

    with_ve(stand, make_ve(), test)


X86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is for x86-64")
REFUSED_SOCKETS = {"VSOCK": 40, "ALG": 38, "RXRPC": 33, "TIPC": 30, "KEY": 15, "VSOCK with a bit above": 2**32 + 40}
ALLOWED_SOCKETS = {"UNIX": 1, "INET": 2, "INET6": 10, "NETLINK": 16}
# Number and arguments on x86-64, and the errno.
REFUSED_CALLS = {
    "TIOCSTI": ((16, 0, 0x5412), errno.EPERM),
    "personality": ((135, 0x0040000), errno.EPERM),
    "keyctl": ((250, 0, 0), errno.EPERM),
    "bpf": ((321, 0), errno.EPERM),
    "io_uring_setup": ((425, 1), errno.EPERM),
}


@X86_64
def test_what_no_namespace_bounds_is_refused(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        for name, family in REFUSED_SOCKETS.items():
            assert await outcome(running, 41, family, socket.SOCK_DGRAM) == errno.EAFNOSUPPORT, name
        for name, family in ALLOWED_SOCKETS.items():
            assert await outcome(running, 41, family, socket.SOCK_DGRAM) == 0, name
        for name, (call, expected) in REFUSED_CALLS.items():
            assert await outcome(running, *call) == expected, name
        assert await outcome(running, 135, 0xFFFFFFFF) == 0, "asking for the personality"

    with_ve(stand, make_ve(), test)


@X86_64
@pytest.mark.parametrize("nesting", [False, True])
def test_user_namespaces_are_made_inside_only_with_nesting(
    stand: Stand, make_ve: Callable[..., Ve], nesting: bool
) -> None:
    async def test(running: Running) -> None:
        refused = 0 if nesting else errno.EPERM
        assert await outcome(running, 272, CLONE_NEWUSER) == refused
        assert await outcome(running, 56, CLONE_NEWUSER | signal.SIGCHLD) == refused
        assert await outcome(running, 435, 0, 0) == (errno.EINVAL if nesting else errno.ENOSYS)
        status, _ = await running.ve.run(running.keeper, running.init, "unshare", "-U", "true")
        assert (status == 0) == nesting

    with_ve(stand, make_ve(nesting=nesting), test)


async def outcome(running: Running, *call: int) -> int:
    """Make one system call inside, by a program that is put there as the VE's root would; give its errno."""
    path = f"{running.ve.directory}/probe"
    Path(path).write_bytes(probe.syscall_program(*call))
    install = running.ve.exec_spec(
        running.init, "sh", "-c", "rm -f /root/probe; cat > /root/probe; chmod 755 /root/probe"
    )
    with opened(path) as source, opened(os.devnull) as null:
        execution = await running.keeper.execute(Exec(spec=install, timeout_s=DEADLINE_S), stdio=(source, null, null))
        assert await execution.wait() == 0
    status, _ = await running.ve.run(running.keeper, running.init, "/root/probe")
    return status


def test_a_terminal_of_the_ve_is_handed_out(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        spec = replace(
            running.ve.exec_spec(running.init, "sh", "-c", "tty; read word; echo got $word; exit 3"), tty=True
        )
        execution = await running.keeper.execute(Exec(spec=spec, timeout_s=DEADLINE_S))
        assert execution.terminal is not None
        try:
            await said(execution.terminal, "/dev/pts/0")
            os.write(execution.terminal, b"hello\n")
            await said(execution.terminal, "got hello")
            assert await asyncio.wait_for(execution.wait(), DEADLINE_S) == 3
        finally:
            os.close(execution.terminal)

    with_ve(stand, make_ve(), test)


async def said(descriptor: int, text: str) -> None:
    seen = b""

    def heard() -> bool:
        nonlocal seen
        with suppress(BlockingIOError, OSError):
            seen += os.read(descriptor, 4096)
        return text.encode() in seen

    await until(heard)


def test_a_false_terminal_multiplexer_is_not_used(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        await running.ve.run(running.keeper, running.init, "sh", "-c", "rm /dev/ptmx; ln -s /dev/null /dev/ptmx")
        spec = replace(running.ve.exec_spec(running.init, "true"), tty=True)
        with pytest.raises(KeeperError, match="multiplexer"):
            await running.keeper.execute(Exec(spec=spec, timeout_s=DEADLINE_S))

    with_ve(stand, make_ve(), test)


def test_what_a_client_executes_ends_with_its_connection(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        async with keeper_of(stand.run_dir) as other:
            execution = await start(
                other, running.ve.exec_spec(running.init, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
            )
            await until(lambda: len(group(execution.pid)) == 3)
        await until(lambda: not group(execution.pid))
        await until(lambda: execution.pid not in running.ve.tree.processes())
        assert pidfd.identify(running.init.pid) == running.init
        assert (await running.keeper.ping()).programs == 0

    with_ve(stand, make_ve(), test)


def group(leader: int) -> list[int]:
    """List the processes of a process group."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError, IndexError):
            if name.isdecimal() and Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[2] == str(leader):
                found.append(int(name))
    return found


async def start(keeper: KeeperClient, spec: ExecSpec, *, timeout_s: float = DEADLINE_S) -> Execution:
    with opened(os.devnull) as null:
        return await keeper.execute(Exec(spec=spec, timeout_s=timeout_s), stdio=(null, null, null))


def test_a_signal_reaches_the_program(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        execution = await start(running.keeper, running.ve.exec_spec(running.init, "sleep", "1000"))
        await execution.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(execution.wait(), DEADLINE_S) == 128 + signal.SIGTERM

    with_ve(stand, make_ve(), test)


def test_a_signal_that_does_not_exist_is_refused(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        execution = await start(running.keeper, running.ve.exec_spec(running.init, "sleep", "1000"))
        with pytest.raises(KeeperError, match="9999"):
            await running.keeper.ask(protocol.Signal(target=execution.number, number=9999), protocol.Done)
        await execution.send_signal(signal.SIGKILL)
        assert await asyncio.wait_for(execution.wait(), DEADLINE_S) == 128 + signal.SIGKILL
        with pytest.raises(KeeperError, match="no program"):
            await execution.send_signal(signal.SIGTERM)

    with_ve(stand, make_ve(), test)


def test_many_requests_are_under_way_at_once(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        slow = await start(running.keeper, running.ve.exec_spec(running.init, "sleep", "1000"))
        answers = await asyncio.gather(
            *(running.ve.run(running.keeper, running.init, "sh", "-c", f"exit {n}") for n in range(8))
        )
        assert [status for status, _ in answers] == list(range(8))
        assert (await running.keeper.ping()).programs == 1
        await slow.send_signal(signal.SIGKILL)
        assert await slow.wait() == 128 + signal.SIGKILL

    with_ve(stand, make_ve(), test)


def test_an_orphan_of_an_exec_is_reaped(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        await running.ve.run(running.keeper, running.init, "sh", "-c", "(sleep 0.1 &) ; exit 0")
        keeper = (await running.keeper.ping()).pid

        def zombies() -> list[str]:
            children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
            states = {
                child: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children
            }
            return [child for child, state in states.items() if state == "Z"]

        await until(lambda: not zombies())
        os.kill(running.init.pid, signal.SIGKILL)
        await until(lambda: records.read_exit(running.ve.run_dir, running.ve.uid))

    with_ve(stand, make_ve(), test)


def test_exec_into_a_frozen_ve_ends_by_its_deadline(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        running.ve.tree.freeze()
        try:
            with pytest.raises(TimeLimitError):
                await start(running.keeper, running.ve.exec_spec(running.init, "true"), timeout_s=0.2)
            assert (await running.keeper.ping()).pid
        finally:
            running.ve.tree.thaw()
        await until(lambda: running.ve.tree.processes())
        assert await running.ve.run(running.keeper, running.init, "true") == (0, "")

    with_ve(stand, make_ve(), test)


def test_a_command_that_fails_is_reported_with_the_runtimes_own_words(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def body() -> None:
        ve = make_ve()
        ve.write_config(replace(ve.spec(), init=("/no/such/init",)))
        async with keeper_of(stand.run_dir) as keeper:
            with pytest.raises(CommandError) as caught:
                await keeper.launch(ve.launch_request(), log=ve.runtime.log)
            assert caught.value.status == 1
            assert "/no/such/init" in caught.value.output
            assert records.read_init(ve.run_dir, ve.uid) is None

    asyncio.run(body())


def test_an_overlay_that_cannot_be_mounted_is_reported(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def body() -> None:
        ve = make_ve()
        request = ve.launch_request()
        assert request.spec.overlay is not None
        broken = replace(request.spec, overlay=replace(request.spec.overlay, volume=f"{ve.volume}/none"))
        async with keeper_of(stand.run_dir) as keeper:
            with pytest.raises(KeeperError, match="none"):
                await keeper.launch(replace(request, spec=broken))

    asyncio.run(body())


def test_a_command_that_hangs_is_killed_with_what_it_started(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def body() -> None:
        ve = make_ve()
        marker = f"{ve.directory}/group"
        script = f"sleep 1000 & echo $$ > {marker}.new; mv {marker}.new {marker}; sleep 1000"
        spec = LaunchSpec(argv=("sh", "-c", script), env=ENV, overlay=None)
        async with keeper_of(stand.run_dir) as keeper:
            for timeout_s in (0.5, 2.0, 8.0):  # on a busy machine a command may not even have begun to hang
                with pytest.raises(TimeLimitError):
                    await keeper.launch(replace(ve.launch_request(), spec=spec, timeout_s=timeout_s))
                if os.path.exists(marker):
                    break
        leader = int(Path(marker).read_text())
        await until(lambda: not group(leader))

    asyncio.run(body())


def test_a_second_init_of_a_ve_is_refused(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    async def test(running: Running) -> None:
        with pytest.raises(KeeperError, match="runs already"):
            await running.keeper.launch(running.ve.launch_request())
        assert pidfd.identify(running.init.pid) == running.init

    with_ve(stand, make_ve(), test)


def test_a_ve_outlives_a_killed_keeper_and_its_end_is_then_of_unknown_cause(
    stand: Stand, make_ve: Callable[..., Ve]
) -> None:
    run_dir = f"{stand.directory}/run-{secrets.token_hex(3)}"

    async def body() -> None:
        ve = make_ve(run_dir=run_dir)
        async with keeper_of(run_dir) as first:
            init = await ve.boot(first)
            killed = (await first.ping()).pid
            os.kill(killed, signal.SIGKILL)
            await until(lambda: not first.is_open)
            with pytest.raises(KeeperError):
                await first.ping()
        async with keeper_of(run_dir) as second:
            assert (await second.ping()).pid != killed
            assert pidfd.identify(init.pid) == init
            assert await ve.run(second, init, "echo", "alive") == (0, "alive\n")
            ve.tree.kill()
            assert records.read_exit(run_dir, ve.uid) is None
            written = records.read_init(run_dir, ve.uid)
            assert written is not None
            assert written.init == init
            await second.shut_down()

    asyncio.run(body())


def test_one_keeper_runs_however_many_are_started(stand: Stand) -> None:
    run_dir = f"{stand.directory}/run-{secrets.token_hex(3)}"

    async def body() -> None:
        clients = await asyncio.gather(*(keeper_client.ensure_keeper(run_dir) for _ in range(5)))
        pids = {(await client.ping()).pid for client in clients}
        assert len(pids) == 1
        (pid,) = pids
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.stat(f"{run_dir}/{protocol.SOCKET_NAME}").st_mode & 0o777 == 0o600
        assert os.getsid(pid) != os.getsid(0)
        await clients[0].shut_down()
        await until(lambda: not os.path.exists(f"/proc/{pid}"))
        for client in clients:
            client.close()

    asyncio.run(body())


def test_a_keeper_with_ves_ends_only_by_force(stand: Stand, make_ve: Callable[..., Ve]) -> None:
    run_dir = f"{stand.directory}/run-{secrets.token_hex(3)}"

    async def body() -> None:
        ve = make_ve(run_dir=run_dir)
        async with keeper_of(run_dir) as keeper:
            init = await ve.boot(keeper)
            with pytest.raises(KeeperError, match="parent of 1"):
                await keeper.shut_down()
            await keeper.shut_down(force=True)
            await until(lambda: not keeper.is_open)
            assert pidfd.identify(init.pid) == init

    asyncio.run(body())


def test_a_client_that_talks_nonsense_is_dropped_and_nobody_else(stand: Stand) -> None:
    async def body() -> None:
        async with keeper_of(stand.run_dir) as keeper:
            directory = protocol.open_run_dir(stand.run_dir)
            for nonsense in (b"\xff", b"[]", b'{"id":1,"type":"Exec","body":{}}', b"x" * 300, b'{"id":1}'):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.settimeout(DEADLINE_S)
                    sock.connect(protocol.socket_address(directory))
                    sock.recv(protocol.MESSAGE_BYTES)
                    sock.send(nonsense)
                    assert b"refused" in sock.recv(protocol.MESSAGE_BYTES)
                    assert sock.recv(protocol.MESSAGE_BYTES) == b""
            os.close(directory)
            assert (await keeper.ping()).pid

    asyncio.run(body())


def test_another_user_may_not_connect(stand: Stand) -> None:
    async def body() -> None:
        async with keeper_of(stand.run_dir):
            code = (
                "import os, socket, sys\n"
                "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(20)\n"
                "d = os.open(sys.argv[1], os.O_PATH)\n"
                "os.setresuid(65534, 65534, 65534)\n"
                "try: s.connect(f'/proc/self/fd/{d}/keeper.sock')\n"
                "except PermissionError: print('refused')\n"
                "else: print(s.recv(100))\n"
            )
            result = await asyncio.to_thread(
                subprocess.run, ["python3", "-c", code, stand.run_dir], capture_output=True, text=True, timeout=30
            )
            assert result.stdout in ("refused\n", "b''\n")

    asyncio.run(body())
