"""Examining a host: can it hold VEs, and what is lost where it can only in part. Nothing is changed by looking.

Features of the kernel are tried out where that leaves no trace, in a network namespace of its own, rather than read
from a version number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing

from reconciler.errors import VectlError
from reconciler.host import ground, lxcfs, shaping, tools
from reconciler.kernel import (
    cgroup_file,
    cgroup_io,
    cgroup_layout,
    cgroup_limits,
    disks,
    link,
    mount,
    netns,
    quota,
    sysctl,
    tc,
)
from reconciler.kernel.nftread import NftSocket
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.kernel.syscalls import file_errors
from reconciler.model.compute import Limit
from reconciler.model.instance import Instance
from reconciler.model.probe import Level, Probe
from reconciler.model.units import format_size

_INOTIFY_INSTANCES = 1024  # an init such as systemd takes some ten
_FILE_SYSTEMS = ("overlay", "erofs", "btrfs")
_MAC = "02:76:00:00:00:01"

# inotify's are counted for whoever made the user namespaces as well, who is the host's root for all VEs.
_NEEDED = {
    "fs.inotify.max_user_instances": (1024, "all VEs share them, and each systemd takes some twenty"),
    "fs.inotify.max_user_watches": (65536, "all VEs share them"),
    "kernel.keys.maxkeys": (200, "services in VEs cannot make their session keyrings"),
    "kernel.keys.root_maxkeys": (10_000, "each start of a VE takes a keyring of root's"),
    "kernel.pid_max": (32_768, "there are fewer processes than VEs may ask for"),
}


def examine(instance: Instance) -> Iterator[Probe]:
    """Examine this host for one instance, what matters most first."""
    if os.geteuid() != 0:
        yield Probe(name="root", level=Level.FAIL, found="not root", remedy="run it with sudo")
        return
    yield Probe(name="root", level=Level.OK, found="root")
    yield from _kernel()
    yield _cgroups()
    yield from _tried("disk limits", lambda: _disk_limits(instance), level=Level.WARN)
    yield from examine_memory_protection()
    yield from _network()
    yield from _tried("loop devices", _loop)
    yield _quotas()
    yield from tools.examine(instance)
    yield from _parameters()
    yield _lxcfs(instance)
    yield _pool(instance)


def _kernel() -> Iterator[Probe]:
    known = _file_systems()
    for name in _FILE_SYSTEMS:
        if name in known:
            yield Probe(name=name, level=Level.OK, found="in this kernel")
        elif _has_module(name):
            yield Probe(name=name, level=Level.OK, found="a module, loaded when it is needed")
        else:
            remedy = "boot a kernel that has it, such as Debian's"
            yield Probe(name=name, level=Level.FAIL, found="not in this kernel", remedy=remedy)
    yield from _tried("user namespaces", _user_namespaces)
    yield from examine_inotify()
    has_time = os.path.exists("/proc/self/ns/time")
    yield Probe(
        name="time namespaces",
        level=Level.OK if has_time else Level.WARN,
        found="in this kernel" if has_time else "not in this kernel; restored VEs see time jump",
    )


def _file_systems() -> frozenset[str]:
    with file_errors("read", "/proc/filesystems"), open("/proc/filesystems", encoding="ascii") as file:
        return frozenset(line.split()[-1] for line in file)


def _has_module(name: str) -> bool:
    """Say whether the kernel has a module of that name. Source: depmod(8), modules.dep."""
    path = f"/lib/modules/{os.uname().release}/modules.dep"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(f"/{name}.ko" in line.partition(":")[0] for line in file)
    except OSError:
        return False


def _user_namespaces() -> str:
    most = int(sysctl.read("user.max_user_namespaces"))
    if most < 1:
        raise VectlError("user.max_user_namespaces is 0; set it to 10000")
    return f"up to {most}"


def examine_inotify() -> Iterator[Probe]:
    """Examine how many inotify instances there are: the kernel counts those of all VEs for the host's root."""
    yield from _tried("inotify", _inotify_instances, level=Level.WARN)


def _inotify_instances() -> str:
    name = "fs.inotify.max_user_instances"
    most = int(sysctl.read(name))
    if most < _INOTIFY_INSTANCES:
        raise VectlError(f"root and all VEs share {most} instances, which one VE can use up; set {name} to 8192")
    return f"{most} instances for root and all VEs"


def _tried(name: str, attempt: Callable[[], str], *, level: Level = Level.FAIL) -> Iterator[Probe]:
    try:
        yield Probe(name=name, level=Level.OK, found=attempt())
    except (VectlError, OSError, ValueError) as err:
        found, _, remedy = str(err).partition("; ")
        yield Probe(name=name, level=level, found=found, remedy=remedy)


def _cgroups() -> Probe:
    try:
        layout = cgroup_layout.detect()
        missing = sorted(set(Limit) - cgroup_limits.enforceable(layout) - set(cgroup_io.LIMITS))
    except VectlError as err:
        return Probe(name="cgroups", level=Level.FAIL, found=str(err), remedy="mount cgroup2 on /sys/fs/cgroup")
    kind = "v2" if layout.is_pure_v2 else "v1" if layout.unified is None else "hybrid"
    if not missing:
        return Probe(name="cgroups", level=Level.OK, found=f"{kind}; every limit can be enforced")
    found = f"{kind}; not enforceable: {', '.join(missing)}"
    remedy = "" if layout.is_pure_v2 else "boot with systemd.unified_cgroup_hierarchy=1"
    return Probe(name="cgroups", level=Level.WARN, found=found, remedy=remedy)


