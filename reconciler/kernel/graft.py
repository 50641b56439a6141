"""Grafting: mounts of the host put into the mount namespace of a running VE, and taken out of it again.

Whatever is looked up in there is looked up in one mount, from its root: a file system that the VE's root mounted, a
FUSE one that never answers for example, is never entered. Entering a mount namespace changes a thread's root directory,
so each visit is made by a thread that is made for it, has a root directory of its own, and ends.

Source: setns(2), "CLONE_NEWNS" (a thread may enter once it shares its root directory with no other); open_tree(2);
move_mount(2); mount_setattr(2); mount_namespaces(7).
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from reconciler.errors import KernelError
from reconciler.kernel import detached, mount, own_thread, rootfs, userns
from reconciler.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from reconciler.kernel.syscalls import AT_FDCWD, checked, file_errors, kernel_error, libc

_CLONE_FS = 0x200
_CLONE_NEWNS = 0x20000
_DEVICE_BYTES = 4096

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where in a VE something is put: ``path`` below its root, or below its /dev with the number of that mount.

    Shape: ``path`` without a leading slash. Units: ``owner`` an id of the host, of whatever has to be made for it.
    """

    path: str
    owner: int
    directory: bool = True
    dev: int | None = None

    @property
    def parent(self) -> str:
        """The directory that it is in, from the same root."""
        return self.path.rpartition("/")[0] or "/"

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rpartition("/")[2]


