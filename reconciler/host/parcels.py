"""Parcels: what is kept of a VE's data to be sent to another host, and how all of a move is cleared away."""

from __future__ import annotations

import asyncio
import os

from reconciler.errors import BusyError, StateError
from reconciler.host import image, kept, parcel_notes, power, snapshots, switching, volume
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Uid
from reconciler.model.placement import ClearMove, CutParcel
from reconciler.model.power import PowerState


async def cut(site: Site, effect: CutParcel) -> None:
    """Keep a VE's data as they are at one instant; there already is success. A running one stands still for it.

    Raises: StateError, if it has no data; BusyError, if its init was not let go yet; NoSpaceError; TimeLimitError, if
    it cannot be made to stand still; KernelError.
    """
    uid, doing = effect.uid, f"cut parcel {effect.number} of VE {effect.uid}"
    directory = parcel_notes.directory_of(site, uid, effect.move)
    if effect.number < 0:
        raise StateError(f"{doing}: expected a number from 0 on")
    site.need_record(uid)
    target = parcel_notes.data_in(directory, effect.number)
    if btrfs.is_subvolume(target):
        return
    await switching.settle(site, uid)
    present, seen = kept.need_volume(site, uid, doing), power.observe(site, uid)
    if seen.state is PowerState.CREATED:
        raise BusyError(f"{doing}: its init was not let go yet")
    snapshots.need_space(site, present, doing)
    if seen.pid is None:
        await image.await_released(image.path_in(present))
    await asyncio.to_thread(_cut, site, uid, target, suspended=seen.state is PowerState.SUSPENDED)


def _cut(site: Site, uid: Uid, target: str, *, suspended: bool) -> None:
    directory = os.path.dirname(target)
    with file_errors("make", directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    if suspended:
        _cut_suspended(site, uid, target)
    else:
        snapshots.copy_at_one_instant(site, uid, target, read_only=True)
    files.sync_directory(directory)


def _cut_suspended(site: Site, uid: Uid, target: str) -> None:
    """Copy the data that a memory goes on from: those in force may have been touched by a resume that failed.

    What the volume says of itself was said since, and goes along.
    """
    present, made = site.instance.volume(uid), kept.unborn(target)
    source = f"{site.instance.suspended_dir(uid)}/{kept.VOLUME}"
    mark, other = kept.read_mark(site, uid), files.read_bytes_if_exists(kept.mark_in(source))
    if files.read_bytes_if_exists(kept.mark_in(present)) == other or mark is None:
        kept.copy(site, source, target, read_only=True)
        return
    btrfs.delete_subvolume(made)  # which a crash may have left
    kept.copy(site, source, made, read_only=False)
    with volume.limited_afterwards(site, made, size=None, total=volume.read_limits(site, present)[1]):
        switching.put_mark(made, mark)
    btrfs.make_read_only(made)
    with file_errors("finish", target):
        os.rename(made, target)


async def clear(site: Site, effect: ClearMove) -> None:
    """Delete all parcels of a move; absent is success.

    Raises: StateError, for what cannot be a move; BusyError, if something is mounted in it; KernelError.
    """
    directory = parcel_notes.directory_of(site, effect.uid, effect.move)
    await asyncio.to_thread(_clear, site, effect.uid, effect.move, directory)


def _clear(site: Site, uid: Uid, move: str, directory: str) -> None:
    kept.delete(site, unplaced(site, uid, move))
    kept.delete(site, directory)


def unplaced(site: Site, uid: Uid, move: str) -> str:
    """Give the name that the directory of a VE has that arrives, until all of it is there."""
    return f"{site.instance.ves}/.{uid}.{move}"
