"""The cgroups that a VE has made in its own part, with their owners: criu knows only those with processes in them.

Source: cgroup-v2.rst, "Delegation"; criu, criu/cgroup.c.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.kernel import cgroup_file
from reconciler.kernel.syscalls import file_errors

_CONTROLLERS = "cgroup.subtree_control"
_TYPE = "cgroup.type"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupOwners:
    """A cgroup below that of a VE.

    Shape: ``files`` are those that do not belong to the host's root, by name; ``controllers`` those that it hands
    down. Units: ids of the host, of user and group.
    """

    owner: tuple[int, int]
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    controllers: tuple[str, ...] = ()
    threaded: bool = False


def read(directory: str) -> Mapping[str, CgroupOwners]:
    """Read a cgroup and what is below it, by the path below it; the cgroup itself is the empty one.

    Raises: KernelError.
    """
    return {found.removeprefix(directory): _read(found) for found in cgroup_file.directories(directory)}


def _read(directory: str) -> CgroupOwners:
    with file_errors("look at", directory), os.scandir(directory) as entries:
        info = os.stat(directory)
        owners = {entry.name: _owner(entry.stat()) for entry in entries if entry.is_file()}
    return CgroupOwners(
        owner=_owner(info),
        files={name: owner for name, owner in sorted(owners.items()) if owner != (0, 0)},
        controllers=tuple((cgroup_file.read_optional(f"{directory}/{_CONTROLLERS}") or "").split()),
        threaded=(cgroup_file.read_optional(f"{directory}/{_TYPE}") or "").strip() == "threaded",
    )


def _owner(info: os.stat_result) -> tuple[int, int]:
    return info.st_uid, info.st_gid


def make(directory: str, tree: Mapping[str, CgroupOwners]) -> None:
    """Make the cgroups below a directory as they were read; what is there stays.

    Raises: KernelError.
    """
    for below, cgroup in sorted(tree.items()):
        path = f"{directory}{below}"
        cgroup_file.make_directory(path)
        if cgroup.threaded:
            cgroup_file.write(f"{path}/{_TYPE}", "threaded")
        if cgroup.controllers:
            cgroup_file.write(f"{path}/{_CONTROLLERS}", " ".join(f"+{name}" for name in cgroup.controllers))
        with file_errors("give", path):
            os.chown(path, *cgroup.owner, follow_symlinks=False)
            for name, owner in cgroup.files.items():
                if os.path.exists(f"{path}/{name}"):
                    os.chown(f"{path}/{name}", *owner, follow_symlinks=False)
