"""Externals: the mounts of a VE that show something of the host, which a dump only names and a restore is given.

Only what we put there is one, told by the file system that it shows: nodes of the host's /dev, files of our lxcfs,
and what was grafted. Whatever else the VE's root has mounted is his own, and part of the image.

Source: criu.org, "External bind mounts".
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.errors import KernelError, MissingToolError, StateError
from reconciler.host import grafts, lxcfs
from reconciler.host.grafts import Graft
from reconciler.host.site import Site
from reconciler.kernel import mount, pidfd
from reconciler.kernel.cgroup_file import read_optional
from reconciler.kernel.image import QUOTA_DIRECTORY, ImageMount
from reconciler.kernel.mount import Mount
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.provided import Directory, Node
from reconciler.kernel.syscalls import translated
from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.model.identity import Uid

_DEV = "/dev"
_LOOP = "/loop"
_QUOTA = f"{_DEV}/{QUOTA_DIRECTORY}"
_PROGRAM = "criu"
_NODE_MODE = 0o660
_KINDS = {"devices": "node", "mounts": "directory"}
"""What is grafted by notes of which name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """What is shown at a place, and of that the path ``root``.

    Shape: ``kind`` is ``device`` for the host's /dev, ``lxcfs``, ``quota`` for a volume's image, or ``node`` or
    ``directory`` for a graft, ``about`` which there is what its note says.
    """

    kind: str
    root: str
    about: Mapping[str, str] = field(default_factory=dict)


def find(site: Site, uid: Uid, init: ProcessId, pids: Iterable[int]) -> Mapping[str, External]:
    """Find what of the host is mounted in the mount tables of a VE's processes, by where it is.

    Raises: KernelError, StateError.
    """
    with translated("look at", _DEV):
        dev = os.stat(_DEV).st_dev
    found = {}
    for seen in _all_mounts({init.pid, *pids}):
        kind = _kind_of(seen, f"{os.major(dev)}:{os.minor(dev)}")
        if kind is not None:
            found[seen.target] = External(kind=kind, root=seen.root)
    for name, kind in _KINDS.items():
        for target, it in grafts.in_place(init.pid, grafts.read(site, uid, name, init)).items():
            found[target] = External(kind=kind, root=it.root, about=it.about)
    return found


def _kind_of(seen: Mount, dev: str) -> str | None:
    if seen.device == dev:
        return "device"
    if seen.fstype == lxcfs.FSTYPE:
        return "lxcfs"
    return "quota" if seen.target == _QUOTA and seen.fstype == "ext4" else None


def _all_mounts(pids: Iterable[int]) -> Iterator[Mount]:
    """Read each mount table of these processes once; one that ends meanwhile has none to be saved."""
    seen = set()
    for pid in pids:
        with suppress(KernelError):
            table = pidfd.namespace_inode(pid, "mnt")
            mounts = [] if table in seen else mount.read_mounts(pid)
            seen.add(table)
            yield from mounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a restore is to show: paths of the host, and what is to be made first to have one, by the path it gets."""

    paths: Mapping[str, str]
    directories: Mapping[str, Directory]
    nodes: Mapping[str, Node]


def sources(site: Site, found: Mapping[str, External], *, scratch: str, disk: ImageMount | None) -> Sources:
    """Say by what path of the host each external is to be shown, by where that is.

    Shape: ``scratch`` is a directory in which what has to be made first is mounted.
    Raises: StateError, if it belongs to an image that is none any more.
    """
    paths: dict[str, str] = {}
    directories: dict[str, Directory] = {}
    nodes: dict[str, Node] = {}
    for number, (target, it) in enumerate(sorted(found.items())):
        place = f"{scratch}/{number}"
        if it.kind == "directory":
            directories[place] = Directory(source=it.about["source"], read_only=it.about["flags"] == "ro")
            paths[target] = place
        elif it.kind == "node":
            nodes[place] = _node(target, it)
            paths[target] = f"{place}{it.root}"
        else:
            paths[target] = _path_of(site, it, disk)
    return Sources(paths=paths, directories=directories, nodes=nodes)


def _node(target: str, it: External) -> Node:
    """Describe a device that was grafted; one that is not there any more gets a node all the same, as it had one."""
    kind, _, numbers = it.about["device"].partition(" ")
    major, _, minor = numbers.partition(":")
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode)
    except OSError:
        mode = _NODE_MODE
    return Node(name=it.root, block=kind == "b", major=int(major), minor=int(minor), mode=mode)


def _path_of(site: Site, it: External, disk: ImageMount | None) -> str:
    if it.kind == "lxcfs":
        return site.lxcfs.source(it.root)
    if it.kind == "quota":
        if disk is None:
            raise StateError("resume VE: its memory belongs to a volume in an image, and it has none")
        return f"{disk.attached_at}/{QUOTA_DIRECTORY}"
    # Behind which loop device an image is, is another one after each start.
    return disk.device if disk is not None and it.root.startswith(_LOOP) else f"{_DEV}{it.root}"


def note_anew(site: Site, uid: Uid, init: ProcessId, found: Mapping[str, External], *, program: int) -> None:
    """Write down what is grafted in a VE that was restored, for its new init.

    Shape: ``program`` is the number of what decides about its devices.
    Raises: KernelError.
    """
    mounts = {seen.target: seen for seen in mount.read_mounts(init.pid)}
    for name, kind in _KINDS.items():
        there = {
            target: Graft(
                number=mounts[target].mount_id,
                device=mounts[target].device,
                root=mounts[target].root,
                about={**it.about, "program": str(program)} if kind == "node" else it.about,
            )
            for target, it in found.items()
            if it.kind == kind and target in mounts
        }
        if there:
            grafts.write(site, uid, name, init, there)


def program(site: Site) -> str:
    """Give the path of criu.

    Raises: MissingToolError.
    """
    own = f"{site.instance.programs}/{_PROGRAM}"
    path = own if os.access(own, os.X_OK) else shutil.which(_PROGRAM)
    if path is None:
        raise MissingToolError("find criu: no such program; run `make criu`, or set VECTL_LIB")
    return path


def process_names(pids: Iterable[int]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Name processes by their pids on the host, and by those inside.

    Raises: KernelError.
    """
    outside, inside = {}, {}
    for pid in pids:
        fields = dict(line.split(":\t", 1) for line in (read_optional(f"/proc/{pid}/status") or "").splitlines())
        if "NSpid" in fields:
            outside[str(pid)] = inside[fields["NSpid"].split()[-1]] = fields["Name"]
    return outside, inside


def to_json(found: Mapping[str, External]) -> dict[str, Json]:
    """Give the JSON form that is kept beside an image."""
    return {target: {"kind": it.kind, "root": it.root, "about": dict(it.about)} for target, it in sorted(found.items())}


def from_json(fields: Fields) -> Mapping[str, External]:
    """Take apart what `to_json` gave.

    Raises: StateError.
    """
    entries = {target: fields.fields(target) for target in fields.names()}
    return {
        target: External(kind=it.text("kind"), root=it.text("root"), about=it.strings("about"))
        for target, it in entries.items()
    }
