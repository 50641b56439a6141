"""Storage: the root file system, mount points and devices."""

from __future__ import annotations

import re

from reconciler.importing.draft import Job
from reconciler.importing.proxmox.config import Config, options
from reconciler.importing.report import Setting
from reconciler.importing.words import shown, size
from reconciler.model.facts import Json

_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?([KMGT]?)\Z", re.ASCII)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HARMLESS = frozenset({"volume", "size", "mp", "ro", "path", "deny-write", "backup", "replicate", "shared"})
_LOST = {
    "acl": "access lists are always there",
    "quota": "quotas of users and groups are declared below disk.users and disk.groups",
    "mountoptions": "there is no field for it",
    "idmap": "every VE has a range of ids of its own",
    "keepattrs": "there is no field for it",
    "mode": "a device file in a VE has the mode of a device of root",
    "uid": "a device file in a VE is its root's",
    "gid": "a device file in a VE is its root's",
}


def convert(config: Config, job: Job) -> None:
    """Set the size of the disk, mounts and devices."""
    root = config.get("rootfs")
    if root is not None:
        shifted = config.get("unprivileged")
        _root(job, root, is_shifted=shifted is not None and shifted.value == "1")
    for _, setting in config.numbered("mp"):
        _mount(job, setting)
    for _, setting in config.numbered("dev"):
        _device(job, setting)
    for _, setting in config.numbered("unused"):
        job.drop(setting, "a volume that nothing used: bring its files along, if they are needed")


def bytes_of(text: str) -> int:
    """Read a size such as ``8G``. Units: bytes. Raises: ValueError."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("expected a size such as 8G")
    factor, rest = _FACTORS[match[3]], match[2] or "0"
    part: int = int(rest) * factor // int("1".ljust(len(rest) + 1, "0"))
    return int(match[1]) * factor + part


def _root(job: Job, setting: Setting, *, is_shifted: bool) -> None:
    said = options(setting.value, "volume")
    if "size" in said:
        try:
            job.put(setting, "disk.size", size(bytes_of(said["size"])))
        except ValueError as err:
            job.drop(setting, str(err))
    if said.get("ro") == "1":
        job.drop(setting, "a root file system that is only read is not offered")
    base = ", where the first with --id-base 100000" if is_shifted else ""
    volume = shown(said.get("volume", ""))
    job.drop(setting, f"the files of {volume} come by `vectl import --rootfs` of `pct mount` or of a backup{base}")
    _tell_lost(job, setting, said)


def _mount(job: Job, setting: Setting) -> None:
    said = options(setting.value, "volume")
    source, target = said.get("volume", ""), said.get("mp", "")
    if not source.startswith("/") or source.startswith("/dev/") or not target:
        why = "a volume of a storage of Proxmox: mount it on the host, and declare that directory below mounts"
        job.drop(setting, f"{shown(target or source)}: {why}")
        return
    entry: dict[str, Json] = {"source": source, "target": target}
    if said.get("ro") == "1":
        entry["readOnly"] = True
    job.draft.append("mounts", entry, setting)
    job.mapped(setting, "mounts")
    _tell_lost(job, setting, said)


def _device(job: Job, setting: Setting) -> None:
    said = options(setting.value, "path")
    path = said.get("path", "")
    if path == "/dev/fuse":
        job.put(setting, "features.fuse", True)
        return
    job.draft.append("devices", {"path": path, "access": "r" if said.get("deny-write") == "1" else "rw"}, setting)
    job.mapped(setting, "devices")
    _tell_lost(job, setting, said)


def _tell_lost(job: Job, setting: Setting, said: dict[str, str]) -> None:
    for key, value in said.items():
        if key in _HARMLESS or (key == "acl" and value == "1") or (key == "quota" and value == "0"):
            continue
        job.drop(setting, f"{shown(key)}={shown(value)}: {_LOST.get(key, 'there is no field for it')}")
