"""Checks within one VE: of its spec as it was written, and as merged with its profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.manifests import words
from reconciler.manifests.document import Complaint, Document, complain
from reconciler.manifests.kinds.ve import ProfileBody, VeBody
from reconciler.manifests.kinds.volume import DiskQuota
from reconciler.manifests.problem import Path, did_you_mean
from reconciler.model import units
from reconciler.model.compute import CPU_PERIOD_US, CPU_PROMISED_MOST_US
from reconciler.model.quota import QUOTA_UNIT

_MEMORY_MIN = 1 << 20
"""No init starts in less; a smaller number is a size without its unit."""

_IMAGE_MIN = 16 << 20
"""A smaller file system has no room for its journal and its tables."""

_WITHOUT_UNIT_MAX = 64 << 10
"""A smaller number of bytes was meant to be one of megabytes."""


_SCHEDULE_MIN_S = 1.0
"""What the names of two snapshots differ by. Units: seconds."""


_KEPT = ("/proc", "/sys", "/dev", "/run")
"""What is mounted at every start of a VE."""


_OF_EVERY_VE = frozenset(
    {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "pts", "shm", "mqueue", "fd"}
    | {"stdin", "stdout", "stderr", "core"}
)
"""What is in the /dev of a VE."""


def keyed_lists(document: Document, body: ProfileBody) -> Iterator[Complaint]:
    """Each entry of a keyed list has a key of its own."""
    for path, keys in _keys(body):
        seen: dict[str, int] = {}
        for position, key in enumerate(keys):
            if (first := seen.setdefault(key, position)) != position:
                message = f"expected each entry once, {key!r} is entry {first} too"
                yield complain(document, ("spec", *path, position), message, "merge the two, or rename one")


def _keys(body: ProfileBody) -> Iterator[tuple[Path, list[str]]]:
    yield ("interfaces",), [interface.name for interface in body.interfaces]
    yield ("mounts",), [mount.target.rstrip("/") for mount in body.mounts]
    yield ("devices",), [device.path or device.nic or "" for device in body.devices]
    yield ("disk", "users"), [str(quota.id) for quota in body.disk.users]
    yield ("disk", "groups"), [str(quota.id) for quota in body.disk.groups]
    yield ("snapshots",), [snapshot.name for snapshot in body.snapshots]


def limits(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Barriers and guarantees are within their limits, and memory is enough to start in."""
    memory = body.memory
    if memory.limit is not None and memory.limit < _MEMORY_MIN:
        message = f"expected at least {units.format_size(_MEMORY_MIN)}, got {memory.limit} bytes"
        hint = f"did you mean '{memory.limit}Mi'?" if memory.limit < _WITHOUT_UNIT_MAX else ""
        yield complain(document, ("spec", "memory", "limit"), message, hint)
    for path, low, high_name, high in _ordered(body):
        if low is not None and high is not None and low > high:
            yield complain(document, ("spec", *path), f"expected at most {high_name}, got more")
    if body.cpu.limit is not None and body.cpu.guarantee > body.cpu.limit:
        yield complain(document, ("spec", "cpu", "guarantee"), "expected at most cpu.limit, got more")
    if body.cpu.cpus is not None and body.cpu.guarantee > len(body.cpu.cpus) * CPU_PROMISED_MOST_US:
        message = f"expected at most {len(body.cpu.cpus) * CPU_PROMISED_MOST_US / CPU_PERIOD_US:g}, got more"
        hint = "nine tenths of each CPU that it may run on can be guaranteed"
        yield complain(document, ("spec", "cpu", "guarantee"), message, hint)


def _ordered(body: VeBody) -> Iterator[tuple[Path, int | None, str, int | None]]:
    memory = body.memory
    yield ("memory", "barrier"), memory.barrier, "memory.limit", memory.limit
    yield ("memory", "guarantee"), memory.guarantee, "memory.limit", memory.limit
    for list_name, quotas in (("users", body.disk.users), ("groups", body.disk.groups)):
        for quota in quotas:
            path = ("disk", list_name, str(quota.id))
            yield (*path, "soft"), quota.soft, "hard", quota.hard
            yield (*path, "softFiles"), quota.soft_files, "hardFiles", quota.hard_files
    for name, counter in body.beancounters if body.beancounters.model_fields_set else ():
        yield ("beancounters", name, "barrier"), counter.barrier, "limit", counter.limit


