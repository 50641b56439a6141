"""The trash: VEs that were removed, each with all that was in its directory, until they are restored or purged."""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import suppress

from reconciler.errors import BusyError, StateError
from reconciler.host import compute, ending, images, kept, power
from reconciler.host.site import Site
from reconciler.host.volume import Quotas
from reconciler.kernel import btrfs, files
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid
from reconciler.model.record import decode_record, encode_record
from reconciler.model.volume import PurgeTrash, RestoreVe, TrashEntry, TrashVe

_TRASH_ID = re.compile(r"([0-9a-f-]{36})\.(\d{1,12})\Z")


async def remove(site: Site, effect: TrashVe) -> None:
    """Move a VE that does not run into the trash; absent is success.

    Raises: BusyError, if something of it still runs.
    """
    uid, instance = effect.uid, site.instance
    if not os.path.isdir(instance.ve_dir(uid)):
        return
    if power.observe(site, uid).pid is not None or compute.tree(site, uid).exists():
        raise BusyError(f"move VE {uid} to the trash: it has not been taken down")
    await asyncio.to_thread(_move_to_trash, site, uid)
    ending.forget(site, uid)
    site.kept.pop(uid, None)


def _move_to_trash(site: Site, uid: Uid) -> None:
    instance = site.instance
    os.makedirs(instance.trash, mode=0o700, exist_ok=True)
    os.rename(instance.ve_dir(uid), _free_entry(f"{instance.trash}/{uid}", int(time.time())))
    files.sync_directory(instance.trash)
    files.sync_directory(instance.ves)


def _free_entry(stem: str, second: int) -> str:
    """Find a name that no entry has: a VE may be removed, restored and removed again within a second."""
    directory, uid = os.path.split(stem)
    taken = [int(match[2]) for name in os.listdir(directory) if (match := _TRASH_ID.match(name)) and match[1] == uid]
    return f"{stem}.{max([second, *(other + 1 for other in taken)])}"


def restore(site: Site, effect: RestoreVe) -> None:
    """Move a VE back out of the trash; a VE that is there is success.

    Raises: StateError, if the trash has no such entry, or one without its record.
    """
    target = site.instance.ve_dir(effect.uid)
    if os.path.isdir(target):
        return
    source = _entry_path(site, effect.trash_id)
    if not (effect.trash_id.startswith(f"{effect.uid}.") and os.path.isdir(source)):
        raise StateError(f"restore VE {effect.uid}: the trash has no entry {effect.trash_id!r} of it")
    file = f"{source}/record.json"
    content = files.read_bytes_if_exists(file)
    record = None if content is None else decode_record(content, where=file)
    if record is None or record.uid != effect.uid:
        raise StateError(f"restore VE {effect.uid}: the record in {source} is not its own; look at that directory")
    done = record.with_done(effect.requests_done)
    if done != record:
        files.write_whole(file, encode_record(done))
    os.rename(source, target)
    files.sync_directory(site.instance.ves)
    files.sync_directory(site.instance.trash)


async def purge(site: Site, effect: PurgeTrash) -> None:
    """Delete an entry of the trash with its data; absent is success.

    Raises: StateError, for what cannot be an entry's name.
    """
    path, doomed = _entry_path(site, effect.trash_id), f"{site.instance.trash}/.{effect.trash_id}"
    if os.path.isdir(path):
        with suppress(StateError):
            images.touch(site, *{digest for _, digest in images.users_in(site, path)})
        os.rename(path, doomed)
    await asyncio.to_thread(kept.delete, site, doomed)


def _entry_path(site: Site, trash_id: str) -> str:
    if _TRASH_ID.match(trash_id) is None:
        raise StateError(f"look up {trash_id!r} in the trash: expected <uid>.<seconds>; see `vectl trash list`")
    return f"{site.instance.trash}/{trash_id}"


def observe(site: Site, quotas: Quotas) -> tuple[TrashEntry, ...] | Unknown:
    """List the trash, oldest first; one entry that cannot be read makes all of it unknown."""
    entries = []
    for name in os.listdir(site.instance.trash):
        if name.startswith("."):
            continue
        match = _TRASH_ID.match(name)
        path = f"{site.instance.trash}/{name}"
        data = files.read_bytes_if_exists(f"{path}/record.json")
        if match is None or data is None:
            return Unknown(f"{path} is not an entry of the trash; move it away")
        record = decode_record(data, where=f"{path}/record.json")
        group = quotas.groups.get(btrfs.subvolume_id(f"{path}/volume")) if os.path.isdir(f"{path}/volume") else None
        used = group.referenced if group else None
        needed = frozenset(digest for _, digest in images.users_in(site, path))
        entries.append(TrashEntry(id=name, trashed_at=float(match[2]), record=record, used=used, images=needed))
    return tuple(sorted(entries, key=lambda entry: (entry.trashed_at, entry.id)))
