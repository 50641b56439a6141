"""Capturing: an image made of what a VE saw when a snapshot was taken, so that other VEs can be made from it.

It is read through an overlay as the VE's own: only with the index does a file that the template has by several names
show what was written to it by one of them under all. That takes a volume that can be written to, so a copy.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from reconciler.errors import BusyError, NoSpaceError, StateError
from reconciler.host import cloning, image, kept, offline, snapshots, templates, trees
from reconciler.host.lxcfs import TARGETS
from reconciler.host.site import Site
from reconciler.kernel import erofs, overlay_index, profile, qgroup
from reconciler.kernel import image as disks
from reconciler.model.identity import Digest, Uid
from reconciler.model.volume import CaptureTemplate

_PLACE = "capture"
_ROOM_BYTES, _ROOM_FILES = 16 << 20, 256
_GROWTH = 256 << 20  # a whole group of ext4 and more, so that there is room for files as well


async def capture(site: Site, effect: CaptureTemplate) -> None:
    """Make an image of a snapshot of a VE, without what tells that VE from another; the VE goes on meanwhile.

    Raises: StateError, if there is no such snapshot; BusyError, if an image is being made of the VE already;
    TemplateError; CommandError; MissingToolError; NoSpaceError; KernelError.
    """
    site.need_record(effect.uid)
    doing = f"make template {effect.name} of VE {effect.uid}"
    directory = f"{site.instance.snapshots_dir(effect.uid)}/{kept.need_name(effect.snapshot)}"
    meta = kept.read_meta(site, directory)
    if meta is None:
        raise StateError(f"{doing}: it has no snapshot {effect.snapshot}")
    source = f"{directory}/{kept.VOLUME}"
    snapshots.need_space(site, source, doing)
    await asyncio.to_thread(_capture, site, effect, source, meta.template_digest)


def _capture(site: Site, effect: CaptureTemplate, source: str, digest: Digest) -> None:
    record = site.need_record(effect.uid)
    seen = f"{record.name}@{effect.snapshot}"
    site.told(f"{effect.name}: merging {seen} with its template")
    lower = templates.ensure_mounted(site, digest)
    with templates.scratch_of(site.instance.templates) as scratch:
        merged = f"{scratch}/image.erofs"
        with _copied(site, effect, source) as volume:

            def merge(place: str) -> None:
                prepared = offline.prepared(place, volume=volume, lower=lower, id_base=0)
                with prepared as spec, offline.mounted(spec):
                    profile.apply(spec.target, init=record.init[0], directories=trees.DIRECTORIES, files=TARGETS)
                    erofs.make_image(spec.target, merged, uuid=str(uuid.uuid4()), epoch=int(time.time()))

            offline.call(site, merge)
        templates.publish_captured(site, merged, effect.name, source=f"VE {seen}")


@contextmanager
def _copied(site: Site, effect: CaptureTemplate, source: str) -> Iterator[str]:
    """Make a copy of a kept volume for the block, ready to be mounted, with owners that count from 0."""
    born = f"{site.instance.ve_dir(effect.uid)}/{_PLACE}"
    with _alone(site, effect.uid):
        made = f"{kept.begin(site, born)}/{kept.VOLUME}"
        try:
            kept.copy(site, source, made, read_only=False)
            _make_ready(made)
            yield made
        except NoSpaceError as err:
            raise NoSpaceError(f"make template {effect.name}, which takes a copy of the snapshot: {err}") from err
        finally:
            kept.delete(site, kept.unborn(born))


def _make_ready(made: str) -> None:
    """Make a copy ready to be mounted. The group above, which holds the VE as well, keeps its limit."""
    file = image.path_in(made)
    if os.path.exists(file):
        _make_room(file)
        cloning.shift_image(file, to=0)
    else:
        qgroup.set_limit(made, None)
        overlay_index.renew(made)


def _make_room(file: str) -> None:
    """Let an image that is nearly full take what a template has and the VE has not."""
    with disks.opened(file, quotas=image.has_quotas(file)) as root:
        seen = os.fstatvfs(root)
    if seen.f_bavail * seen.f_frsize < _ROOM_BYTES or seen.f_favail < _ROOM_FILES:
        asyncio.run(image.await_released(file))  # in this thread: a child may hold the device a moment longer
        image.set_size(file, os.stat(file).st_size + _GROWTH)


@contextmanager
def _alone(site: Site, uid: Uid) -> Iterator[None]:
    """Keep other processes from the copy: commands make templates beside the agent, which sweeps when it starts.

    Raises: BusyError, if one makes an image of the VE.
    """
    with offline.opened(site.instance.ve_dir(uid)) as directory:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise BusyError(f"make template of VE {uid}: another one is being made; try again afterwards") from err
        try:
            yield
        finally:
            fcntl.flock(directory, fcntl.LOCK_UN)  # closing alone would not free it where a child has inherited it


def sweep(site: Site, uid: Uid) -> None:
    """Delete the copy that a crash has left, not one that somebody reads from.

    Raises: KernelError.
    """
    with suppress(BusyError), _alone(site, uid):
        kept.delete(site, kept.unborn(f"{site.instance.ve_dir(uid)}/{_PLACE}"))
