"""Showing files of the host in the ``/proc`` and ``/sys`` of an environment that runs, or taking them away again.

The environment's root is hostile and owns its mount table. So what is shown is cloned before the table is entered,
places are looked up there by descriptor and never out of a real ``/proc`` or ``/sys``, and nothing of the host is
reachable from inside but the files themselves, read-only.

Light on imports: the keeper holds this module.

Source: open_tree(2); move_mount(2); setns(2); openat2(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from reconciler.errors import KernelError
from reconciler.kernel import detached, mount, openat2, pidfd
from reconciler.kernel.mount import Mount
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.syscalls import AT_FDCWD, checked, libc, translated

_CLONE_NEWNS = 0x00020000
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_INSIDE = (
    openat2.RESOLVE_BENEATH | openat2.RESOLVE_NO_SYMLINKS | openat2.RESOLVE_NO_MAGICLINKS | openat2.RESOLVE_NO_XDEV
)

# Source: linux/magic.h, PROC_SUPER_MAGIC and SYSFS_MAGIC.
_KINDS: Mapping[str, int] = {"proc": 0x9FA0, "sys": 0x62656572}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A file of the host, and where to show it: a path below ``/proc`` or ``/sys``."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowSpec:
    """What the environment of ``init`` is to be shown. What is mounted there already of the type ``fstype`` goes.

    What the environment's root mounted there himself stays, and nothing of ours is put over it. Without ``shows``
    files are only taken away, so that what lies below is seen.
    """

    init: ProcessId
    files: tuple[Shown, ...]
    fstype: str
    shows: bool = True


class _StatFs(ctypes.Structure):
    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_long * 31))


def show(spec: ShowSpec) -> NoReturn:
    """Show files, or take them away, and end with status 0, in a forked child with one thread.

    Raises: KernelError.
    """
    mounts = mount.read_mounts(spec.init.pid)
    places = [(one, stack_at(mounts, one.target, spec.fstype)) for one in spec.files]
    trees = [_clone(one.source) if spec.shows and depth is not None else None for one, depth in places]
    _enter_mounts(spec.init)
    for (one, depth), tree in zip(places, trees, strict=True):
        if depth is not None:
            _put(one.target, depth, tree)
    os._exit(0)


def _clone(path: str) -> int:
    tree = detached.clone_at(AT_FDCWD, path, what=path)
    detached.restrict(tree, path, read_only=True)
    return tree


def stack_at(mounts: Sequence[Mount], target: str, fstype: str) -> int | None:
    """Count the mounts of a type that are topmost at a place; None, if something of another type covers it."""
    depth = 0
    for found in reversed(mounts):
        if found.target != target:
            continue
        if found.fstype != fstype:
            return depth or None
        depth += 1
    return depth


def _enter_mounts(init: ProcessId) -> None:
    """Enter the mount namespace alone: the rights that mounting takes are those of the host's root."""
    descriptor = pidfd.open_process(init)
    if descriptor is None:
        raise KernelError(f"enter mounts of process {init.pid}: it has ended", errno=errno.ESRCH)
    checked(libc.setns(descriptor, _CLONE_NEWNS), "enter", f"mounts of process {init.pid}")
    os.close(descriptor)


def _put(target: str, depth: int, tree: int | None) -> None:
    with _parent(target):
        name = os.path.basename(target)
        for _ in range(depth):
            mount.unmount(name, lazy=True)
        if tree is not None:
            mount.attach(tree, name)
            os.close(tree)


@contextmanager
def _parent(target: str) -> Iterator[None]:
    """Make the directory of a place the working directory, without ever leaving the file system that it must be in.

    Raises: KernelError.
    """
    top, _, rest = target.removeprefix("/").partition("/")
    with translated("open", "/"):
        root = os.open("/", _DIRECTORY | os.O_CLOEXEC)
    resolve = openat2.RESOLVE_BENEATH | openat2.RESOLVE_NO_SYMLINKS | openat2.RESOLVE_NO_MAGICLINKS
    base = openat2.openat2(root, top, _DIRECTORY, resolve=resolve)
    _expect_kind(base, top)
    directory = os.path.dirname(rest)
    inner = openat2.openat2(base, directory, _DIRECTORY, resolve=_INSIDE) if directory else os.dup(base)
    try:
        with translated("enter", os.path.dirname(target)):
            os.fchdir(inner)
        yield
    finally:
        os.chdir("/")
        for descriptor in (root, base, inner):
            os.close(descriptor)


def _expect_kind(descriptor: int, top: str) -> None:
    answer = _StatFs()
    checked(libc.fstatfs(descriptor, ctypes.byref(answer)), "look at", f"/{top} inside")
    if answer.type != _KINDS[top]:
        raise KernelError(f"look at /{top} inside: expected the kernel's own, found file system {answer.type:#x}")
