"""Grafts: what was put into a VE's mount table, written down beside the VE, and found there again.

The kernel tells of a mount inside only its number, its place and what of which file system it shows. Why it is there
is in a file in the VE's run directory that names the init that it speaks of: a list of all that has to be known of
from outside, before a VE can be dumped for one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler.errors import KernelError, StateError
from reconciler.host import runtime
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import files, graft, mount
from reconciler.kernel.graft import Target
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.syscalls import file_errors
from reconciler.model.decode import Fields
from reconciler.model.identity import Uid

_STACKED_MAX = 64
"""The most mounts that are taken away to get at one of ours below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graft:
    """A mount of ours: its number and what the table said of it, and in ``about`` why it is there."""

    number: int
    device: str
    root: str
    about: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    pid: int
    start_time: int
    grafts: Mapping[str, Graft]


def read(site: Site, uid: Uid, kind: str, init: ProcessId) -> Mapping[str, Graft]:
    """Read what was put into the VE of an init, by target; nothing, if that was never written down.

    Shape: ``kind`` names the file.
    Raises: KernelError, StateError.
    """
    note = site.parsed.read(_file(site, uid, kind), _parse)
    return note.grafts if note is not None and (note.pid, note.start_time) == (init.pid, init.start_time) else {}


def write(site: Site, uid: Uid, kind: str, init: ProcessId, grafts: Mapping[str, Graft]) -> None:
    """Write down what is in a VE now.

    Raises: KernelError.
    """
    entries = {
        target: {"number": it.number, "device": it.device, "root": it.root, "about": dict(it.about)}
        for target, it in sorted(grafts.items())
    }
    note = {"pid": init.pid, "start_time": init.start_time, "grafts": entries}
    files.write_volatile(_file(site, uid, kind), json.dumps(note).encode())


def _file(site: Site, uid: Uid, kind: str) -> str:
    return runtime.file(site, uid, file_name(kind))


def file_name(kind: str) -> str:
    """Name the file in the VE's run directory in which grafts of a kind are written down."""
    return f"{kind}.json"


def _parse(data: bytes, *, where: str) -> _Note:
    try:
        fields = Fields(json.loads(data), where=where)
    except ValueError as err:
        raise StateError(f"read {where}: expected JSON; restart the VE to have it written anew") from err
    entries = fields.mapping("grafts")
    grafts = {target: _parse_graft(Fields(entry, where=where)) for target, entry in entries.items()}
    return _Note(pid=fields.integer("pid"), start_time=fields.integer("start_time"), grafts=grafts)


def _parse_graft(entry: Fields) -> Graft:
    return Graft(
        number=entry.integer("number"),
        device=entry.text("device"),
        root=entry.text("root"),
        about=entry.strings("about"),
    )


def in_place(pid: int, grafts: Mapping[str, Graft]) -> Mapping[str, Graft]:
    """Give those of a VE's grafts that are mounted where they were put.

    Raises: KernelError.
    """
    if not grafts:
        return {}
    table = _table(pid)
    return {target: it for target, it in grafts.items() if _is_there(table, target, it)}


def _table(pid: int) -> bytes:
    """Read the mount table of an init, which its root may have made long: only the lines that matter are parsed."""
    path = f"/proc/{pid}/mountinfo"
    with file_errors("read", path), open(path, "rb") as file:
        return b"\n" + file.read()


def _find(table: bytes, number: int) -> mount.Mount | None:
    start = table.find(b"\n%d " % number)
    if start < 0:
        return None
    line = table[start + 1 : table.find(b"\n", start + 1)]
    return mount.parse_mounts(os.fsdecode(line), path="mountinfo")[0]


def _is_there(table: bytes, target: str, it: Graft) -> bool:
    found = _find(table, it.number)
    return found is not None and (found.target, found.device, found.root) == (target, it.device, it.root)


def dev_of(into: Inside) -> int:
    """Give the number of the mount that is the VE's /dev.

    Raises: KernelError, if that is no file system in memory.
    """
    on_dev = [found for found in mount.read_mounts(into.init.pid) if found.target == "/dev"]
    if not on_dev or on_dev[-1].fstype != "tmpfs":
        raise KernelError("find the VE's /dev: its root has mounted something else there")
    return on_dev[-1].mount_id


def put(uid: Uid, into: Inside, tree: int, target: Target, *, locked: bool) -> Graft:
    """Attach a detached mount in a VE, and give what is to be written down of it.

    Raises: KernelError; StateError, if the init has ended.
    """
    path = _path_of(target)
    with _namespace(into) as namespace:
        number = (graft.graft_locked if locked else graft.graft)(namespace, tree, target)
    found = _find(_table(into.init.pid), number)
    if found is None or found.target != path:
        raise KernelError(f"attach mount at {path} of VE {uid}: it is not there afterwards")
    return Graft(number=number, device=found.device, root=found.root, about={})


def take_out(into: Inside, target: Target, it: Graft) -> None:
    """Take a graft of ours away, with what the VE's root has mounted over it; one that is not there is success.

    Raises: KernelError.
    """
    path = _path_of(target)
    with _namespace(into) as namespace:
        for _ in range(_STACKED_MAX):
            if _is_there(_table(into.init.pid), path, it):
                graft.detach(namespace, target)
                continue
            if not target.directory:
                graft.remove_file(namespace, target)
            return
    raise KernelError(f"unmount {path}: its root has mounted more than {_STACKED_MAX} others over it")


def _path_of(target: Target) -> str:
    return f"/{target.path}" if target.dev is None else f"/dev/{target.path}"


@contextmanager
def _namespace(into: Inside) -> Iterator[int]:
    """Open the VE's mount namespace for a block: held longer, it would keep the file system of a dead VE.

    Raises: StateError, in the middle of a restore, where it is still a copy of the host's.
    """
    into.expect_own_root()
    descriptor = graft.open_of(into.init.pid, "mnt", pidfd=into.process)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
