"""A running VE as a test sees it: its init, its cgroups, what the host can read of it, and programs run in it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reconciler.host.keeper import records
from reconciler.host.keeper.client import KeeperClient
from reconciler.host.keeper.protocol import Exec
from reconciler.kernel import cgroup_counters, cgroup_layout, netns, pidfd
from reconciler.kernel.cgroup import CgroupTree
from reconciler.kernel.execute import ExecSpec
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.identity import Uid, host_link_name
from reconciler.model.instance import Instance
from tests.support.patience import PATIENCE

T = TypeVar("T")

PROGRAM_S = 30.0 * PATIENCE
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


@dataclass(frozen=True, slots=True)
class Ve:
    """One VE of an instance; everything is looked up anew at each call."""

    instance: Instance
    uid: Uid

    @property
    def init(self) -> ProcessId:
        """The init that runs now. Raises: LookupError, if none does."""
        record = records.read_init(self.instance.run_dir, self.uid)
        if record is None or pidfd.identify(record.init.pid) != record.init:
            raise LookupError(f"VE {self.uid} does not run")
        return record.init

    @property
    def runs(self) -> bool:
        """Whether an init is there."""
        try:
            return bool(self.init)
        except LookupError:
            return False

    @property
    def pid(self) -> int:
        """The pid of init on the host."""
        return self.init.pid

    @property
    def cgroup(self) -> CgroupTree:
        """The cgroup that holds the limits."""
        return CgroupTree(cgroup_layout.detect(), self.instance.ve_cgroup(self.uid))

    @property
    def oom_kills(self) -> int:
        """How many processes were killed in it for want of memory since its cgroup was made."""
        counted = cgroup_counters.read_counters(cgroup_layout.detect(), self.instance.ve_cgroup(self.uid))
        assert counted is not None
        assert counted.oom_kills is not None
        return counted.oom_kills

    def limit(self, name: str) -> object:
        """Read a limit, by the name that it has in a manifest."""
        return (self.cgroup.read_limits() or {})[name]

    def limit_file(self, v1: str, v2: str, *, controller: str) -> Path:
        """Find the file of a limit on this host."""
        hierarchy = cgroup_layout.detect().of(controller)
        assert hierarchy is not None
        return Path(hierarchy.path(self.instance.ve_cgroup(self.uid)), v2 if hierarchy.unified else v1)

    @property
    def memory_limit_file(self) -> Path:
        """The file that bounds the memory."""
        return self.limit_file("memory.limit_in_bytes", "memory.max", controller="memory")

    @property
    def upper(self) -> Path:
        """The directory in the pool that holds what was written in the VE."""
        return Path(self.instance.volume(self.uid), "upper")

    def link(self, interface: str = "eth0") -> str:
        """Give the name of the host's end of an interface."""
        return host_link_name(self.instance.name, self.uid, interface)

    def run(self, *args: str, status: int = 0) -> str:
        """Run a program in the VE as `vectl exec` would, with its limits; give all that it printed."""
        got, text = self.try_run(*args)
        assert got == status, f"{' '.join(args)}: {got}, not {status}: {text}"
        return text

    def try_run(self, *args: str, nesting: bool = False) -> tuple[int, str]:
        """Run a program in the VE; give its exit status and all that it printed."""
        spec = ExecSpec(init=self.init, cgroups=self.cgroup.inner_directories(), args=args, env=_ENV, nesting=nesting)
        return asyncio.run(_execute(self.instance.run_dir, spec))

    def begin(self, *args: str) -> Future[str]:
        """Begin to run a program in the VE; its end is waited for by the result."""
        thread = ThreadPoolExecutor(max_workers=1)
        running = thread.submit(self.run, *args)
        thread.shutdown(wait=False)
        return running

    def shell(self, script: str, status: int = 0) -> str:
        """Run a script of the VE's own shell."""
        return self.run("sh", "-c", script, status=status)

    def as_host(self, *argv: str, given: bytes = b"", check: bool = True) -> str:
        """Run a program in the VE's namespaces, but with every capability and without a filter."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd", "--", *argv]
        done = subprocess.run(enter, input=given, stdout=subprocess.PIPE, check=check, timeout=PROGRAM_S)
        return done.stdout.decode(errors="replace")

    def can_reach(self, address: str) -> bool:
        """Say whether an address answers the VE."""
        return self.try_run("ping", "-c", "1", "-W", "1", address)[0] == 0

    def net(self, *argv: str, check: bool = True) -> str:
        """Run a command of the host in the VE's network namespace, with all power over it."""
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv],
            stdout=subprocess.PIPE,
            text=True,
            check=check,
            timeout=PROGRAM_S,
        ).stdout

    def net_json(self, *argv: str) -> Any:  # whatever the command's JSON is
        """Run a command of the host that prints JSON in the VE's network namespace."""
        return json.loads(self.net(*argv) or "[]")

    def addresses(self, interface: str = "eth0") -> set[str]:
        """Give the global addresses of an interface."""
        shown = self.net_json("ip", "-j", "addr", "show", "dev", interface, "scope", "global")
        return {f"{a['local']}/{a['prefixlen']}" for link in shown for a in link.get("addr_info", ()) if a}

    def in_network(self, work: Callable[[], T]) -> T:
        """Do something in the VE's network namespace."""
        descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return netns.call_in(descriptor, work)
        finally:
            os.close(descriptor)

    def packet_socket(self, protocol: int, interface: str = "eth0") -> socket.socket:
        """Open a socket that sends and takes whole frames of an interface."""

        def opened() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
            made.bind((interface, protocol))
            return made

        return self.in_network(opened)


async def _execute(run_dir: str, spec: ExecSpec) -> tuple[int, str]:
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    async with await KeeperClient.connect(run_dir) as keeper:
        try:
            request = Exec(spec=spec, timeout_s=PROGRAM_S)
            execution = await keeper.execute(request, stdio=(null, writer, writer))
        finally:
            os.close(writer)
            os.close(null)
            text = await asyncio.wait_for(asyncio.to_thread(_drain, reader), PROGRAM_S)
        return await asyncio.wait_for(execution.wait(), PROGRAM_S), text


def _drain(descriptor: int) -> str:
    """Read a pipe until nobody holds its other end, and close it."""
    with open(descriptor, "rb") as pipe:
        return pipe.read().decode(errors="replace")
