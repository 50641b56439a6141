"""What else makes containers: LXC and Incus, from the same template, with the same limits, as many at a time.

Everything is the benchmark's own, a daemon for Incus and a bridge too, and is gone at the end. The line of a peer says
what it does less than vectl.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import common
from reconciler.errors import VectlError
from reconciler.kernel import cgroup_file, cgroup_layout

NAME = "bnpeer"
ID_BASE, ID_COUNT = 3 << 29, 65_536
COMMAND_S = 60.0
GONE_S = 10.0
_PAYLOAD = f"lxc.payload.{NAME}-"
# The daemon looks for its bridge in sysfs, which shows the network namespace that it was mounted in.
_INCUSD = """
mount --rbind /sys/fs/cgroup "$1"
mount -t sysfs sysfs /sys
mount --rbind "$1" /sys/fs/cgroup
ip link set lo up
ip link add "$2" up type bridge
exec "$3" --group root
"""
# Where Debian keeps a daemon that nobody is to start by hand.
_DAEMONS = "/usr/libexec/incus:/usr/lib/incus"

Start = Callable[[int], object]
"""Create and start the container of a number; at the return its init runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program that makes containers. Shape: ``does`` tells what is timed and what it leaves out."""

    name: str
    package: str
    tools: tuple[str, ...]
    does: str
    prepared: Callable[[Path, int], AbstractContextManager[Start]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a peer. Units: seconds, or None, and then ``remark`` says why."""

    name: str
    seconds: float | None
    remark: str


def measure(count: int, workers: int) -> Iterator[Outcome]:
    """Time each peer, or tell what keeps it from running; nothing of that is an error."""
    for peer in (LXC, INCUS):
        if all(_find(tool) for tool in peer.tools):
            yield _measure(peer, count, workers)
        else:
            yield Outcome(name=peer.name, seconds=None, remark=f"not installed, apt install {peer.package}")


def _measure(peer: Peer, count: int, workers: int) -> Outcome:
    try:
        with _place() as place, peer.prepared(place, count) as start:
            seconds = common.timed(lambda: _start_all(start, count, workers))
            if (running := _count_running()) < count:
                raise OSError(f"only {running} of {count} run after their start")
    except (OSError, subprocess.SubprocessError, VectlError) as err:
        return Outcome(name=peer.name, seconds=None, remark=f"does not run here: {_reason(err)}")
    return Outcome(name=peer.name, seconds=seconds, remark=peer.does)


def _start_all(start: Start, count: int, workers: int) -> None:
    """Start all; the first failure keeps those that wait from starting at all."""
    pool = ThreadPoolExecutor(workers)
    try:
        for done in [pool.submit(start, number) for number in range(count)]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _place() -> Iterator[Path]:
    """Give a directory with the template in it; take it away, and the cgroups that came since."""
    before = _cgroups()
    place = Path(tempfile.mkdtemp(prefix="vectl-bench-peers-", dir="/var/tmp"))
    try:
        place.chmod(0o711)  # ids of containers pass through
        (place / "rootfs").mkdir()
        common.build_template(place / "rootfs")
        yield place
    finally:
        _remove_cgroups(before)
        _remove_tree(place)


def _remove_tree(place: Path) -> None:
    if f" {place}/" in Path("/proc/self/mountinfo").read_text():
        sys.stderr.write(f"bench: {place} is left: something is mounted in it\n")
    else:
        shutil.rmtree(place)


def _cgroups() -> frozenset[str]:
    """List the cgroups that LXC makes, for Incus too: of a container, of its monitor, and one to move by."""
    ours = ("lxc.pivot", _PAYLOAD, f"lxc.monitor.{NAME}-")
    hierarchies = cgroup_layout.detect().hierarchies()
    found = (path for one in hierarchies for path in cgroup_file.directories(one.directory))
    return frozenset(path for path in found if os.path.basename(path).startswith(ours))


def _count_running() -> int:
    payloads = (path for path in _cgroups() if os.path.basename(path).startswith(_PAYLOAD))
    return len({os.path.basename(path) for path in payloads if Path(path, "cgroup.procs").read_text()})


def _remove_cgroups(before: frozenset[str]) -> None:
    deadline = time.monotonic() + GONE_S
    ours = [path for top in _cgroups() - before for path in cgroup_file.directories(top)]
    for path in sorted(ours, reverse=True):
        while not cgroup_file.remove_directory(path) and time.monotonic() < deadline:
            time.sleep(0.01)


@contextmanager
def _lxc(place: Path, count: int) -> Iterator[Start]:
    """Prepare a container that the others are copies of, by overlay."""
    base = place / "base"
    base.mkdir()
    (place / "rootfs").rename(base / "rootfs")  # where lxc-copy wants it
    _run("chown", "-R", "-h", f"{ID_BASE}:{ID_BASE}", str(base / "rootfs"))
    (base / "config").write_text("".join(f"{name} = {value}\n" for name, value in _lxc_settings(base)))
    try:
        _run("ip", "link", "add", NAME, "up", "type", "bridge")
        yield lambda number: _lxc_start(place, number)
    finally:
        for number in range(count):
            _quietly("lxc-stop", "-P", str(place), "-k", "-n", f"{NAME}-{number}")
        _quietly("ip", "link", "delete", NAME)


def _lxc_start(place: Path, number: int) -> None:
    where, name = ("-P", str(place)), f"{NAME}-{number}"
    address = f"lxc.net.0.ipv4.address=10.203.0.{number + 2}/24"
    _lxc_run("lxc-copy", *where, "-n", "base", "-N", name, "-p", str(place), "-s", "-B", "overlay")
    _lxc_run("lxc-start", *where, "-n", name, "-s", address, "-d")


