"""Cloning: the volume of a new VE made from the data of another one, with an identity of its own."""

from __future__ import annotations

import asyncio
import os

from reconciler.errors import StateError
from reconciler.host import image, kept, offline, power, snapshots, switching, templates, volume
from reconciler.host.site import Site
from reconciler.kernel import btrfs, files, identity, overlay_index, qgroup
from reconciler.kernel import image as disks
from reconciler.kernel.shift import Shift, shift_owners
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import IDS_PER_VE, Uid
from reconciler.model.snapshots import CloneVolume
from reconciler.model.volume import Record

_PLACE = "clone"


async def clone(site: Site, effect: CloneVolume) -> None:
    """Make the volume of a new VE from another one's data; a volume that is there is success.

    Raises: StateError, if there is no such data, or it cannot be shared; NoSpaceError; TimeLimitError; KernelError;
    MissingToolError, without ssh-keygen where there are keys.
    """
    uid, doing = effect.uid, f"clone VE {effect.source}"
    record = site.need_record(uid)
    if kept.is_whole(site.instance.volume(uid)):
        return
    await switching.settle(site, effect.source)
    present = kept.need_volume(site, effect.source, doing)
    source = present if effect.snapshot is None else _snapshot(site, effect, doing)
    is_image = os.path.exists(image.path_in(source))
    limited = effect.total is not None and qgroup.keeps_count_of_snapshots()
    if not is_image and (limited or kept.group_above(site, source) is not None):
        raise StateError(
            f"{doing}: what is limited together with its snapshots (disk.snapshots) shares no data with another VE; "
            "leave that out of both, or build a template of the snapshot"
        )
    snapshots.need_space(site, source, doing)
    if effect.snapshot is None and power.observe(site, effect.source).pid is None:
        await image.await_released(image.path_in(source))
    born = f"{site.instance.ve_dir(uid)}/{_PLACE}"
    begun = await asyncio.to_thread(kept.begin, site, born)
    try:
        await asyncio.to_thread(_clone, site, effect, record, source, begun)
    finally:
        await asyncio.to_thread(kept.delete, site, begun)


def _snapshot(site: Site, effect: CloneVolume, doing: str) -> str:
    directory = f"{site.instance.snapshots_dir(effect.source)}/{kept.need_name(effect.snapshot or '')}"
    if kept.read_meta(site, directory) is None:
        raise StateError(f"{doing}: it has no snapshot {effect.snapshot}")
    return f"{directory}/{kept.VOLUME}"


def _clone(site: Site, effect: CloneVolume, record: Record, source: str, begun: str) -> None:
    made, target = f"{begun}/{kept.VOLUME}", site.instance.volume(effect.uid)
    if effect.snapshot is None:
        snapshots.copy_at_one_instant(site, effect.source, made, read_only=False)
    else:
        kept.copy(site, source, made, read_only=False)
    files.remove_tree(kept.mark_in(made))
    own(site, made, record)
    if not os.path.exists(image.path_in(made)):
        volume.set_limits(site, made, size=effect.size, total=None)
    btrfs.delete_subvolume(target)  # what a crash may have left of one that was made without data
    with file_errors("finish", target):
        os.rename(made, target)
    files.sync_directory(site.instance.ve_dir(effect.uid))


def own(site: Site, made: str, record: Record) -> None:
    """Make the copy of another VE's volume that of a new one, which may be mounted beside it.

    It has no limit for the time: what is full takes no change, and nobody else writes to it yet.

    Raises: KernelError; NoSpaceError; MissingToolError; TemplateError.
    """
    if os.path.exists(image.path_in(made)):
        shift_image(image.path_in(made), to=record.id_base)
    else:
        qgroup.set_limit(made, None)
        overlay_index.renew(made)
        overlay_index.give_identity(f"{made}/upper")
    if record.template_digest is None:
        raise StateError(f"clone for {record.name}: its record names no image of template {record.template}")
    lower = templates.ensure_mounted(site, record.template_digest)
    if _renew_offline(made, lower):
        return

    def renew(place: str) -> None:
        prepared = offline.prepared(place, volume=made, lower=lower, id_base=record.id_base)
        with prepared as spec, offline.mounted(spec), offline.opened(spec.target) as root:
            identity.renew(root, owner=record.id_base, hostname=record.name)

    offline.call(site, renew)


def _renew_offline(made: str, lower: str) -> bool:
    """Give a volume a new identity without its overlay, which costs more than all else, if that is possible."""
    if os.path.exists(image.path_in(made)):
        return False
    with offline.opened(f"{made}/upper") as upper, offline.opened(lower) as template:
        return identity.renew_offline(upper, template)


def shift_image(path: str, *, to: int) -> None:
    """Move the owners in an image that nothing uses to another range of ids: its quotas go by the ids on disk.

    Raises: KernelError; NoSpaceError.
    """
    with disks.opened(path, quotas=image.has_quotas(path)) as root:
        with file_errors("look at", path):
            before = os.stat(disks.LAYERS[0], dir_fd=root, follow_symlinks=False).st_uid
        if before != to:
            shift_owners(root, Shift(before=before, after=to, count=IDS_PER_VE), path=path)


def discard_unborn(site: Site, uid: Uid) -> None:
    """Delete what a crash left of a clone that was being made.

    Raises: KernelError.
    """
    kept.delete(site, kept.unborn(f"{site.instance.ve_dir(uid)}/{_PLACE}"))
