"""Real members of etcd on loopback: each cluster has addresses of its own, and ends with its block, or with us."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from reconciler.fleet import etcd_wire as wire
from reconciler.fleet.etcd_members import Members
from reconciler.kernel import netns
from reconciler.model.etcd import EtcdAddress
from tests.support.patience import PATIENCE
from tests.support.pki import Authority

CLIENT_PORT, PEER_PORT, HEALTH_PORT = 2379, 2380, 2381
_START_S = 60.0 * PATIENCE
_REQUEST_S = 10.0 * PATIENCE


def program() -> str:
    """Give the path of etcd, as `.ci/etcd` puts it; skip the test if there is none."""
    ours = os.path.join(os.environ.get("VECTL_LIB", "/usr/lib/vectl"), "bin/etcd")
    found = ours if os.access(ours, os.X_OK) else shutil.which("etcd")
    if found is None:
        pytest.skip("there is no etcd; use `make etcd`")
    return found


@dataclass
class EtcdMember:
    """One member; its process may be ended and started again over the same data."""

    name: str
    address: str
    directory: Path
    tls: Authority | None
    arguments: Sequence[str] = ()
    namespace: int | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """Give the address that clients use."""
        return f"{'https' if self.tls else 'http'}://{self.address}:{CLIENT_PORT}"

    @property
    def peer(self) -> str:
        """Give the address that other members use."""
        return f"http://{self.address}:{PEER_PORT}"

    def start(self) -> None:
        """Start it; it answers a little later."""
        with open(self.directory.parent / f"{self.name}.log", "ab") as log:
            inside = () if self.namespace is None else (self.namespace,)
            enter = [word for fd in inside for word in ("nsenter", f"--net=/proc/self/fd/{fd}", "--")]
            argv = ["setpriv", "--pdeathsig", "KILL", *enter, program(), *self._options(), *self.arguments]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inside)

    def kill(self) -> None:
        """End it at once, as a loss of power would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Let it stand still, with all its connections."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def is_healthy(self) -> bool:
        """Tell whether it answers for a quorum."""
        if self.namespace is not None:
            return netns.call_in(self.namespace, self._answers)
        return self._answers()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}:{HEALTH_PORT}/health", timeout=_REQUEST_S) as answer:
                return b'"health":"true"' in answer.read()
        except OSError:
            return False

    def is_leader(self) -> bool:
        """Tell whether it leads, as it sees it."""
        url = f"http://{self.address}:{HEALTH_PORT}/metrics"
        with urllib.request.urlopen(url, timeout=_REQUEST_S) as answer:
            return b"\netcd_server_is_leader 1\n" in answer.read()

    def _options(self) -> list[str]:
        here = {
            "name": self.name,
            "data-dir": str(self.directory),
            "listen-client-urls": self.endpoint,
            "advertise-client-urls": self.endpoint,
            "listen-peer-urls": self.peer,
            "initial-advertise-peer-urls": self.peer,
            "listen-metrics-urls": f"http://{self.address}:{HEALTH_PORT}",
            "initial-cluster-token": self.directory.parent.name,
            "log-level": "warn",
        }
        options = [word for key, value in here.items() for word in (f"--{key}", value)]
        return [*options, "--unsafe-no-fsync", *(self.tls.server_options(self.address) if self.tls else ())]


@dataclass(frozen=True)
class EtcdCluster:
    """Members that know each other."""

    members: tuple[EtcdMember, ...]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Give the addresses that clients use."""
        return tuple(member.endpoint for member in self.members)

    def await_health(self, *members: EtcdMember) -> None:
        """Wait until members answer for a quorum; without names, until all do."""
        ends_at = time.monotonic() + _START_S
        for member in members or self.members:
            while not member.is_healthy():
                alive = member.process is not None and member.process.poll() is None
                assert alive, f"etcd ended, see {member.directory.parent}/{member.name}.log"
                assert time.monotonic() < ends_at, f"etcd does not answer, see {member.directory.parent}"
                time.sleep(0.05)

    def leader(self) -> EtcdMember:
        """Give the member that leads."""
        ends_at = time.monotonic() + _START_S
        while time.monotonic() < ends_at:
            running = [member for member in self.members if member.process is not None]
            leading = [member for member in running if member.is_leader()]
            if len(leading) == 1:
                return leading[0]
            time.sleep(0.05)
        raise AssertionError("no member leads")


@contextmanager
def etcd(
    directory: Path,
    *,
    members: int = 1,
    tls: Authority | None = None,
    arguments: Sequence[str] = (),
    namespace: int | None = None,
) -> Iterator[EtcdCluster]:
    """Run a cluster until the end of the block. ``directory``: of its data and logs, made if need be; the logs stay.

    ``arguments``: further ones of etcd, such as ``--heartbeat-interval=50``. ``namespace``: a descriptor of the network
    namespace whose loopback it is on, None for ours.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        block = stack.enter_context(_addresses())
        made = tuple(
            EtcdMember(f"m{number}", f"{block}.{number}", directory / f"m{number}", tls, namespace=namespace)
            for number in range(1, members + 1)
        )
        known = ",".join(f"{member.name}={member.peer}" for member in made)
        for member in made:
            member.arguments = (*arguments, "--initial-cluster", known)
            stack.callback(shutil.rmtree, member.directory, ignore_errors=True)
            stack.callback(member.kill)
            member.start()
        cluster = EtcdCluster(made)
        cluster.await_health()
        yield cluster


async def protect(address: EtcdAddress, *, password: str, root_password: str = "root") -> None:
    """Make the user of an address, who may do all below ``/vectl/``, and have the cluster ask who asks."""
    prefix = wire.list_request("/vectl/")
    steps: tuple[tuple[str, wire.Message], ...] = (
        ("user/add", {"name": "root", "password": root_password}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": address.username, "password": password}),
        ("role/add", {"name": "host"}),
        ("role/grant", {"name": "host", "perm": {"permType": "READWRITE", **prefix}}),
        ("user/grant", {"user": address.username, "role": "host"}),
        ("enable", {}),
    )
    members = Members(replace(address, username=None, password_file=None))
    for path, message in steps:
        await members.ask_once(f"/v3/auth/{path}", message)
    members.close()


@contextmanager
def _addresses() -> Iterator[str]:
    """Choose the first three numbers of addresses on loopback that nobody else has, held by a socket of that name."""
    while True:
        block = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                claim.bind(f"\0vectl-test-etcd-{block}")
            except OSError:
                continue
            yield block
            return
