"""Switching: other data put in the place of a VE's own, which is kept as a snapshot.

All that comes after is made ready in one directory beside the volume. The exchange of two names is the moment: before
it the old data is in force and what was made ready is deleted, after it the new data is, and the rest is done to the
end, whoever comes across it. The number of the subvolume that was in force tells which of the two it is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from reconciler.errors import BusyError, StateError
from reconciler.host import image, kept, power
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import SnapshotName, Uid
from reconciler.model.kept import KeptMeta, encode_mark
from reconciler.model.snapshots import SnapshotKind, VolumeMark

_PLACE = "switch"
_BEFORE = "before"
_SUSPENDED = "suspended"
_NEXT_MEMORY = "next"


def need_idle(site: Site, uid: Uid, doing: str) -> str:
    """Give the volume of a VE of which nothing runs.

    Raises: StateError, if it has none; BusyError, if something runs; KernelError.
    """
    site.need_record(uid)
    volume = kept.need_volume(site, uid, doing)
    seen = power.observe(site, uid)
    if seen.pid is not None:
        raise BusyError(f"{doing}: its init {seen.pid} is alive; stop it first")
    return volume


async def switch(
    site: Site,
    uid: Uid,
    *,
    safety: SnapshotName,
    make: Callable[[str], None],
    memory: Callable[[str], None] | None = None,
) -> None:
    """Put what ``make`` makes in the place of an idle VE's volume, which is kept as the snapshot ``safety``.

    A memory that is on disk goes with the data that it belongs to. ``make``: makes a volume at a path, with its
    mark and its limits, and ready to be mounted. ``memory``: makes the directory of the memory that it is to have then.

    Raises: StateError, if ``safety`` is there already; KernelError; NoSpaceError; whatever is raised in the making:
    then all is as before.
    """
    born = f"{site.instance.snapshots_dir(uid)}/{kept.need_name(safety)}"
    if os.path.lexists(born):
        raise StateError(f"keep the data of VE {uid}: there is a snapshot {safety} already")
    await image.await_released(image.path_in(site.instance.volume(uid)))
    await asyncio.to_thread(_switch, site, uid, safety=safety, make=make, memory=memory)


def _switch(
    site: Site,
    uid: Uid,
    *,
    safety: SnapshotName,
    make: Callable[[str], None],
    memory: Callable[[str], None] | None,
) -> None:
    volume = site.instance.volume(uid)
    settle_now(site, uid)  # else what is there would be taken for nobody's, and deleted
    place = kept.begin(site, _born(site, uid))
    try:
        kept.write_meta(place, _describe(site, uid, safety))
        make(f"{place}/{kept.VOLUME}")
        if memory is not None:
            memory(f"{place}/{_NEXT_MEMORY}")
        with file_errors("make", f"{place}/{_BEFORE}"):
            os.symlink(f"{btrfs.subvolume_id(volume)}", f"{place}/{_BEFORE}")  # which needs no flushing of its own
        _move(site.instance.suspended_dir(uid), f"{place}/{_SUSPENDED}")
        files.exchange(f"{place}/{kept.VOLUME}", volume)
    finally:
        _settle(site, uid)


def _describe(site: Site, uid: Uid, safety: SnapshotName) -> KeptMeta:
    """Say what the data that is in force until now is to be kept as."""
    template, digest = kept.base_of(site, uid)
    suspended = kept.read_meta(site, site.instance.suspended_dir(uid))
    return KeptMeta(
        name=safety,
        kind=SnapshotKind.SAFETY,
        taken_at=time.time(),
        template=template,
        template_digest=digest,
        is_image=os.path.exists(image.path_in(site.instance.volume(uid))),
        launch=None if suspended is None else suspended.launch,
    )


def put_mark(volume: str, mark: VolumeMark) -> None:
    """Write into a volume what it is put in the place of another one by.

    Raises: KernelError; NoSpaceError.
    """
    files.write_whole(kept.mark_in(volume), encode_mark(mark))


async def settle(site: Site, uid: Uid) -> None:
    """Bring a switch to its end that a crash or an error has cut short; none is success.

    Raises: KernelError; NoSpaceError; StateError.
    """
    if os.path.isdir(kept.unborn(_born(site, uid))):
        await asyncio.to_thread(_settle, site, uid)


def settle_now(site: Site, uid: Uid) -> None:
    """Do as `settle`, where nobody waits for anything else.

    Raises: as `settle`.
    """
    if os.path.isdir(kept.unborn(_born(site, uid))):
        _settle(site, uid)


def _settle(site: Site, uid: Uid) -> None:
    place = kept.unborn(_born(site, uid))
    if _is_switched(f"{place}/{kept.VOLUME}", site.instance.volume(uid), f"{place}/{_BEFORE}"):
        _complete(site, uid, place)
    else:
        _undo(site, uid, place)


def _is_switched(beside: str, in_force: str, before: str) -> bool:
    # Without one beside it, deleting had begun, which never does after the exchange.
    if not os.path.islink(before) or not btrfs.is_subvolume(beside):
        return False
    return btrfs.subvolume_id(in_force) != int(os.readlink(before))


def _undo(site: Site, uid: Uid, place: str) -> None:
    _move(f"{place}/{_SUSPENDED}", site.instance.suspended_dir(uid))
    files.sync_directory(site.instance.ve_dir(uid))
    kept.delete(site, place)


def _complete(site: Site, uid: Uid, place: str) -> None:
    """Keep the data that was in force, with its memory, and let the new one have its own."""
    # A subvolume that got another name has all that was done before it written out with it. What follows is done again
    # where a power cut undoes it.
    files.sync_directory(site.instance.ve_dir(uid))
    btrfs.make_read_only(f"{place}/{kept.VOLUME}")
    _move(f"{place}/{_SUSPENDED}/{kept.MEMORY}", f"{place}/{kept.MEMORY}")
    kept.delete(site, f"{place}/{_SUSPENDED}")
    _move(f"{place}/{_NEXT_MEMORY}", site.instance.suspended_dir(uid))
    meta = kept.read_meta(site, place)
    if meta is None:
        raise StateError(f"keep the data of VE {uid}: {place} does not say what it is; look at that directory")
    snapshots = site.instance.snapshots_dir(uid)
    with file_errors("make", snapshots):
        os.makedirs(snapshots, mode=0o700, exist_ok=True)
    born = f"{snapshots}/{kept.need_name(meta.name)}"
    _move(place, born)
    files.remove_tree(f"{born}/{_BEFORE}")


def _move(source: str, target: str) -> None:
    if os.path.isdir(source):
        with file_errors("move", source):
            os.rename(source, target)


def _born(site: Site, uid: Uid) -> str:
    return f"{site.instance.ve_dir(uid)}/{_PLACE}"