def quotas(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Quotas inside have a disk of some size, limit something, and agree about what the kernel keeps once for all."""
    disk = body.disk
    if (disk.users or disk.groups or disk.inodes) and (disk.size is None or disk.size < _IMAGE_MIN):
        message = f"expected at least {units.format_size(_IMAGE_MIN)}, and not unlimited, with inodes, users or groups"
        yield complain(document, ("spec", "disk", "size"), message, "they take a file system of the VE's own")
    for name, entries in (("users", disk.users), ("groups", disk.groups)):
        yield from _of_one_kind(document, name, entries)


def _of_one_kind(document: Document, name: str, entries: Sequence[DiskQuota]) -> Iterator[Complaint]:
    grace: float | None = None
    for entry in entries:
        path = ("spec", "disk", name, str(entry.id))
        for field, size in (("soft", entry.soft), ("hard", entry.hard)):
            if size is not None and size < QUOTA_UNIT:
                yield complain(document, (*path, field), f"expected at least 1Ki, or unlimited, got {size} bytes")
        if "grace" not in entry.model_fields_set:
            continue
        grace = entry.grace if grace is None else grace
        if entry.grace != grace or entry.grace < 1:
            message = f"expected the same time for all {name}, at least 1s, got {entry.grace:g}s beside {grace:g}s"
            yield complain(document, (*path, "grace"), message, f"the kernel keeps one grace for all {name} of a VE")


def confinement(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Command, environment and user are set for profile app, and only there."""
    security = body.security
    if security.profile == "app" and not security.command:
        yield complain(document, ("spec", "security", "command"), "missing field", "profile app needs a command")
    if security.profile == "system":
        for name in sorted(security.model_fields_set - {"profile"}):
            yield complain(document, ("spec", "security", name), "expected only with profile: app")


def mounts(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Each mount has a source, here or in a profile, and a target of its own where a directory of a VE can be."""
    targets = {mount.target.rstrip("/"): mount.target for mount in body.mounts}
    for target, written in targets.items():
        where: Path = ("spec", "mounts", written, "target")
        kept = next((kept for kept in _KEPT if _is_at_or_below(target, kept)), None)
        if target == "" or kept is not None:
            yield complain(document, where, f"expected a directory outside of {kept or '/'}, got {written!r}")
        around = next(
            (other for other in targets if other and other != target and _is_at_or_below(target, other)), None
        )
        if around is not None:
            yield complain(document, where, f"expected no mount below another one, got {written!r} below {around!r}")
    for mount in body.mounts:
        if mount.source is None:
            yield complain(document, ("spec", "mounts", mount.target, "source"), "missing field", "add 'source: ...'")


def devices(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Device files are below /dev and none of those that every VE has; an interface has a name of its own inside."""
    names = {interface.name for interface in body.interfaces}
    for device in body.devices:
        where: Path = ("spec", "devices", device.path or device.nic or "")
        if device.path is not None and not _is_below_dev(device.path):
            message = f"expected a device file below /dev that VEs do not have anyway, got {device.path!r}"
            yield complain(document, (*where, "path"), message)
        if device.nic in names:
            message = f"expected a name that no interface of the VE has, got {device.nic!r}"
            yield complain(document, (*where, "nic"), message)


def _is_below_dev(path: str) -> bool:
    first = path.removeprefix("/dev/").split("/")[0]
    return path.startswith("/dev/") and not path.endswith("/") and first not in _OF_EVERY_VE


def _is_at_or_below(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}/")


def kept(document: Document, body: VeBody) -> Iterator[Complaint]:
    """What is carried over a new root file system is a part of the old one."""
    for position, path in enumerate(body.keep):
        if path == "/" or any(_is_at_or_below(path.rstrip("/"), one) for one in _KEPT):
            message = f"expected a directory that is the VE's own and not its whole, got {path!r}"
            yield complain(document, ("spec", "keep", position), message, "name directories such as /home")


def schedule(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Snapshots come at intervals in which something can happen between two of them."""
    found = body.snapshot_schedule
    if found is not None and found.every < _SCHEDULE_MIN_S:
        message = (
            f"expected at least {units.format_duration(_SCHEDULE_MIN_S)}, got {units.format_duration(found.every)}"
        )
        yield complain(document, ("spec", "snapshotSchedule", "every"), message)


def drift_fields(document: Document, body: ProfileBody) -> Iterator[Complaint]:
    """Drift policies name fields that there are."""
    known = words.field_names(VeBody)
    for path in body.drift.fields:
        first = path.split(".", 1)[0].split("[", 1)[0]
        if first not in known:
            where = ("spec", "drift", "fields", path)
            yield complain(document, where, f"expected a field of spec, got {first!r}", did_you_mean(first, known))


def written(document: Document, body: ProfileBody) -> Iterator[Complaint]:
    """Run the checks of what one document says, before it is merged with others."""
    for check in (keyed_lists, drift_fields):
        yield from check(document, body)


def merged(document: Document, body: VeBody) -> Iterator[Complaint]:
    """Run the checks of what a VE and its profiles say together."""
    for check in (limits, quotas, confinement, mounts, devices, kept, schedule):
        yield from check(document, body)
