"""The directory of a memory: how it begins, what is known of it beside criu's images, and how it is taken away."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from reconciler.errors import StateError
from reconciler.host import externals, image, kept, neighbours, runtime
from reconciler.host.externals import External
from reconciler.host.neighbours import Known
from reconciler.host.site import Site
from reconciler.kernel import files
from reconciler.kernel.cgroup_tree import CgroupOwners
from reconciler.kernel.criu import HOOK, IMAGES_MODE
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.syscalls import file_errors
from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import Uid
from reconciler.model.kept import KeptMeta, decode_meta
from reconciler.model.network import Interface
from reconciler.model.power import Launch, MemoryObservation
from reconciler.model.snapshots import SnapshotKind

FORMAT = 1
_FILE = "ve.json"
_META = "meta.json"
_REMEDY = "start the VE without its memory"
_SPENT = ".spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of processes on disk.

    ``addresses``: those of the VE, which its sockets may be bound to. ``neighbours``: those that it had learnt of.
    Shape: ``names`` by pid inside; ``externals`` by where they are shown; ``cgroups`` by the path below the VE's own.
    """

    boot_id: str
    init: ProcessId
    names: Mapping[str, str]
    externals: Mapping[str, External]
    cgroups: Mapping[str, CgroupOwners]
    addresses: frozenset[Interface] = frozenset()
    neighbours: tuple[Known, ...] = ()


def begin(site: Site, uid: Uid, born: str) -> str:
    """Make the directory that is to become that of a suspended VE's memory, in place of one that never did.

    Raises: StateError; TemplateError; KernelError; NoSpaceError.
    """
    template, digest = kept.base_of(site, uid)
    meta = KeptMeta(
        name=os.path.basename(born),
        kind=SnapshotKind.SAFETY,
        taken_at=time.time(),
        template=template,
        template_digest=digest,
        is_image=os.path.exists(image.path_in(site.instance.volume(uid))),
        launch=runtime.read_launch(site, uid),
    )
    unborn = kept.begin(site, born)
    kept.write_meta(unborn, meta)
    return unborn


def write_hook(site: Site) -> str:
    """Give the file that criu executes at its actions; not in the run directory, whence often nothing may be executed.

    Raises: KernelError.
    """
    path = f"{site.instance.state_dir}/criu-hook"
    files.write_volatile(path, HOOK.encode(), mode=0o700)
    return path


def write(images: str, memory: Memory) -> None:
    """Make a directory of images with what is known of them.

    Raises: KernelError; NoSpaceError.
    """
    with file_errors("make", images):
        os.makedirs(images, exist_ok=True)
        os.chmod(images, IMAGES_MODE)
    init = memory.init
    about: dict[str, Json] = {
        "init": {"boot_id": memory.boot_id, "pid": init.pid, "start_time": init.start_time},
        "names": dict(memory.names),
        "addresses": [*sorted(map(str, memory.addresses))],
        "neighbours": neighbours.to_json(memory.neighbours),
        "externals": externals.to_json(memory.externals),
        "cgroups": {below: _cgroup_to_json(it) for below, it in memory.cgroups.items()},
    }
    files.write_whole(f"{images}/{_FILE}", render_object(about, format=FORMAT))


def read(images: str) -> Memory:
    """Read what is known of a directory of images.

    Raises: StateError, if that is damaged or not there; KernelError.
    """
    path = f"{images}/{_FILE}"
    data = files.read_bytes_if_exists(path)
    if data is None:
        raise StateError(f"read {path}: no such file; {_REMEDY}")
    fields = parse_object(data, format=FORMAT, where=path, remedy=_REMEDY)
    init = fields.fields("init")
    return Memory(
        boot_id=init.text("boot_id"),
        init=ProcessId(pid=init.integer("pid"), start_time=init.integer("start_time")),
        names=fields.strings("names"),
        addresses=frozenset(map(ip_interface, fields.texts("addresses"))),
        neighbours=neighbours.from_json(fields) if "neighbours" in fields.names() else (),
        externals=externals.from_json(fields.fields("externals")),
        cgroups={below: _cgroup_from_json(it) for below, it in _each(fields, "cgroups")},
    )


def _each(fields: Fields, key: str) -> list[tuple[str, Fields]]:
    inner = fields.fields(key)
    return [(name, inner.fields(name)) for name in inner.names()]


def _cgroup_to_json(it: CgroupOwners) -> Json:
    return {
        "owner": list(it.owner),
        "files": {name: list(owner) for name, owner in it.files.items()},
        "controllers": list(it.controllers),
        "threaded": it.threaded,
    }


def _cgroup_from_json(fields: Fields) -> CgroupOwners:
    return CgroupOwners(
        owner=_owner(fields, "owner"),
        files={name: _owner(fields.fields("files"), name) for name in fields.fields("files").names()},
        controllers=fields.texts("controllers"),
        threaded=fields.flag("threaded"),
    )


def _owner(fields: Fields, key: str) -> tuple[int, int]:
    user, group = (int(number) for number in fields.floats(key))
    return user, group


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """What a memory tells at a look: what it was made with, if that can be read, and what is to be seen of it."""

    launch: Launch | None
    seen: MemoryObservation


def look(site: Site, uid: Uid) -> Suspended | None:
    """Look whether a VE has a memory on disk.

    Raises: StateError; KernelError.
    """
    directory = site.instance.suspended_dir(uid)
    found = site.parsed.read(f"{directory}/{_META}", _parse_meta)
    if found is None:
        return None
    addresses = site.parsed.read(f"{directory}/{kept.MEMORY}/{_FILE}", _parse_addresses)
    return found if addresses is None else replace(found, seen=replace(found.seen, addresses=addresses))


def _parse_addresses(data: bytes, *, where: str) -> frozenset[Interface]:
    """Read the addresses of a memory; of one that is damaged there are none, and whoever resumes it hears why."""
    try:
        fields = parse_object(data, format=FORMAT, where=where, remedy=_REMEDY)
        return frozenset(map(ip_interface, fields.texts("addresses")))
    except (StateError, ValueError):
        return frozenset()


def _parse_meta(data: bytes, *, where: str) -> Suspended:
    """Read what a memory is; one that is damaged is one all the same, which may have to be given up."""
    size = size_of(f"{os.path.dirname(where)}/{kept.MEMORY}")
    try:
        meta = decode_meta(data, where=where)
    except StateError:
        with file_errors("look at", where):
            return Suspended(launch=None, seen=MemoryObservation(suspended_at=os.stat(where).st_mtime, size=size))
    return Suspended(launch=meta.launch, seen=MemoryObservation(suspended_at=meta.taken_at, size=size))


def size_of(images: str) -> int:
    """Add up the files of a directory of images; nothing, if there is none. Units: bytes.

    Raises: KernelError.
    """
    if not os.path.isdir(images):
        return 0
    with file_errors("look at", images), os.scandir(images) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)


def spent_dir(site: Site, uid: Uid) -> str:
    """Give the name of a memory whose processes run, until it is removed."""
    return f"{site.instance.ve_dir(uid)}/{_SPENT}"


def work_dir(site: Site, uid: Uid) -> str:
    """Give the directory that criu works in at a VE."""
    return runtime.file(site, uid, "criu")
