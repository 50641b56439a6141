"""The OCI configuration of a VE, built from typed values: nothing of it is ever text that was put together.

Every namespace is new and none is given by path: the runtime makes the network's inside the VE's user namespace. The
cgroup is the inner part of the VE's. Limits are none of the runtime's business.

Source: opencontainers/runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

from reconciler.kernel import capabilities, seccomp
from reconciler.kernel.cgroup_layout import INNER
from reconciler.kernel.device_rules import DeviceId

DEFAULT_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "container": "oci",
    # A pressure file that systemd polls does not survive a restore: it reports an error for ever.
    "MEMORY_PRESSURE_WATCH": "/dev/null",
}

CgroupMount: TypeAlias = Literal["v2", "hybrid"]
"""How the VE's part of cgroup v2 is shown inside: by the runtime, or, where v1 holds the limits, as any file system."""

_MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NAMESPACES = ("pid", "ipc", "uts", "mount", "cgroup", "network", "user")
# null, zero, full, random, urandom, tty, ptmx; terminals have a major number of their own.
_CHARACTER_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))
_TERMINALS = 136

BASE_DEVICES: Mapping[DeviceId, str] = {
    **{DeviceId(major=major, minor=minor): "rwm" for major, minor in _CHARACTER_DEVICES},
    DeviceId(major=_TERMINALS, minor=None): "rwm",
    DeviceId(major=None, minor=None): "m",
    DeviceId(block=True, major=None, minor=None): "m",
}
"""What every VE may do with devices. Making a node of any takes a capability over the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or directory of the host that is shown inside; its target must exist in the template.

    ``is_device``: a node, whose rules say who may open it.
    """

    source: str
    target: str
    read_only: bool = False
    is_device: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node that exists inside. Shape: ``access`` of the letters ``rwm``."""

    path: str
    major: int
    minor: int
    block: bool = False
    access: str = "rw"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSpec:
    """What a VE's runtime configuration says.

    Shape: ``cgroup`` is the VE's path, ``/<instance>/<uid>``; ``rlimits`` maps ``RLIMIT_...`` to soft and hard;
    ``criu_config`` a file of options for every dump and restore that the runtime makes.
    Units: ids of the host.
    """

    hostname: str
    rootfs: str
    id_base: int
    cgroup: str
    id_count: int = 65_536
    init: tuple[str, ...] = ("/sbin/init",)
    env: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_ENV))
    capabilities: tuple[str, ...] = capabilities.SYSTEM
    nesting: bool = False
    no_new_privileges: bool = False
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroup_mount: CgroupMount | None = None
    criu_config: str | None = None


def build_config(spec: BundleSpec) -> dict[str, object]:
    """Build the content of ``config.json``.

    Raises: MissingToolError, on an architecture without a seccomp list.
    """
    config: dict[str, object] = {
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": spec.rootfs, "readonly": False},
        "process": _process(spec),
        "mounts": [*_mounts(), *_nesting_mounts(spec), *_cgroup_mount(spec), *(_bind(bind) for bind in spec.binds)],
        "linux": _linux(spec),
    }
    if spec.criu_config is not None:
        config["annotations"] = {"org.criu.config": spec.criu_config}
    return config


def _process(spec: BundleSpec) -> dict[str, object]:
    names = sorted(spec.capabilities)
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(spec.init),
        "cwd": "/",
        "env": [f"{name}={value}" for name, value in spec.env.items()],
        "noNewPrivileges": spec.no_new_privileges,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
        "rlimits": [{"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in sorted(spec.rlimits.items())],
        "oomScoreAdj": 0,
    }


def _mounts() -> list[dict[str, object]]:
    return [
        _mount("/proc", "proc"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777"),  # noqa: S108 - the VE's own
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/run", "tmpfs", "nosuid", "nodev", "mode=755", "size=64m"),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
    ]


def _nesting_mounts(spec: BundleSpec) -> list[dict[str, object]]:
    """Keep a whole /proc and /sys aside: a user namespace may mount one only if it sees one with nothing over it.

    They give the VE's root nothing that he could not have by unmounting what is over the usual ones.
    Source: Linux fs/namespace.c, mount_too_revealing.
    """
    if not spec.nesting:
        return []
    return [
        _mount("/dev/.nesting/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev/.nesting/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
    ]


def _mount(target: str, kind: str, *options: str) -> dict[str, object]:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


def _cgroup_mount(spec: BundleSpec) -> list[dict[str, object]]:
    options = ("nosuid", "noexec", "nodev", "relatime", "rw")
    match spec.cgroup_mount:
        case None:
            return []
        case "v2":
            return [_mount("/sys/fs/cgroup", "cgroup", *options)]
        case "hybrid":  # the runtime's own kind of mount would show the v1 hierarchies
            return [_mount("/sys/fs/cgroup", "cgroup2", *options)]


def _bind(bind: Bind) -> dict[str, object]:
    options = ["bind"] if bind.is_device else ["bind", "nosuid", "nodev", *(["ro"] if bind.read_only else [])]
    return {"destination": bind.target, "type": "bind", "source": bind.source, "options": options}


def _linux(spec: BundleSpec) -> dict[str, object]:
    mapping = [{"containerID": 0, "hostID": spec.id_base, "size": spec.id_count}]
    return {
        "namespaces": [{"type": kind} for kind in _NAMESPACES],
        "uidMappings": mapping,
        "gidMappings": mapping,
        "cgroupsPath": f"{spec.cgroup}/{INNER}",
        "resources": {"devices": _device_rules(spec)},
        "devices": [_device(device) for device in spec.devices],
        "sysctl": dict(spec.sysctls),
        "seccomp": _seccomp(nesting=spec.nesting),
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }


def _device_rules(spec: BundleSpec) -> list[dict[str, object]]:
    terminals = {"allow": True, "type": "c", "major": _TERMINALS, "access": "rwm"}
    return [
        {"allow": False, "access": "rwm"},
        *(_device_rule("c", major, minor, "rwm") for major, minor in _CHARACTER_DEVICES),
        terminals,
        *(_device_rule("b" if d.block else "c", d.major, d.minor, d.access) for d in spec.devices),
    ]


def _device_rule(kind: str, major: int, minor: int, access: str) -> dict[str, object]:
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def _device(device: Device) -> dict[str, object]:
    kind = "b" if device.block else "c"
    node = {"path": device.path, "type": kind, "major": device.major, "minor": device.minor}
    return {**node, "fileMode": 0o666, "uid": 0, "gid": 0}


@cache
def _seccomp(*, nesting: bool) -> dict[str, object]:
    return seccomp.to_oci(seccomp.profile(nesting=nesting))