def _disk_limits(instance: Instance) -> str:
    layout = cgroup_layout.detect()
    if cgroup_io.hierarchy(layout) is None:
        raise VectlError("this kernel limits no disk traffic; boot one with CONFIG_BLK_DEV_THROTTLING")
    if not ground.is_mounted(instance):
        return "known once the pool is mounted"
    found = disks.examine(instance.pool, cost_model=layout.unified and f"{layout.unified}/io.cost.qos")
    if found.sharing is None:
        raise VectlError(f"io.weight is not enforceable: {found.why_not}")
    return f"held by {', '.join(found.numbers)}, shared by {found.sharing}"


def examine_memory_protection() -> Iterator[Probe]:
    """Examine whether the guarantee of a VE reaches the cgroups inside it."""
    yield from _tried("memory guarantees", _memory_protection, level=Level.WARN)


def _memory_protection() -> str:
    layout = cgroup_layout.detect()
    if "memory" not in layout.unified_controllers:
        return "no matter here: cgroup v1 has none"
    if not cgroup_layout.passes_protection_down(cgroup_file.read("/proc/self/mountinfo")):
        raise VectlError(
            f"{layout.unified} is mounted without memory_recursiveprot, as lxcfs does it, so they reach no service "
            "inside a VE that has cgroups of its own; "
            f"run `mount -o remount,nsdelegate,memory_recursiveprot {layout.unified}`, after each start of lxcfs again"
        )
    return "reach all processes of a VE"


def _network() -> Iterator[Probe]:
    try:
        descriptor = netns.create()
    except VectlError as err:
        yield Probe(name="network namespaces", level=Level.FAIL, found=str(err), remedy="boot a kernel that has them")
        return
    try:
        with closing(RtnlSocket.open_in(descriptor)) as sock:
            yield from _tried("bridge", lambda: _bridge(sock))
            yield from _tried("veth", lambda: _veth(sock, descriptor))
            yield from _tried("rates", lambda: _rates(sock), level=Level.WARN)
    except VectlError as err:
        yield Probe(name="rtnetlink", level=Level.FAIL, found=str(err))
    finally:
        os.close(descriptor)
    yield from _tried("nftables", _nftables)


def _bridge(sock: RtnlSocket) -> str:
    link.create_bridge(sock, "probe", mac=_MAC, mtu=1500, alias="probe")
    return "made one in a namespace of its own"


def _veth(sock: RtnlSocket, namespace: int) -> str:
    pair = link.VethPair(
        host_name="probe0", host_mac=_MAC, peer_name="probe1", peer_mac="02:76:00:00:00:02", mtu=1500, alias="probe"
    )
    link.create_veth(sock, sock, namespace, pair)
    return "made one in a namespace of its own"


def _rates(sock: RtnlSocket) -> str:
    near = link.create_ifb(sock, "probe2", mac="02:76:00:00:00:03", alias="probe")
    tc.set_bucket(sock, near.index, shaping.bucket(10**6, 1500))
    tc.redirect_ingress(sock, near.index, near.index)
    return "held an interface of no VE to one"


def _nftables() -> str:
    sock = NftSocket.open_here()
    try:
        return f"in this kernel, generation {sock.generation()}"
    finally:
        sock.close()


def _loop() -> str:
    with file_errors("open", "/dev/loop-control"):
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))
    return "there"


def _quotas() -> Probe:
    if reason := quota.missing():
        found, _, remedy = reason.partition("; ")
        return Probe(name="disk quotas", level=Level.WARN, found=found, remedy=remedy)
    return Probe(name="disk quotas", level=Level.OK, found="of users, groups and files, where VEs ask for them")


def _parameters() -> Iterator[Probe]:
    for name, (least, loss) in _NEEDED.items():
        try:
            value = int(sysctl.read(name))
        except (VectlError, ValueError) as err:
            yield Probe(name=name, level=Level.WARN, found=str(err))
            continue
        if value < least:
            yield Probe(
                name=name, level=Level.WARN, found=f"{value}; {loss}", remedy=f"set {name}={least} in /etc/sysctl.d"
            )
        else:
            yield Probe(name=name, level=Level.OK, found=str(value))


def _lxcfs(instance: Instance) -> Probe:
    loss = "`free` and `top` inside a VE show the host's memory and CPUs"
    try:
        version = lxcfs.version(instance)
    except VectlError as err:
        return Probe(name="lxcfs", level=Level.WARN, found=f"{err}; {loss}")
    if version is None:
        remedy = "install the Debian package lxcfs"
        return Probe(name="lxcfs", level=Level.WARN, found=f"no such program; {loss}", remedy=remedy)
    if not os.path.exists("/dev/fuse"):
        found, remedy = f"{version}, but there is no /dev/fuse; {loss}", "load the module fuse"
        return Probe(name="lxcfs", level=Level.WARN, found=found, remedy=remedy)
    state = "running" if lxcfs.is_alive(instance) else "started with the first VE"
    return Probe(name="lxcfs", level=Level.OK, found=f"{version}, {state}")


def _pool(instance: Instance) -> Probe:
    if mount.is_mounted(instance.pool):
        usage = os.statvfs(instance.pool)
        free = format_size(usage.f_bavail * usage.f_frsize >> 20 << 20)
        return Probe(name="pool", level=Level.OK, found=f"{instance.pool}, {free} free")
    if ground.has_pool(instance):
        remedy = "`vectl apply` or the agent mounts it"
        return Probe(name="pool", level=Level.WARN, found=f"{instance.pool} is not mounted", remedy=remedy)
    return Probe(name="pool", level=Level.OK, found=f"none yet; {format_size(instance.pool_size)} will be taken for it")