def open_of(pid: int, kind: str, *, pidfd: int) -> int:
    """Open the mount (``mnt``) or user (``user``) namespace of a process; the caller closes the descriptor.

    The pidfd proves that the pid was not given to another process.
    Raises: KernelError, with ESRCH if the process is gone.
    """
    path = f"/proc/{pid}/ns/{kind}"
    with file_errors("open", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as err:
        os.close(descriptor)
        raise kernel_error("open", f"{path} of a process that is gone", err.errno or 0) from err
    return descriptor


def call_in(namespace: int, function: Callable[[], _Result]) -> _Result:
    """Call a function in a mount namespace and give back what it returns. It must not import, nor open by path.

    Raises: KernelError, if the namespace cannot be entered; whatever the function raises.
    """

    def enter_and_call() -> _Result:
        checked(libc.unshare(_CLONE_FS), "unshare", "root directory")
        checked(libc.setns(namespace, _CLONE_NEWNS), "enter", f"mount namespace {namespace}")
        return function()

    return own_thread.call(enter_and_call, name="mounts")


def graft(namespace: int, tree: int, target: Target) -> int:
    """Attach a detached mount in a namespace, at a target that is made if it is missing; give the mount's number.

    The VE's root may change the flags of the mount, and unmount it.
    Raises: KernelError, with EXDEV if a mount that the VE's root made is in the way.
    """

    def attach() -> int:
        with _made(target) as place:
            detached.attach_at(tree, place, target.path)
        return detached.number_of(tree)

    return call_in(namespace, attach)


def graft_locked(namespace: int, tree: int, target: Target) -> int:
    """Attach a detached mount of a directory so that the VE's root cannot change its flags; give the mount's number.

    The kernel locks the flags of a mount that reaches a less privileged namespace by propagation, and of copies of
    it. So the mount propagates into the VE through a pair of empty directories that are there for a moment.
    Raises: KernelError, with EXDEV if a mount that the VE's root made is in the way.
    Source: Linux fs/namespace.c, attach_recursive_mnt, lock_mnt_tree.
    """
    return own_thread.call_with_own_mounts(lambda: _propagate(namespace, tree, target))


def _propagate(namespace: int, tree: int, target: Target) -> int:
    with ExitStack() as open_, _empty() as pair:
        detached.share(pair)
        with file_errors("make", target.path):
            os.mkdir("m", dir_fd=pair)
            inner = os.open("m", os.O_PATH | os.O_CLOEXEC, dir_fd=pair)
        open_.callback(os.close, inner)
        peer = detached.clone_at(pair, "", what=target.path, shared=True)
        open_.callback(os.close, peer)
        graft(namespace, peer, target)
        try:
            detached.attach_at(tree, inner, target.path)
            locked = call_in(namespace, lambda: detached.clone_at(peer, "m", what=target.path))
        finally:
            detach(namespace, target)
        open_.callback(os.close, locked)
        _expect_same(tree, locked, target.path)
        return graft(namespace, locked, target)


def _expect_same(tree: int, locked: int, path: str) -> None:
    """Make sure that nobody inside put something else in the place where the copy was taken.

    It may be a file system that never answers: so it is not asked.
    """
    if detached.identity_of(tree) != detached.identity_of(locked):
        raise KernelError(f"attach mount at {path}: something else was mounted there meanwhile")


def detach(namespace: int, target: Target) -> None:
    """Take away the topmost mount at a target; nothing there is success. Who is in it keeps it until he leaves.

    Raises: KernelError.
    """

    def leave() -> None:
        with _parent(target) as parent:
            if parent is not None:
                os.fchdir(parent)  # of this thread alone, so that nothing above is looked up once more
                mount.unmount(target.name, lazy=True)

    call_in(namespace, leave)


def remove_file(namespace: int, target: Target) -> None:
    """Remove the empty file that was made to be mounted over; anything else is left.

    Raises: KernelError.
    """

    def remove() -> None:
        with _parent(target) as parent, file_errors("remove", target.path), suppress(FileNotFoundError):
            if parent is None:
                return
            info = os.stat(target.name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and info.st_size == 0:
                os.unlink(target.name, dir_fd=parent)

    call_in(namespace, remove)


@contextmanager
def _parent(target: Target) -> Iterator[int | None]:
    """Open the directory that a target is in; None, if it is not there."""
    with _base(target) as base:
        try:
            parent = rootfs.open_in_root(base, target.parent, os.O_RDONLY | os.O_DIRECTORY)
        except KernelError as err:
            if err.errno not in rootfs.ABSENT:
                raise
            yield None
            return
    try:
        yield parent
    finally:
        os.close(parent)


def device(mode: int, number: int, *, owner: int) -> int:
    """Make a device node that belongs to a VE, in a file system of its own, and give it as a detached mount.

    Shape: ``mode`` with the type of the device and its permissions. Units: ``owner`` an id of the host.
    Raises: KernelError.
    """

    def make() -> int:
        with _empty() as directory:
            with file_errors("make", f"device {os.major(number)}:{os.minor(number)}"):
                os.mknod("node", stat.S_IFMT(mode) | 0o600, number, dir_fd=directory)
                os.chown("node", owner, owner, dir_fd=directory)
                os.chmod("node", stat.S_IMODE(mode), dir_fd=directory)
            return detached.clone_at(directory, "node", what="device node")

    return own_thread.call_with_own_mounts(make)


@contextmanager
def _empty() -> Iterator[int]:
    """Mount an empty file system over the root of this thread's namespace, where only who has it open finds it."""
    made = detached.make_tmpfs(size=_DEVICE_BYTES)
    try:
        mount.attach(made, "/")
        yield made
    finally:
        os.close(made)


@contextmanager
def _made(target: Target) -> Iterator[int]:
    with _base(target) as base, userns.acting_as(target.owner, target.owner):
        if target.directory:
            place = rootfs.make_directory_in_root(base, target.path, owner=target.owner)
        else:
            place = rootfs.make_file_in_root(base, target.path, owner=target.owner)
    try:
        yield place
    finally:
        os.close(place)


@contextmanager
def _base(target: Target) -> Iterator[int]:
    """Open what a target's path starts from: the root of the namespace, or the /dev of the number that was seen."""
    root = "/" if target.dev is None else "/dev"
    flags = os.O_PATH | os.O_DIRECTORY
    descriptor = openat2(AT_FDCWD, root, flags, resolve=RESOLVE_NO_SYMLINKS)
    try:
        if target.dev is not None and detached.number_of(descriptor) != target.dev:
            raise KernelError(f"open {target.path} below /dev: something is mounted over the VE's /dev")
        yield descriptor
    finally:
        os.close(descriptor)