def _lxc_run(tool: str, *arguments: str) -> None:
    # Where newuidmap is to be found it is asked, and wants ids in /etc/subuid; root can do without, so it is hidden.
    _run(_find(tool) or tool, *arguments, env={"PATH": "/sbin"})


def _lxc_settings(base: Path) -> tuple[tuple[str, str], ...]:
    return (
        ("lxc.include", "/usr/share/lxc/config/common.conf"),
        ("lxc.include", "/usr/share/lxc/config/userns.conf"),
        # None of the scripts that edit files of a distribution or bind those of lxcfs.
        *((f"lxc.hook.{when}", "") for when in ("clone", "mount", "post-stop")),
        ("lxc.apparmor.profile", "unconfined"),
        ("lxc.uts.name", "base"),
        ("lxc.rootfs.path", f"dir:{base}/rootfs"),
        ("lxc.idmap", f"u 0 {ID_BASE} {ID_COUNT}"),
        ("lxc.idmap", f"g 0 {ID_BASE} {ID_COUNT}"),
        ("lxc.net.0.type", "veth"),
        ("lxc.net.0.link", NAME),
        ("lxc.net.0.flags", "up"),
        ("lxc.net.0.name", "eth0"),
        *_lxc_limits(),
    )


def _lxc_limits() -> tuple[tuple[str, str], ...]:
    if cgroup_layout.detect().is_pure_v2:
        limits = {"memory.max": "64M", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "64"}
        return tuple((f"lxc.cgroup2.{name}", value) for name, value in limits.items())
    limits = {"memory.limit_in_bytes": "64M", "cpu.cfs_quota_us": "50000", "cpu.shares": "1024", "pids.max": "64"}
    return tuple((f"lxc.cgroup.{name}", value) for name, value in limits.items())


@contextmanager
def _incus(place: Path, count: int) -> Iterator[Start]:
    """Run a daemon in namespaces of its own: with it ends all that it started, mounted and connected."""
    directory = place / "incus"
    directory.mkdir(mode=0o711)
    env = {**os.environ, "INCUS_DIR": str(directory), "INCUS_CONF": str(place / "client")}
    daemon = _incus_daemon(place, env)
    try:
        _run(_find("incusd") or "incusd", "waitready", "--timeout", "30", env=env)
        _incus_prepare(place, env)
        _incus_launch(count, env)  # the first one unpacks the image
        yield lambda number: _incus_launch(number, env)
    finally:
        daemon.kill()  # unshare, which takes the first process of the namespace along
        daemon.wait()


def _incus_daemon(place: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    own = ("unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
    cgroups, null = place / "cgroup", subprocess.DEVNULL
    cgroups.mkdir()
    with (place / "incusd.log").open("wb") as log:
        command = [*own, "sh", "-euc", _INCUSD, "sh", str(cgroups), NAME, _find("incusd") or "incusd"]
        return subprocess.Popen(command, env=env, stdin=null, stdout=log, stderr=log)


def _incus_prepare(place: Path, env: Mapping[str, str]) -> None:
    """Make what vectl has beforehand too: a pool on btrfs, the template in it, the limits."""
    (place / "metadata.yaml").write_text(f"architecture: {os.uname().machine}\ncreation_date: 1\n")
    _run("tar", "-C", str(place), "-cf", f"{place}/image.tar", "metadata.yaml", "rootfs")
    limits = {
        "limits.memory": "64MiB",
        "limits.memory.swap": "false",
        "limits.cpu.allowance": "50ms/100ms",
        "limits.processes": "64",
    }
    for words in (
        ("storage", "create", NAME, "btrfs", "size=4GiB"),
        ("image", "import", f"{place}/image.tar", "--alias", NAME),
        ("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={NAME}", "size=64MiB"),
        ("profile", "device", "add", "default", "eth0", "nic", "nictype=bridged", f"parent={NAME}"),
        ("profile", "set", "default", *(f"{name}={value}" for name, value in limits.items())),
    ):
        _run("incus", *words, env=env)


def _incus_launch(number: int, env: Mapping[str, str]) -> None:
    _run("incus", "launch", NAME, f"{NAME}-{number}", "--quiet", env=env)


LXC = Peer(
    name="LXC",
    package="lxc",
    tools=("lxc-copy", "lxc-start", "lxc-stop"),
    does="lxc-copy -B overlay + lxc-start -d; one range of ids for all, no limit of the disk",
    prepared=_lxc,
)
INCUS = Peer(
    name="Incus",
    package="incus, on Debian 12 from its backports",
    tools=("incus", "incusd"),
    does="incus launch on its btrfs; one range of ids for all, no address",
    prepared=_incus,
)


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:{_DAEMONS}")


def _run(*command: str, env: Mapping[str, str] | None = None) -> None:
    """Run a command. Raises: subprocess.SubprocessError, with what it wrote; OSError."""
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    subprocess.run(command, env=env, check=True, stdin=null, stdout=null, stderr=pipe, text=True, timeout=COMMAND_S)


def _quietly(*command: str, env: Mapping[str, str] | None = None) -> None:
    """Take something away that may be gone already."""
    with suppress(OSError, subprocess.SubprocessError):
        _run(*command, env=env)


def _reason(err: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(err, subprocess.CalledProcessError) and err.stderr:
        lines = err.stderr.strip().splitlines()
        return f"{os.path.basename(err.cmd[0])}: {next((line for line in lines if 'Error' in line), lines[0])}"
    return " ".join(str(err).split())
