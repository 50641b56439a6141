"""Lines for LXC: those that a field stands for; the others are named."""

from __future__ import annotations

from reconciler.importing.draft import Job
from reconciler.importing.limits import rlimit, sysctl
from reconciler.importing.proxmox.storage import bytes_of
from reconciler.importing.report import Setting
from reconciler.importing.words import count, shown, size, whole
from reconciler.model.facts import Json

_NO_FIELD = "a line for LXC, for which there is no field"
_ENTRY_WORDS = 6


def convert(lines: list[Setting], job: Job) -> None:
    """Set what fields stand for, of the lines that go to LXC as they are."""
    for setting in lines:
        try:
            _take(job, setting)
        except ValueError as err:
            job.drop(setting, str(err))


def _take(job: Job, setting: Setting) -> None:
    key = setting.key.lower()
    if key.startswith("lxc.prlimit."):
        rlimit(job, setting, key.removeprefix("lxc.prlimit."))
    elif key.startswith("lxc.sysctl."):
        sysctl(job, setting, key.removeprefix("lxc.sysctl."))
    elif key == "lxc.mount.entry":
        _mount(job, setting)
    elif key.startswith(("lxc.cgroup2.", "lxc.cgroup.")):
        _cgroup(job, setting, key.split(".", 2)[2])
    else:
        job.drop(setting, _NO_FIELD)


def _mount(job: Job, setting: Setting) -> None:
    """Take a bind mount of a directory; its target is relative to the root of the container. Source: fstab(5)."""
    words = setting.value.split()
    flags = set(words[3].split(",")) if len(words) >= _ENTRY_WORDS - 2 else set[str]()
    if not flags & {"bind", "rbind"} or not words[0].startswith("/") or "create=file" in flags:
        job.drop(setting, "no bind mount of a directory: declare it below mounts or devices")
        return
    entry: dict[str, Json] = {"source": words[0], "target": "/" + words[1].lstrip("/")}
    if "ro" in flags:
        entry["readOnly"] = True
    job.draft.append("mounts", entry, setting)
    lost = sorted(shown(flag) for flag in flags - {"bind", "rbind", "ro", "rw", "create=dir", "optional", "defaults"})
    if lost:
        job.changed(setting, "mounts", f"{', '.join(lost)} are lost")
    else:
        job.mapped(setting, "mounts")


def _cgroup(job: Job, setting: Setting, name: str) -> None:
    value = setting.value.strip()
    if name == "pids.max" and value != "max":
        job.put(setting, "processes", count(whole(value)))
    elif name in ("memory.low", "memory.min") and value != "max":
        job.put(setting, "memory.guarantee", size(bytes_of(value.upper())))
    elif name == "memory.high" and value != "max":
        job.put(setting, "memory.barrier", size(bytes_of(value.upper())))
    elif name == "cpuset.cpus":
        job.put(setting, "cpu.cpus", value)
    elif name == "cpuset.mems":
        job.put(setting, "cpu.nodes", value)
    elif name.startswith("devices."):
        job.drop(setting, "devices are declared by their paths on the host, below devices")
    else:
        job.drop(setting, _NO_FIELD)
