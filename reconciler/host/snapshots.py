"""Snapshots: the kept states of VEs' data, each taken at one instant."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import nullcontext
from dataclasses import replace

from reconciler.errors import BusyError, KeeperError, NoSpaceError, StateError, TimeLimitError
from reconciler.host import compute, image, kept, memory, power, preflight, quota, runtime, switching
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, qgroup
from reconciler.kernel import image as disks
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import SnapshotName, Uid
from reconciler.model.kept import KeptMeta
from reconciler.model.power import PowerState
from reconciler.model.snapshots import DeleteSnapshot, SnapshotObservation, SnapshotsObservation, TakeSnapshot

_NONE = SnapshotsObservation()
_NO_NAMES: frozenset[str] = frozenset()
_SNAPSHOTS = "snapshots"


def observe(site: Site, uid: Uid, with_use: bool = False) -> SnapshotsObservation:
    """List the snapshots of a VE; one that has none costs a look at one directory.

    A mark comes and goes with the volume that it is in, and nothing in a snapshot changes: so it is all as it was as
    long as no name in the two directories came or went.

    Raises: StateError; KernelError.
    """
    names = site.parsed.names(site.instance.ve_dir(uid))
    kept_names = site.parsed.names(site.instance.snapshots_dir(uid)) if _SNAPSHOTS in names else _NO_NAMES
    known = site.kept.get(uid)
    if known is None or known[0] is not names or known[1] is not kept_names:
        known = site.kept[uid] = names, kept_names, _read(site, uid, kept_names)
    seen = known[2]
    if not with_use or not seen.snapshots:
        return seen
    used = {name: replace(it, used=_used(site, uid, name)) for name, it in seen.snapshots.items()}
    return replace(seen, snapshots=used)


def _read(site: Site, uid: Uid, names: frozenset[str]) -> SnapshotsObservation:
    directory, mark = site.instance.snapshots_dir(uid), kept.read_mark(site, uid)
    born = sorted(name for name in names if not name.startswith("."))
    if not born:
        return _NONE if mark is None else SnapshotsObservation(mark=mark)
    found = {SnapshotName(name): _read_one(site, f"{directory}/{name}") for name in born}
    return SnapshotsObservation(snapshots=found, mark=mark)


def _read_one(site: Site, directory: str) -> SnapshotObservation:
    meta = kept.read_meta(site, directory)
    if meta is None:
        raise StateError(f"read {directory}: it is no snapshot; move it away")
    return SnapshotObservation(
        kind=meta.kind,
        taken_at=meta.taken_at,
        template=meta.template,
        template_digest=meta.template_digest,
        memory=os.path.isdir(f"{directory}/{kept.MEMORY}"),
    )


def _used(site: Site, uid: Uid, name: str) -> int | None:
    number = btrfs.find_subvolume(f"{site.instance.snapshots_dir(uid)}/{name}/{kept.VOLUME}")
    group = None if number is None else qgroup.read_qgroups(site.instance.pool, {number}).groups.get(number)
    return None if group is None else group.exclusive


async def take(site: Site, effect: TakeSnapshot) -> None:
    """Keep the present data of a VE; present is success. A running one stands still for it, and goes on.

    Raises: StateError, if it has no data, or no memory to keep; BusyError, if its init was not let go yet;
    NotSuspendableError, if its memory cannot be kept; NoSpaceError; TimeLimitError, if it cannot be made to stand
    still; KernelError.
    """
    uid, doing = effect.uid, f"take snapshot {effect.name} of VE {effect.uid}"
    born = f"{site.instance.snapshots_dir(uid)}/{kept.need_name(effect.name)}"
    if os.path.isdir(born):
        return
    site.need_record(uid)
    await switching.settle(site, uid)
    volume, seen = kept.need_volume(site, uid, doing), power.observe(site, uid)
    if seen.state is PowerState.CREATED:
        raise BusyError(f"{doing}: its init was not let go yet")
    if effect.memory and seen.state is PowerState.STOPPED:
        raise StateError(f"{doing}: it does not run, so that it has no memory to keep")
    need_space(site, volume, doing)
    if seen.pid is None:
        await image.await_released(image.path_in(volume))
    begun = await asyncio.to_thread(kept.begin, site, born)
    try:
        if effect.memory and seen.pid is not None:
            await preflight.refuse_obstacles(site, uid, doing=doing, goes_on=True)
            await _take_with_memory(site, effect, begun, born)
        else:
            await asyncio.to_thread(_take, site, effect, begun, born)
    except (KeeperError, TimeLimitError):
        raise  # who writes the memory may go on without us
    except BaseException:
        await asyncio.to_thread(kept.delete, site, begun)
        raise


def _take(site: Site, effect: TakeSnapshot, begun: str, born: str) -> None:
    uid = effect.uid
    taken_at = copy_at_one_instant(site, uid, f"{begun}/{kept.VOLUME}", read_only=True)
    meta = describe(site, uid, effect, taken_at=taken_at)
    if effect.memory:
        suspended = site.instance.suspended_dir(uid)
        link_memory(f"{suspended}/{kept.MEMORY}", f"{begun}/{kept.MEMORY}")
        of_memory = kept.read_meta(site, suspended)
        meta = replace(meta, launch=None if of_memory is None else of_memory.launch)
    kept.write_meta(begun, meta)
    kept.finish(born)


async def _take_with_memory(site: Site, effect: TakeSnapshot, begun: str, born: str) -> None:
    """Have processes and data written at one instant; what writes them lets the snapshot appear."""
    meta = describe(site, effect.uid, effect, taken_at=time.time())
    kept.write_meta(begun, replace(meta, launch=runtime.read_launch(site, effect.uid)))
    await memory.dump(site, effect.uid, unborn=begun, born=born, note=None)


def describe(site: Site, uid: Uid, effect: TakeSnapshot, *, taken_at: float) -> KeptMeta:
    """Say what a snapshot of a VE's present data is.

    Raises: StateError; TemplateError; KernelError.
    """
    template, digest = kept.base_of(site, uid)
    return KeptMeta(
        name=effect.name,
        kind=effect.kind,
        taken_at=taken_at,
        template=template,
        template_digest=digest,
        is_image=os.path.exists(image.path_in(site.instance.volume(uid))),
    )


def need_space(site: Site, volume: str, doing: str) -> None:
    """Make sure that the pool has room for a second copy of an image: what shares its blocks is written elsewhere once.

    Raises: NoSpaceError; KernelError.
    """
    path = image.path_in(volume)
    if not os.path.exists(path):
        return
    with file_errors("look at", path):
        size = os.stat(path).st_size
    free = btrfs.read_space(site.instance.pool).free
    if free < size:
        raise NoSpaceError(f"{doing}: an image of {size} bytes needs as much room again, {free} bytes are free")


def copy_at_one_instant(site: Site, uid: Uid, target: str, *, read_only: bool) -> float:
    """Copy a VE's present data while nothing of it runs, and give the moment.

    What its own file system holds in memory is written to the image before: most of it while the VE still runs.

    Units: seconds since the epoch.
    Raises: KernelError; NoSpaceError; TimeLimitError, if it cannot be made to stand still.
    """
    volume, device = site.instance.volume(uid), quota.device_of(site, uid)
    runs = power.observe(site, uid).state is PowerState.RUNNING
    _flush(volume, device)
    with compute.tree(site, uid).standing_still() if runs else nullcontext():
        _flush(volume, device)
        taken_at = time.time()
        kept.copy(site, volume, target, read_only=read_only)
    return taken_at


def _flush(volume: str, device: str | None) -> None:
    """Have an image hold all that was written. It is not frozen: a file system that whoever froze it cannot thaw any
    more stays so for ever, and with everybody standing still its journal makes the copy as whole."""
    if device is not None:
        disks.flush(device, quotas=image.has_quotas(image.path_in(volume)))


def link_memory(source: str, target: str) -> None:
    """Let a kept state have the memory of another one; the files, which nobody writes to, are shared.

    Raises: KernelError; NoSpaceError.
    """
    with file_errors("link", target):
        os.mkdir(target, 0o700)
        os.chmod(target, os.stat(source).st_mode & 0o7777)
        for name in os.listdir(source):
            if os.path.isdir(f"{source}/{name}"):
                os.mkdir(f"{target}/{name}", 0o700)  # those of criu are empty
            else:
                os.link(f"{source}/{name}", f"{target}/{name}", follow_symlinks=False)
    files.sync_directory(target)


async def delete(site: Site, effect: DeleteSnapshot) -> None:
    """Delete a snapshot; absent is success.

    Raises: StateError, for what cannot be a name; KernelError.
    """
    path = f"{site.instance.snapshots_dir(effect.uid)}/{kept.need_name(effect.name)}"
    await asyncio.to_thread(kept.remove, site, path)
