"""Rollback: a VE's data returned to that of a snapshot, or begun anew on another template."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from reconciler.errors import StateError, TemplateError
from reconciler.host import image, kept, offline, snapshots, switching, templates, volume
from reconciler.host.site import Site
from reconciler.kernel import btrfs, carry, overlay_index, qgroup
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Uid
from reconciler.model.kept import KeptMeta
from reconciler.model.snapshots import ReplaceVolume, RollBack, VolumeMark
from reconciler.model.volume import CreateVolume, Record


async def roll_back(site: Site, effect: RollBack) -> None:
    """Put the data of a snapshot in the place of an idle VE's; a rollback that was done is success.

    Raises: StateError, if there is no such snapshot; BusyError, if something of the VE runs; NoSpaceError; KernelError.
    """
    uid, doing = effect.uid, f"roll VE {effect.uid} back to {effect.to}"
    source = f"{site.instance.snapshots_dir(uid)}/{kept.need_name(effect.to)}"
    switching.need_idle(site, uid, doing)
    await switching.settle(site, uid)
    done = kept.read_mark(site, uid)
    if done is not None and done.request == effect.request:
        return
    meta = kept.read_meta(site, source)
    if meta is None:
        raise StateError(f"{doing}: it has no such snapshot")
    snapshots.need_space(site, f"{source}/{kept.VOLUME}", doing)

    def make(path: str) -> None:
        kept.copy(site, f"{source}/{kept.VOLUME}", path, read_only=False)
        if meta.is_image:
            switching.put_mark(path, mark)
            return
        with volume.limited_afterwards(site, path, size=effect.size, total=effect.total):
            overlay_index.renew(path)
            switching.put_mark(path, mark)

    mark = VolumeMark(request=effect.request, template=meta.template, template_digest=meta.template_digest)
    memory = _memory_of(site, source, meta)
    await switching.switch(site, uid, safety=effect.safety, make=make, memory=memory)


def _memory_of(site: Site, source: str, meta: KeptMeta) -> Callable[[str], None] | None:
    """Say how the memory of a snapshot becomes that of its VE, with the data that it goes on from; None without one."""
    if not os.path.isdir(f"{source}/{kept.MEMORY}"):
        return None

    def make(directory: str) -> None:
        with file_errors("make", directory):
            os.mkdir(directory, 0o700)
        kept.copy(site, f"{source}/{kept.VOLUME}", f"{directory}/{kept.VOLUME}", read_only=True)
        snapshots.link_memory(f"{source}/{kept.MEMORY}", f"{directory}/{kept.MEMORY}")
        kept.write_meta(directory, replace(meta, name="suspended"))

    return make


async def replace_volume(site: Site, effect: ReplaceVolume) -> None:
    """Put an empty volume on another template in the place of an idle VE's; such a one there is success.

    Raises: TemplateError, if the template is not built; StateError, if there is no volume; BusyError, if something of
    the VE runs; NoSpaceError; KernelError.
    """
    uid, doing = effect.uid, f"replace volume of VE {effect.uid}"
    present = switching.need_idle(site, uid, doing)
    await switching.settle(site, uid)
    digest = templates.read_index(site).get(effect.template_key)
    if digest is None:
        raise TemplateError(f"{doing}: template {effect.template} is not built")
    mark = VolumeMark(request=None, template=effect.template, template_digest=digest)
    if kept.read_mark(site, uid) == mark:
        return
    await image.await_released(image.path_in(present))

    def make(path: str) -> None:
        _make_empty(site, path, present, effect)
        switching.put_mark(path, mark)
        if effect.keep:
            _carry_over(site, uid, present, path, effect, mark)

    await switching.switch(site, uid, safety=effect.safety, make=make)


def _make_empty(site: Site, path: str, present: str, effect: ReplaceVolume) -> None:
    """Make an empty volume, counted where the present one is."""
    above = kept.group_above(site, present)
    if above is None and effect.total is not None and effect.keep and not effect.is_image:
        raise StateError(
            f"replace volume of VE {effect.uid}: what is kept is shared with the data before, which was not limited "
            "together with snapshots; leave disk.snapshots out"
        )
    btrfs.create_subvolume(path)
    if above is not None and not effect.is_image:
        qgroup.assign_qgroup(site.instance.pool, btrfs.subvolume_id(path), above)
    made = CreateVolume(
        uid=effect.uid, size=effect.size, total=effect.total, is_image=effect.is_image, room=effect.room
    )
    volume.make(site, path, made, site.need_record(effect.uid))


def _carry_over(site: Site, uid: Uid, present: str, made: str, effect: ReplaceVolume, mark: VolumeMark) -> None:
    record: Record = site.need_record(uid)
    before = templates.ensure_mounted(site, kept.base_of(site, uid)[1])
    after = templates.ensure_mounted(site, mark.template_digest)

    def carry_over(place: str) -> None:
        old_one = offline.prepared(place, volume=present, lower=before, id_base=record.id_base)
        new_one = offline.prepared(place, volume=made, lower=after, id_base=record.id_base)
        with old_one as old, new_one as new, offline.mounted(old):
            with offline.mounted(new):
                carry.make_parents(new, effect.keep)
            carry.carry_over(old, new, effect.keep)

    offline.call(site, carry_over)
