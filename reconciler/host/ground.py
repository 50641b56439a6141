"""The ground that an instance stands on: directories, pool and cgroup; made at start, removed at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from reconciler.errors import MissingToolError, NoSpaceError, RefusedError
from reconciler.host import lxcfs
from reconciler.kernel import btrfs, cgroup_file, cgroup_layout, files, loop, mount, qgroup
from reconciler.kernel.syscalls import file_errors
from reconciler.model.instance import Instance
from reconciler.model.units import format_size

_PRIVATE = 0o700
_PASSABLE = 0o711
"""A VE's root passes through the run directory to its root file system, and reads nothing on the way."""

_QUOTA_S = 10.0
_QUOTA_POLL_S = 0.01
_HELD_POLL_S = 0.02
_HELD_S = 10.0

_CRIU_CONFIG = "network-lock nftables\nlink-remap\nghost-limit 67108864\n"


def prepare(instance: Instance, *, told: Callable[[str], None] = lambda text: None) -> None:
    """Make what an instance needs before its first VE; there already is success.

    Raises: NoSpaceError, if the pool's file does not fit; MissingToolError; KernelError.
    """
    prepare_directories(instance)
    files.write_volatile(f"{instance.run_dir}/criu.conf", _CRIU_CONFIG.encode(), mode=0o644)
    _prepare_pool(instance, told)
    for path in (instance.ves, instance.trash):
        _make_directory(path, _PRIVATE)
    qgroup.enable_quota(instance.pool)
    qgroup.count_large_deletions(instance.pool)
    _await_quota(instance)


def prepare_directories(instance: Instance) -> None:
    """Make the directories of an instance; there already is success.

    Raises: KernelError.
    """
    for path in (instance.run_dir, f"{instance.run_dir}/ves"):
        _make_directory(path, _PASSABLE)
    for path in (instance.state_dir, instance.templates, f"{instance.run_dir}/runtime"):
        _make_directory(path, _PRIVATE)


def _make_directory(path: str, mode: int) -> None:
    with file_errors("make directory", path):
        os.makedirs(path, mode=mode, exist_ok=True)


def _await_quota(instance: Instance) -> None:
    """Let the kernel finish counting, which for a new pool is a moment; a large one goes on being counted later."""
    if not qgroup.read_qgroups(instance.pool).consistent:
        qgroup.start_rescan(instance.pool)
    deadline = time.monotonic() + _QUOTA_S
    while not qgroup.read_qgroups(instance.pool).consistent and time.monotonic() < deadline:
        time.sleep(_QUOTA_POLL_S)


def _prepare_pool(instance: Instance, told: Callable[[str], None]) -> None:
    _make_directory(instance.pool, _PRIVATE)
    if mount.is_mounted(instance.pool):
        return
    if instance.pool_path is not None:
        _mount_pool(instance.pool_path, instance)
        return
    image = pool_image(instance)
    if not os.path.exists(image):
        told(f"making the pool: {format_size(instance.pool_size)} in {image}")
        _make_pool(instance, image)
    _mount_pool(image, instance)


def _mount_pool(image: str, instance: Instance) -> None:
    """Mount without discarding: a pool's file would lose the space that was set aside for it."""
    mount.mount_image(image, instance.pool, fstype="btrfs", read_only=False, options=("nodiscard",))


def _make_pool(instance: Instance, image: str) -> None:
    """Make the pool's file whole before it gets its name, so that a crash leaves none that is half made."""
    partial = f"{image}.partial"
    files.remove_tree(partial)
    try:
        files.allocate(partial, instance.pool_size)
        btrfs.make_filesystem(partial, label=instance.name)
    except NoSpaceError as err:
        files.remove_tree(partial)
        size = format_size(instance.pool_size)
        raise NoSpaceError(f"make the pool {image}: {size} do not fit; free space, or set pool.size lower") from err
    with file_errors("make", image):
        os.rename(partial, image)
    files.sync_directory(instance.state_dir)


def pool_image(instance: Instance) -> str:
    """Give the file that holds the pool where the host has no btrfs for it."""
    return f"{instance.state_dir}/pool.btrfs"


def is_mounted(instance: Instance) -> bool:
    """Say whether the pool is mounted, so that one can look at what is in it.

    Raises: KernelError.
    """
    return mount.is_mounted(instance.pool)


def has_pool(instance: Instance) -> bool:
    """Say whether the pool is mounted, or was ever made: a pool that is not mounted is not an empty one."""
    made = instance.pool if instance.pool_path is not None else pool_image(instance)
    return mount.is_mounted(instance.pool) or os.path.exists(made)


def check_pool(instance: Instance) -> None:
    """Make sure that there is a pool to look at.

    Raises: MissingToolError, if it is not mounted: then nothing may be concluded from an empty directory.
    """
    if not mount.is_mounted(instance.pool):
        raise MissingToolError(
            f"look at the pool {instance.pool}: it is not mounted; `vectl apply` or the agent mounts it"
        )


def remove(instance: Instance) -> None:
    """Remove the ground: mounts, pool, state and run directory.

    Raises: RefusedError, if VEs are left in the pool, or may be as it is not mounted; BusyError, if something is still
    mounted.
    """
    if instance.pool_path is None and os.path.exists(pool_image(instance)) and not is_mounted(instance):
        raise RefusedError(
            f"remove {pool_image(instance)}: it is not mounted, and may hold VEs; mount it, or delete it"
        )
    if is_mounted(instance):
        with file_errors("list", instance.pool):
            left = [*os.listdir(instance.ves), *os.listdir(instance.trash)]
        if left:
            raise RefusedError(f"remove the pool {instance.pool}: {len(left)} VEs are in it or in its trash")
        _unmount_pool(instance)
    lxcfs.end(instance)
    templates = f"{instance.run_dir}/templates"
    for entry in mount.read_mounts():
        if entry.target.startswith(f"{templates}/"):
            mount.unmount(entry.target)
    _remove_cgroup(instance)
    files.remove_tree(instance.run_dir)
    files.remove_tree(instance.state_dir)


def held_devices(instance: Instance, *, wait_s: float = 0.0) -> list[str]:
    """List the loop devices that still have files of an instance, after waiting for their release.

    The kernel frees a device a moment after the last mount of it, which may be in another process's mount table.

    Units: seconds.
    Raises: KernelError.
    """
    deadline = time.monotonic() + wait_s
    while True:
        held = loop.find_below(os.path.realpath(instance.state_dir))
        if not held or time.monotonic() >= deadline:
            return held
        time.sleep(_HELD_POLL_S)


def _unmount_pool(instance: Instance) -> None:
    """Unmount the pool, once the disks in it are let go: udev may look at one for a moment after its last user.

    Raises: BusyError; KernelError.
    """
    pool, deadline = os.path.realpath(instance.pool), time.monotonic() + _HELD_S
    while loop.find_below(pool) and time.monotonic() < deadline:
        time.sleep(_HELD_POLL_S)
    mount.unmount(instance.pool)


def _remove_cgroup(instance: Instance) -> None:
    for hierarchy in cgroup_layout.detect().hierarchies():
        cgroup_file.remove_directory(hierarchy.path(instance.cgroup))
