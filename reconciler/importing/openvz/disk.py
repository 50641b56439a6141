"""Disks: the first level of quotas, disk images, mounts, and where the files of a VE are."""

from __future__ import annotations

from reconciler.importing.draft import Job
from reconciler.importing.openvz.config import Config
from reconciler.importing.openvz.values import Pair, Unit, pair, truth
from reconciler.importing.report import Setting
from reconciler.importing.words import count, shown, size, whole

KEYS = frozenset({"DISK_QUOTA", "DISKSPACE", "DISKINODES", "QUOTATIME", "QUOTAUGIDLIMIT", "VE_LAYOUT"}) | frozenset(
    {"DISK", "BINDMOUNT", "VE_PRIVATE"}
)

_LEAST_IMAGE = 16 << 20
_WORDS_MAX = 64
_FLAGS = frozenset({"nosuid", "noexec", "nodev"})


def convert(config: Config, job: Job) -> None:
    """Set the size of the disk, the number of files and the mounts."""
    layout = config.settings.get("VE_LAYOUT")
    is_image = layout is not None and layout.value.strip().lower().startswith("ploop")
    if layout is not None:
        job.ignore(layout, "vectl has volumes of its own")
    quota = config.get("DISK_QUOTA")
    is_off = quota is not None and truth(quota.value) is False and not is_image
    if quota is not None and is_off:
        job.put(quota, "disk.size", "unlimited")
    _images(config, job)
    for key, unit in (("DISKSPACE", Unit.KIB), ("DISKINODES", Unit.ITEMS)):
        setting = config.get(key)
        if setting is None:
            continue
        if is_off:
            job.ignore(setting, "DISK_QUOTA is off")
            continue
        try:
            _level_one(job, setting, pair(setting.value, unit), is_image=is_image)
        except ValueError as err:
            job.drop(setting, str(err))
    _rest(config, job)


def _level_one(job: Job, setting: Setting, found: Pair, *, is_image: bool) -> None:
    if setting.key == "DISKINODES":
        _inodes(job, setting, found, is_image=is_image)
        return
    limit = found.barrier if is_image else found.limit
    if limit == 0:
        job.drop(setting, "a disk of no size at all")
    elif is_image or found.barrier in (None, limit):
        job.put(setting, "disk.size", size(limit))
    else:
        why = "the hard limit; there is no soft one for the whole of a VE"
        job.change(setting, "disk.size", size(limit), why)


def _inodes(job: Job, setting: Setting, found: Pair, *, is_image: bool) -> None:
    if is_image:
        job.ignore(setting, "a ploop image was made with so many; nothing was limited to them")
    elif found.limit:
        why = "the hard limit; it takes a file system of the VE's own, all of its size at once, and quota formats"
        job.change(setting, "disk.inodes", count(found.limit), why)


def _images(config: Config, job: Job) -> None:
    """Set the size of the root disk of Virtuozzo 7; others are told, as a VE has one disk."""
    setting = config.get("DISK")
    if setting is None:
        return
    for number, text in enumerate(setting.value.split(";")[:_WORDS_MAX]):
        parts = dict(_assignment(word) for word in text.split(",")[:_WORDS_MAX] if word.strip())
        if not parts:
            continue
        if parts.get("mnt", "/" if number == 0 else "") == "/" and "device" not in parts:
            _root_image(job, setting, parts.get("size", ""))
        else:
            where = shown(parts.get("mnt") or parts.get("device") or parts.get("uuid") or text)
            job.drop(setting, f"a VE has one disk: bring the files of {where} along, or declare a mount")


def _root_image(job: Job, setting: Setting, text: str) -> None:
    try:
        kib = whole(text)
    except ValueError:
        job.drop(setting, "expected size=KiB of the root disk")
        return
    job.put(setting, "disk.size", size(max(kib << 10, _LEAST_IMAGE)))


def _assignment(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.strip(), value.strip()


def _rest(config: Config, job: Job) -> None:
    if (grace := config.get("QUOTATIME")) is not None:
        job.ignore(grace, "it is the time of grace of the soft limit, which there is not")
    if (level_two := config.get("QUOTAUGIDLIMIT")) is not None and level_two.value.strip() not in ("", "0"):
        why = (
            "quotas of users and groups are declared one by one below disk.users and disk.groups: "
            "`vzctl exec CTID repquota -aug` prints them"
        )
        job.drop(level_two, why)
    if (private := config.get("VE_PRIVATE")) is not None:
        why = "the files in it are not imported with this: `vectl import --rootfs` of it does so, once it is stopped"
        job.drop(private, why)
    if (bind := config.get("BINDMOUNT")) is not None:
        for word in bind.value.split()[:_WORDS_MAX]:
            _mount(job, bind, word)


def _mount(job: Job, setting: Setting, word: str) -> None:
    path, *flags = word.split(",")
    source, sign, target = path.partition(":")
    if not sign or not source:
        job.drop(setting, f"{shown(word)}: expected SOURCE:TARGET")
        return
    made = job.draft.append("mounts", {"source": source, "target": target}, setting)
    lost = sorted(_FLAGS & set(flags)) + sorted({shown(flag) for flag in flags} - _FLAGS)
    if lost:
        why = f"{', '.join(lost)} of {shown(target)} are lost"
        job.draft.remark(made, f"{setting.key}: {why}")
        job.changed(setting, "mounts", why)
    else:
        job.mapped(setting, "mounts")
