"""Externals: the mounts of a VE that show something of the host, which a dump only names and a restore is given.

Only what we put there is one, told by the file system that it shows: nodes of the host's /dev, files of our lxcfs,
and what was grafted. Whatever else the VE's root has mounted is his own, and part of the image.

Source: criu.org, "External bind mounts".
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from reconciler.errors import KernelError, MissingToolError
from reconciler.host import lxcfs
from reconciler.host.site import Site
from reconciler.kernel import mount, pidfd
from reconciler.kernel.cgroup_file import read_optional
from reconciler.kernel.mount import Mount
from reconciler.kernel.syscalls import translated
from reconciler.model.decode import Fields
from reconciler.model.facts import Json

_DEV = "/dev"
_PROGRAM = "criu"


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """What is shown at a place. Shape: ``kind`` is ``device`` or ``lxcfs``; ``root`` its path in that."""

    kind: str
    root: str


def find(pids: Iterable[int]) -> Mapping[str, External]:
    """Find what of the host is mounted in the mount tables of processes, by where it is.

    Raises: KernelError.
    """
    with translated("look at", _DEV):
        dev = os.stat(_DEV).st_dev
    device = f"{os.major(dev)}:{os.minor(dev)}"
    found: dict[str, External] = {}
    for seen in _all_mounts(pids):
        if seen.device == device:
            found[seen.target] = External(kind="device", root=seen.root)
        elif seen.fstype == lxcfs.FSTYPE:
            found[seen.target] = External(kind="lxcfs", root=seen.root)
    return found


def _all_mounts(pids: Iterable[int]) -> Iterator[Mount]:
    """Read each mount table of these processes once; one that ends meanwhile has none to be saved."""
    seen = set()
    for pid in pids:
        with suppress(KernelError):
            table = pidfd.namespace_inode(pid, "mnt")
            mounts = [] if table in seen else mount.read_mounts(pid)
            seen.add(table)
            yield from mounts


def source(site: Site, it: External) -> str:
    """Give the path of the host that a restore is to show."""
    return f"{_DEV}{it.root}" if it.kind == "device" else site.lxcfs.source(it.root)


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
    return {target: {"kind": it.kind, "root": it.root} for target, it in sorted(found.items())}


def from_json(fields: Fields) -> Mapping[str, External]:
    """Take apart what `to_json` gave.

    Raises: StateError.
    """
    found = {}
    for target in fields.mapping("externals"):
        it = fields.fields("externals").fields(target)
        found[target] = External(kind=it.text("kind"), root=it.text("root"))
    return found
