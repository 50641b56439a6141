"""CPU time and memory."""

from __future__ import annotations

from reconciler.importing import cpu_time
from reconciler.importing.draft import Job
from reconciler.importing.proxmox.config import Config
from reconciler.importing.report import Setting
from reconciler.importing.words import decimal, size, whole

_WEIGHT_MOST = 10_000
_DEFAULT_MIB = 512


def convert(config: Config, job: Job) -> None:
    """Set CPU time, memory and swap."""
    if (units := config.get("cpuunits")) is not None:
        try:
            _units(job, units)
        except ValueError as err:
            job.drop(units, str(err))
    cpu_time.limit(job, ((config.get(key), decimal) for key in ("cpulimit", "cores")), number="cores")
    for key, path in (("memory", "memory.limit"), ("swap", "memory.swap")):
        setting = config.get(key)
        if setting is None:
            here = Setting(file=config.file, line=0, key=key)
            job.guess(here, path, size(_DEFAULT_MIB << 20), "Proxmox's default, where the configuration says nothing")
            continue
        try:
            job.put(setting, path, size(whole(setting.value, most=2**40) << 20))
        except ValueError as err:
            job.drop(setting, str(err))


def _units(job: Job, setting: Setting) -> None:
    units = whole(setting.value)
    weight = min(max(units, 1), _WEIGHT_MOST)
    if weight == units:
        job.put(setting, "cpu.weight", weight)
    else:
        job.change(setting, "cpu.weight", weight, "a weight is from 1 to 10000")
