"""CPU time and disk traffic."""

from __future__ import annotations

from reconciler.importing import cpu_time
from reconciler.importing.draft import Job
from reconciler.importing.openvz.config import Config
from reconciler.importing.openvz.values import Unit, amount
from reconciler.importing.report import Setting
from reconciler.importing.words import count, decimal, size, whole
from reconciler.model.units import format_number_set, parse_number_set

KEYS = frozenset({"CPUUNITS", "CPULIMIT", "CPUS", "CPUMASK", "NODEMASK", "IOPRIO", "IOLIMIT", "IOPSLIMIT"})

IO_WEIGHTS = (320, 365, 410, 460, 500, 550, 600, 640)
"""By I/O priority. Source: libvzctl, lib/cgroup.c, on cgroup v2."""

DEFAULT_IO_WEIGHT = IO_WEIGHTS[4]

_WEIGHT_MOST = 10_000
_IO_LEAST = 64 << 10


def convert(config: Config, job: Job) -> None:
    """Set CPU time, the CPUs it is spent on, and disk traffic."""
    for key, take in (("CPUUNITS", _units), ("IOPRIO", _priority), ("IOLIMIT", _rate), ("IOPSLIMIT", _operations)):
        setting = config.get(key)
        if setting is None:
            continue
        try:
            take(job, setting)
        except ValueError as err:
            job.drop(setting, str(err))
    cpu_time.limit(job, ((config.get("CPULIMIT"), _percentage), (config.get("CPUS"), _number)), number="CPUS")
    for key, path in (("CPUMASK", "cpu.cpus"), ("NODEMASK", "cpu.nodes")):
        if (mask := config.get(key)) is not None:
            _mask(job, mask, path)


def _units(job: Job, setting: Setting) -> None:
    units = whole(setting.value.strip())
    weight = min(max(units // 10, 1), _WEIGHT_MOST)
    if weight * 10 == units:
        job.put(setting, "cpu.weight", weight)
    else:
        job.change(setting, "cpu.weight", weight, "a weight is a tenth of the units, from 1 to 10000")


def _percentage(text: str) -> float:
    if text.endswith("%"):
        raise ValueError("per cent of all CPUs of the host: write the number of CPUs as cpu.limit")
    if text.lower().endswith(("m", "mhz")):
        raise ValueError("a clock rate depends on the host: write the number of CPUs as cpu.limit")
    return decimal(text) / 100


def _number(text: str) -> float:
    return 0.0 if text.lower() in ("all", "unlimited") else float(whole(text))


def _mask(job: Job, setting: Setting, path: str) -> None:
    word = setting.value.strip().lower()
    if word == "all":
        return
    if word == "auto":
        job.drop(setting, "vectl chooses no CPUs by itself: write their numbers")
        return
    try:
        job.put(setting, path, format_number_set(parse_number_set(setting.value.replace(" ", ""))))
    except ValueError as err:
        job.drop(setting, str(err))


def _priority(job: Job, setting: Setting) -> None:
    priority = whole(setting.value.strip())
    if priority >= len(IO_WEIGHTS):
        raise ValueError(f"expected a priority from 0 to {len(IO_WEIGHTS) - 1}")
    job.put(setting, "io.weight", IO_WEIGHTS[priority])


def _rate(job: Job, setting: Setting) -> None:
    rate = amount(setting.value, Unit.BYTES)
    if not rate:
        return
    why = "it held for reading and writing together; now for each by itself, and on each disk"
    for path in ("io.read", "io.write"):
        job.draft.put(path, size(max(rate, _IO_LEAST)), setting)
    job.draft.remark(("io", "read"), f"{setting.key}: {why}")
    job.changed(setting, "io.read, io.write", why)


def _operations(job: Job, setting: Setting) -> None:
    operations = amount(setting.value, Unit.ITEMS)
    if not operations:
        return
    why = "it held for reading and writing together; now for each by itself, and on each disk"
    for path in ("io.readOps", "io.writeOps"):
        job.draft.put(path, count(operations), setting)
    job.draft.remark(("io", "readOps"), f"{setting.key}: {why}")
    job.changed(setting, "io.readOps, io.writeOps", why)
