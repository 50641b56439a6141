"""What of the host a VE is shown again in its restore that has no path of its own: made, and mounted for criu to find.

To be called by a process with one thread that has entered a private mount namespace.

Light on imports: the keeper holds this module.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.kernel import detached, mount, userns
from reconciler.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from reconciler.kernel.syscalls import AT_FDCWD, file_errors

_SCRATCH_BYTES = 1 << 16
_NODE_BYTES = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory of the host, shown with the VE's owners."""

    source: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node of the VE's own. Shape: ``name`` with a slash before it; ``mode`` its permissions."""

    name: str
    block: bool
    major: int
    minor: int
    mode: int


def provide(
    scratch: str, directories: Mapping[str, Directory], nodes: Mapping[str, Node], *, id_base: int, id_count: int
) -> None:
    """Mount directories and file systems with nodes at places in a scratch directory.

    Raises: KernelError, also if a directory is not there any more.
    """
    if not directories and not nodes:
        return
    with file_errors("make", scratch):
        os.makedirs(scratch, mode=0o700, exist_ok=True)
    mount.mount_tmpfs(scratch, size=_SCRATCH_BYTES)
    id_map = userns.open_user_namespace(id_base, id_count)
    try:
        for place, directory in directories.items():
            _attach(_open_directory(directory, id_map), place)
    finally:
        os.close(id_map)
    for place, node in nodes.items():
        _attach(detached.make_tmpfs(size=_NODE_BYTES), place)
        _make_node(f"{place}{node.name}", node, owner=id_base)


def _open_directory(directory: Directory, id_map: int) -> int:
    source = openat2(AT_FDCWD, directory.source, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)
    try:
        tree = detached.clone_at(source, "", what=directory.source)
    finally:
        os.close(source)
    detached.restrict(tree, directory.source, read_only=directory.read_only, id_map=id_map)
    return tree


def _attach(tree: int, place: str) -> None:
    try:
        with file_errors("make", place):
            os.mkdir(place)
        mount.attach(tree, place)
    finally:
        os.close(tree)


def _make_node(path: str, node: Node, *, owner: int) -> None:
    kind = stat.S_IFBLK if node.block else stat.S_IFCHR
    with file_errors("make", path):
        os.mknod(path, kind | 0o600, os.makedev(node.major, node.minor))
        os.chown(path, owner, owner)
        os.chmod(path, node.mode)
