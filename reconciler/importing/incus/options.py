"""Options: the configuration of an instance."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from reconciler.importing.draft import Job
from reconciler.importing.incus.units import bytes_of, is_true
from reconciler.importing.limits import rlimit, sysctl
from reconciler.importing.report import Setting
from reconciler.importing.words import count, cpus, shown, size, whole

_ORDER_MOST = 1000
_TIME_SLICE = re.compile(r"([0-9]{1,9})ms/([0-9]{1,9})ms\Z", re.ASCII)
_RANGE = re.compile(r"[0-9]{1,5}([-,][0-9]{1,5})+\Z", re.ASCII)
_EVERY = {"@hourly": "1h", "@daily": "1d", "@midnight": "1d", "@weekly": "1w", "@monthly": "30d", "@yearly": "365d"}
_EVERY |= {"@annually": "365d"}
_CRON = {"hour": re.compile(r"[0-9]{1,2} \* \* \* \*\Z"), "day": re.compile(r"[0-9]{1,2} [0-9]{1,2} \* \* \*\Z")}

_NO_FIELD = "there is no field for it"
_INSIDE = "it is for programs inside: bring it along in the template"
_MOVING = "how a VE is moved is not decided here yet"

_LOST: Mapping[str, str] = {
    "cloud-init.": _INSIDE,
    "user.": "a note of Incus's user",
    "environment.": "an init that boots a system makes its own environment",
    "oci.": "an application: declare security.profile app",
    "nvidia.": "devices are declared by their paths on the host, below devices",
    "raw.": "a line for another program",
    "migration.": _MOVING,
    "cluster.": _MOVING,
    "limits.hugepages.": "huge pages are not given out",
    "linux.kernel_modules": "modules are the host's own affair: load them there",
    "security.syscalls.": "what a VE may ask of the kernel is the same for all, but for features",
    "security.bpffs.": _NO_FIELD,
    "security.idmap.": "every VE has a range of ids of its own",
    "snapshots.": _NO_FIELD,
    "systemd.": "an init that boots a system has no such environment",
    "boot.": _NO_FIELD,
    "limits.": _NO_FIELD,
    "security.": _NO_FIELD,
}
_NEEDLESS: Mapping[str, str] = {
    "volatile.": "what Incus keeps for itself",
    "image.": "where the files came from, which are not imported",
    "agent.": "for virtual machines",
    "smbios11.": "for virtual machines",
}


def convert(settings: Mapping[str, Setting], job: Job) -> None:
    """Set what the configuration says, by its keys without ``config.``."""
    for key, take in _EXACT.items():
        if (setting := settings.get(key)) is not None and setting.value != "":
            _try(job, setting, take)
    _memory(settings, job)
    for key, setting in settings.items():
        if key.startswith("limits.kernel."):
            _try(job, setting, lambda job, one: rlimit(job, one, one.key.removeprefix("config.limits.kernel.")))
        elif key.startswith("linux.sysctl."):
            _try(job, setting, lambda job, one: sysctl(job, one, one.key.removeprefix("config.linux.sysctl.")))
    _schedule(settings, job)
    for key, setting in settings.items():
        if not job.has_said(setting):
            _account(job, key, setting)


def _try(job: Job, setting: Setting, take: Callable[[Job, Setting], None]) -> None:
    try:
        take(job, setting)
    except ValueError as err:
        job.drop(setting, str(err))


def _cpu(job: Job, setting: Setting) -> None:
    if _RANGE.match(setting.value):
        low, _, high = setting.value.partition("-")
        single = "," not in setting.value and low == high
        job.put(setting, "cpu.cpus", low if single else setting.value)
        return
    number = whole(setting.value)
    if number:
        job.change(setting, "cpu.limit", number, "it may use the time of so many CPUs, on whichever they are")


def _allowance(job: Job, setting: Setting) -> None:
    if match := _TIME_SLICE.match(setting.value):
        if int(match[2]) == 0:
            raise ValueError("expected a time of a period")
        limit, before = max(int(match[1]) / int(match[2]), 0.01), job.draft.get("cpu.limit")
        job.put(setting, "cpu.limit", cpus(min(limit, before) if isinstance(before, int | float) else limit))
    elif setting.value.endswith("%"):
        share = min(max(whole(setting.value[:-1]), 1), 10_000)
        if share != 100:
            job.change(setting, "cpu.weight", share, "a share where CPU time is scarce, and no limit")
    else:
        raise ValueError("expected a percentage or a time such as 25ms/100ms")


def _nodes(job: Job, setting: Setting) -> None:
    if setting.value == "balanced":
        raise ValueError("vectl chooses no nodes by itself: write their numbers")
    job.put(setting, "cpu.nodes", setting.value)


def _disk_priority(job: Job, setting: Setting) -> None:
    weight = min(whole(setting.value), 10) * 20 or 2
    if weight != 100:
        job.change(setting, "io.weight", weight, "Incus's default of 5 is a weight of 100")


def _processes(job: Job, setting: Setting) -> None:
    job.put(setting, "processes", count(whole(setting.value)))


def _nesting(job: Job, setting: Setting) -> None:
    if is_true(setting.value):
        job.put(setting, "features.nesting", True)


def _protection(job: Job, setting: Setting) -> None:
    if is_true(setting.value):
        job.put(setting, "protect", True)


def _privileged(job: Job, setting: Setting) -> None:
    if is_true(setting.value):
        job.drop(setting, "it was privileged; every VE has a user namespace of its own")


def _priority(job: Job, setting: Setting) -> None:
    """Incus starts those without a priority first, then the highest number."""
    order = max(_ORDER_MOST - whole(setting.value), 1)
    why = f"lower ones start earlier; counted down from {_ORDER_MOST}, so that those without a priority start first"
    job.change(setting, "boot.order", order, why)


def _timeout(job: Job, setting: Setting) -> None:
    job.put(setting, "boot.stopTimeout", f"{whole(setting.value)}s")


def _restart(job: Job, setting: Setting) -> None:
    job.put(setting, "boot.restart", "on-failure" if is_true(setting.value) else "never")


def _ephemeral(job: Job, setting: Setting) -> None:
    if setting.value != "stop":
        raise ValueError("a VE is stopped with its host, or suspended by `power: suspended`")


_EXACT: Mapping[str, Callable[[Job, Setting], None]] = {
    "limits.cpu": _cpu,
    "limits.cpu.allowance": _allowance,
    "limits.cpu.nodes": _nodes,
    "limits.disk.priority": _disk_priority,
    "limits.processes": _processes,
    "security.nesting": _nesting,
    "security.protection.delete": _protection,
    "security.privileged": _privileged,
    "boot.autostart.priority": _priority,
    "boot.host_shutdown_timeout": _timeout,
    "boot.host_shutdown_action": _ephemeral,
    "boot.autorestart": _restart,
}
_DEFAULTS = {
    "boot.autostart",
    "limits.cpu",
    "limits.memory.enforce",
    "limits.cpu.allowance",
    "limits.disk.priority",
    "security.nesting",
    "security.privileged",
    "security.protection.delete",
    "boot.host_shutdown_action",
}


def _memory(settings: Mapping[str, Setting], job: Job) -> None:
    limit, swap = settings.get("limits.memory"), settings.get("limits.memory.swap")
    enforce = settings.get("limits.memory.enforce")
    try:
        if limit is not None and limit.value:
            _limit(job, limit, is_soft=enforce is not None and enforce.value == "soft")
            if enforce is not None:
                job.ignore(enforce, "it says what limits.memory means, which was followed")
        elif limit is None:
            here = Setting(file=job.draft.file, line=0, key="config.limits.memory")
            job.guess(here, "memory.limit", "unlimited", "no key limits the memory")
    except ValueError as err:
        assert limit is not None, "its value was read"
        job.drop(limit, str(err))
    if swap is None or not swap.value:
        return
    if swap.value.lower() in ("true", "false", "1", "0"):
        job.ignore(swap, "there is no swap beside the memory unless memory.swap says so")
        return
    _try(job, swap, lambda job, one: job.put(one, "memory.swap", size(bytes_of(one.value))))


def _limit(job: Job, setting: Setting, *, is_soft: bool) -> None:
    if setting.value.endswith("%"):
        raise ValueError("per cent of the host's memory: write the size as memory.limit")
    found = size(bytes_of(setting.value))
    if is_soft:
        job.draft.put("memory.limit", "unlimited", setting)
        job.put(setting, "memory.barrier", found)
    else:
        job.put(setting, "memory.limit", found)


def _schedule(settings: Mapping[str, Setting], job: Job) -> None:
    setting = settings.get("snapshots.schedule")
    if setting is None or not setting.value:
        return
    words = [word.strip() for word in setting.value.split(", ")]
    every = _EVERY.get(words[0]) or next(
        ("1h" if k == "hour" else "1d" for k, p in _CRON.items() if p.match(words[0])), ""
    )
    if len(words) != 1 or not every:
        job.drop(setting, "one interval is declared as snapshotSchedule, and no times of the day")
        return
    why = "an interval, and how many are kept instead of when they expire"
    job.change(setting, "snapshotSchedule", {"every": every, "keep": 7}, why)
    if (expiry := settings.get("snapshots.expiry")) is not None and expiry.value:
        job.drop(expiry, "how many are kept is declared, as snapshotSchedule.keep")


def _account(job: Job, key: str, setting: Setting) -> None:
    for start, why in _NEEDLESS.items():
        if key.startswith(start):
            job.ignore(setting, why)
            return
    if setting.value == "" or key in _DEFAULTS:
        job.ignore(setting, "it says nothing that is not so anyway")
        return
    found = next((why for start, why in _LOST.items() if key.startswith(start)), "no such key is known")
    job.drop(setting, f"{shown(key)}: {found}" if setting.secret else found)
