"""Memory: the three ways in which OpenVZ limits it, and the beancounters that no other field stands for."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.importing.draft import Job
from reconciler.importing.openvz.config import Config
from reconciler.importing.openvz.values import Pair, Unit, amount, pair
from reconciler.importing.report import Setting
from reconciler.importing.words import count, decimal, size, whole
from reconciler.model.facts import Json

_SIZES: Mapping[str, tuple[str, Unit]] = {
    **{name.upper(): (name, Unit.BYTES) for name in ("kmemsize", "tcpsndbuf", "tcprcvbuf", "othersockbuf")},
    **{name.upper(): (name, Unit.BYTES) for name in ("dgramrcvbuf", "dcachesize")},
    "DCACHE": ("dcachesize", Unit.BYTES),
    **{name.upper(): (name, Unit.PAGES) for name in ("lockedpages", "privvmpages", "shmpages", "oomguarpages")},
}
_COUNTS: Mapping[str, tuple[str, Unit]] = {
    name.upper(): (name, Unit.ITEMS)
    for name in ("numtcpsock", "numothersock", "numfile", "numflock", "numpty", "numsiginfo", "numiptent")
} | {"IPTENTRIES": ("numiptent", Unit.ITEMS)}
_COUNTERS = {**_SIZES, **_COUNTS}

_OF_THE_PAST = frozenset(
    {"NUMTCPSOCK", "NUMOTHERSOCK", "TCPSNDBUF", "TCPRCVBUF", "OTHERSOCKBUF", "DGRAMRCVBUF", "OOMGUARPAGES"}
    | {"DCACHESIZE", "DCACHE"}
)
"""What Virtuozzo 7 takes no notice of."""

_LEAST = 1 << 20

KEYS = frozenset({*_COUNTERS, "PHYSPAGES", "SWAPPAGES", "VMGUARPAGES", "VM_OVERCOMMIT", "NUMPROC"}) | frozenset(
    {"MEMGUARANTEE", "MEMGUARANTEE_BYTES", "SLMMODE", "SLMMEMORYLIMIT"}
)


def convert(config: Config, job: Job, *, is_vz7: bool) -> None:
    """Set memory, swap, processes and beancounters."""
    pairs = _pairs(config, job)
    limit = _limit(config, job, pairs)
    _swap(job, pairs, config)
    _guarantee(config, job, pairs, limit)
    _processes(job, pairs, config)
    for key, found in pairs.items():
        if key in _COUNTERS and (setting := config.get(key)) is not None:
            if is_vz7 and key in _OF_THE_PAST:
                job.ignore(setting, "Virtuozzo 7 takes no notice of it")
            else:
                _counter(job, setting, _COUNTERS[key][0], found)
    _overcommit(config, job, pairs, limit)


def _pairs(config: Config, job: Job) -> dict[str, Pair]:
    units = {key: unit for key, (_, unit) in _COUNTERS.items()} | {"NUMPROC": Unit.ITEMS}
    units |= {"PHYSPAGES": Unit.PAGES, "SWAPPAGES": Unit.PAGES, "VMGUARPAGES": Unit.PAGES, "SLMMEMORYLIMIT": Unit.BYTES}
    found: dict[str, Pair] = {}
    for key, unit in units.items():
        if (setting := config.get(key)) is None:
            continue
        try:
            found[key] = pair(setting.value, unit)
        except ValueError as err:
            job.drop(setting, str(err))
    return found


def _limit(config: Config, job: Job, pairs: Mapping[str, Pair]) -> int | None:
    """Set the memory limit by VSwap, SLM, or else the beancounters; give it. Units: bytes."""
    physical, slm = pairs.get("PHYSPAGES"), pairs.get("SLMMEMORYLIMIT")
    mode = config.get("SLMMODE")
    if mode is not None:
        job.ignore(mode, "it chooses how memory is limited, which was followed")
    if physical is not None and physical.limit is not None:
        if (unused := config.get("SLMMEMORYLIMIT")) is not None:
            job.ignore(unused, "PHYSPAGES limits the memory")
        return _set_limit(job, config, "PHYSPAGES", physical.limit, "")
    if (ignored := config.get("PHYSPAGES")) is not None and physical is not None:
        job.ignore(ignored, "without a limit it only counts")
    wants_slm = mode is None or mode.value.strip().lower() != "ubc"
    if slm is not None and slm.limit is not None and wants_slm:
        return _set_limit(job, config, "SLMMEMORYLIMIT", slm.limit, "")
    if (unused := config.get("SLMMEMORYLIMIT")) is not None and not job.has_said(unused):
        job.ignore(unused, "the beancounters limit the memory")
    return _by_beancounters(job, config, pairs)


def _by_beancounters(job: Job, config: Config, pairs: Mapping[str, Pair]) -> int | None:
    private, setting = pairs.get("PRIVVMPAGES"), config.get("PRIVVMPAGES")
    if private is None or setting is None:
        here = Setting(file=config.file, line=0, key="PHYSPAGES")
        job.guess(here, "memory.limit", "unlimited", "no key of the configuration limits the memory")
        return None
    why = "what it may ask for becomes what it may use: the kernel limits no other memory of a VE"
    if private.limit is None:
        job.put(setting, "memory.limit", "unlimited")
        return None
    return _set_limit(job, config, "PRIVVMPAGES", private.limit, why)


def _set_limit(job: Job, config: Config, key: str, limit: int, why: str) -> int:
    setting = config.get(key)
    assert setting is not None, "its value was read"
    if limit < _LEAST:
        limit, why = _LEAST, "no VE starts in less than 1Mi"
    if why:
        job.change(setting, "memory.limit", size(limit), why)
    else:
        job.put(setting, "memory.limit", size(limit))
    return limit


def _swap(job: Job, pairs: Mapping[str, Pair], config: Config) -> None:
    found, setting = pairs.get("SWAPPAGES"), config.get("SWAPPAGES")
    if found is not None and setting is not None:
        job.put(setting, "memory.swap", size(found.limit))


def _guarantee(config: Config, job: Job, pairs: Mapping[str, Pair], limit: int | None) -> None:
    """Set the guarantee: in bytes, in per cent, or the barrier of vmguarpages; the first that is there counts."""
    found = [(key, bytes_) for key, bytes_ in _guarantees(config, job, pairs, limit) if bytes_ is not None]
    for key, _ in found[1:]:
        setting = config.get(key)
        assert setting is not None, "its value was read"
        job.ignore(setting, f"{found[0][0]} says it")
    for key, wanted in found[:1]:
        setting = config.get(key)
        assert setting is not None, "its value was read"
        if limit is not None and wanted > limit:
            job.change(setting, "memory.guarantee", size(limit), "a guarantee goes no further than the limit")
        elif wanted:
            job.put(setting, "memory.guarantee", size(wanted))


def _guarantees(config: Config, job: Job, pairs: Mapping[str, Pair], limit: int | None) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    for key in ("MEMGUARANTEE_BYTES", "MEMGUARANTEE"):
        setting = config.get(key)
        if setting is None or setting.value.strip().lower() == "auto":
            continue  # of a container that is none
        try:
            found.append((key, _asked(setting, limit)))
        except ValueError as err:
            job.drop(setting, str(err))
    barrier = pairs.get("VMGUARPAGES")
    if barrier is not None:
        found.append(("VMGUARPAGES", barrier.barrier))
        if barrier.barrier is None and (setting := config.get("VMGUARPAGES")) is not None:
            job.drop(setting, "nobody can be guaranteed memory without end")
    return found


def _asked(setting: Setting, limit: int | None) -> int | None:
    if setting.key == "MEMGUARANTEE_BYTES":
        return amount(setting.value, Unit.BYTES)
    share = whole(setting.value.strip().removesuffix("%"))
    if limit is None or share > 100:
        raise ValueError("expected at most 100 per cent of a memory limit")
    return limit * share // 100


def _processes(job: Job, pairs: Mapping[str, Pair], config: Config) -> None:
    found, setting = pairs.get("NUMPROC"), config.get("NUMPROC")
    if found is None or setting is None:
        return
    if found.limit == 0:
        job.drop(setting, "no VE runs without a process")
    else:
        job.put(setting, "processes", count(found.limit))


def _counter(job: Job, setting: Setting, name: str, found: Pair) -> None:
    """Set a beancounter; barriers that say nothing are left out, as are limits that vectl cannot take."""
    is_count = _COUNTERS[setting.key][1] is Unit.ITEMS
    write = count if is_count else size
    values: dict[str, Json] = {}
    if found.limit is not None and not (is_count and found.limit == 0):
        values["limit"] = write(found.limit)
    barrier, why = found.barrier, ""
    if barrier is not None and found.limit is not None and barrier > found.limit:
        barrier, why = found.limit, "a barrier goes no further than the limit"
    if barrier:
        values["barrier"] = write(barrier)
    if is_count and found.limit == 0:
        job.drop(setting, "a limit of none at all is not offered")
    elif values and why:
        job.change(setting, f"beancounters.{name}", dict(sorted(values.items())), why)
    elif values:
        _put_counter(job, setting, name, dict(sorted(values.items())))


def _put_counter(job: Job, setting: Setting, name: str, values: dict[str, Json]) -> None:
    job.draft.put(f"beancounters.{name}", values, setting)
    if job.has_said(setting):  # privvmpages, which limits the memory as well
        return
    job.mapped(setting, f"beancounters.{name}")


def _overcommit(config: Config, job: Job, pairs: Mapping[str, Pair], limit: int | None) -> None:
    setting = config.get("VM_OVERCOMMIT")
    if setting is None:
        return
    try:
        factor = decimal(setting.value.strip())
    except ValueError as err:
        job.drop(setting, str(err))
        return
    if "PRIVVMPAGES" in pairs or not factor or limit is None:
        job.ignore(setting, "it says nothing beside what else is there")
        return
    swap = pairs.get("SWAPPAGES")
    room = int((limit + ((swap.limit if swap else 0) or 0)) * factor)
    why = "what may be asked for is watched, and not limited"
    job.change(setting, "beancounters.privvmpages.limit", size(room), why)
