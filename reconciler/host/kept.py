"""Kept states of a VE's data: directories with a subvolume, what is known of it, and perhaps a memory.

One appears by a rename when it is whole, and goes by one before anything of it is deleted: a name that begins with a
dot is that of one which is not there yet, or no more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress

from reconciler.errors import BusyError, StateError, TemplateError
from reconciler.host import image
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, qgroup
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Digest, TemplateName, Uid
from reconciler.model.kept import KeptMeta, decode_mark, decode_meta, encode_meta
from reconciler.model.snapshots import VolumeMark

VOLUME = "volume"
MEMORY = "memory"
_META = "meta.json"
_MARK = "mark.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


def need_name(name: str) -> str:
    """Refuse whatever could lead out of a directory as a name.

    Raises: StateError.
    """
    if _NAME.match(name) is None:
        raise StateError(f"find snapshot {name!r}: expected letters, digits, dots, dashes and underscores")
    return name


def need_volume(site: Site, uid: Uid, doing: str) -> str:
    """Give the path of a VE's volume.

    Raises: StateError, if it has none that is whole; KernelError.
    """
    path = site.instance.volume(uid)
    if not is_whole(path):
        raise StateError(f"{doing}: VE {uid} has no volume")
    return path


def is_whole(volume: str) -> bool:
    """Say whether there is a volume, with its layers or its image in it.

    Raises: KernelError.
    """
    return btrfs.is_subvolume(volume) and (os.path.isdir(f"{volume}/work") or os.path.exists(image.path_in(volume)))


def read_mark(site: Site, uid: Uid) -> VolumeMark | None:
    """Read what a VE's volume was put there by; None for the one that it was born with.

    Raises: StateError; KernelError.
    """
    return site.parsed.read(mark_in(site.instance.volume(uid)), decode_mark)


def mark_in(volume: str) -> str:
    """Give the path of the mark in a volume."""
    return f"{volume}/{_MARK}"


def base_of(site: Site, uid: Uid) -> tuple[TemplateName, Digest]:
    """Give the template that a VE's volume is mounted on, and its image.

    Raises: StateError; TemplateError, if none was ever built for it; KernelError.
    """
    mark = read_mark(site, uid)
    if mark is not None:
        return mark.template, mark.template_digest
    record = site.need_record(uid)
    if record.template_digest is None:
        raise TemplateError(f"look up the template of {record.name}: its record names no image of {record.template}")
    return record.template, record.template_digest


def read_meta(site: Site, directory: str) -> KeptMeta | None:
    """Read what a kept state is; None, if there is none.

    Raises: StateError; KernelError.
    """
    return site.parsed.read(f"{directory}/{_META}", decode_meta)


def write_meta(directory: str, meta: KeptMeta) -> None:
    """Write down what a kept state is; its name is on disk when the state has its own.

    Raises: KernelError; NoSpaceError.
    """
    files.write_whole(f"{directory}/{_META}", encode_meta(meta))


def unborn(directory: str) -> str:
    """Give the name that a directory has before it is whole, and when it is on its way out."""
    parent, name = os.path.split(directory)
    return f"{parent}/.{name}"


def begin(site: Site, directory: str) -> str:
    """Make the directory that is to become a kept state, empty, in place of one that never did.

    Raises: KernelError; NoSpaceError.
    """
    path = unborn(directory)
    delete(site, path)
    with file_errors("make", path):
        os.makedirs(path, mode=0o700)
    return path


def finish(directory: str) -> None:
    """Let a kept state appear, whole.

    Raises: KernelError; NoSpaceError.
    """
    with file_errors("finish", directory):
        os.rename(unborn(directory), directory)
    files.sync_directory(os.path.dirname(directory))


def remove(site: Site, directory: str) -> None:
    """Let a kept state disappear, and delete it; absent is success.

    Raises: KernelError; BusyError, if something is mounted in it.
    """
    leaving = unborn(directory)
    delete(site, leaving)
    if os.path.isdir(directory):
        with file_errors("remove", directory):
            os.rename(directory, leaving)
        files.sync_directory(os.path.dirname(directory))
        delete(site, leaving)


def delete(site: Site, directory: str) -> None:
    """Delete a directory of a VE with all subvolumes in it, and forget their quota groups; absent is success.

    Raises: KernelError; BusyError, if something is mounted in it.
    """
    for path in list(_subvolumes(directory)):
        number = btrfs.subvolume_id(path)
        _leave_groups(site, number)
        btrfs.delete_subvolume(path)
        _forget_group(site, number)
    files.remove_tree(directory)
    site.parsed.forget_below(directory)


def _subvolumes(directory: str) -> Iterator[str]:
    """Find the subvolumes among our own directories, without entering them: what is in one is a tenant's."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = f"{directory}/{name}"
        if btrfs.is_subvolume(path):
            yield path
        elif not os.path.islink(path):
            yield from _subvolumes(path)


def _leave_groups(site: Site, number: int) -> None:
    """Take a volume out of the groups above, and remove those: only one that shares no data can leave uncounted."""
    pool = site.instance.pool
    group = qgroup.read_qgroups(pool, {number}).groups.get(number)
    if group is None or group.exclusive != group.referenced:
        return
    for above in group.parents:
        qgroup.release_qgroup(pool, number, above)
        _forget_group(site, above)


def _forget_group(site: Site, number: int) -> None:
    """Remove a quota group; while it has members or its deleted subvolume is being cleaned up, the kernel keeps it."""
    with suppress(BusyError):
        qgroup.remove_qgroup(site.instance.pool, number)


def forget_empty_groups(site: Site) -> None:
    """Remove the quota groups above volumes of which none is left.

    Raises: KernelError.
    """
    groups = qgroup.read_qgroups(site.instance.pool).groups
    above = {number for number in groups if qgroup.is_level_1(number)}
    for number in above - {parent for group in groups.values() for parent in group.parents}:
        _forget_group(site, number)


def copy(site: Site, source: str, target: str, *, read_only: bool) -> None:
    """Take a snapshot of a volume, or of a kept state of it, for the same VE: it is counted where that one is.

    Raises: KernelError, also if the target exists; NoSpaceError.
    """
    btrfs.snapshot(source, target, read_only=read_only, group=group_above(site, source))


def group_above(site: Site, volume: str) -> int | None:
    """Give the quota group of a volume and its snapshots, if it has one.

    Raises: KernelError.
    """
    return next(iter(qgroup.read_parents(site.instance.pool, btrfs.subvolume_id(volume))), None)
