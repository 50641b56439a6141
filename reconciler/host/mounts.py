"""Mounts: directories of the host in a VE, with the owners on disk for the VE's own."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import KernelError, RefusedError
from reconciler.host import grafts, interface_ends
from reconciler.host.grafts import Graft
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import detached, graft
from reconciler.kernel.graft import Target
from reconciler.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.syscalls import AT_FDCWD
from reconciler.model.identity import Uid
from reconciler.model.mounts import AddMount, MountsObservation, MountSpec, RemoveMount

_KIND = "mounts"

NOTES = frozenset({grafts.file_name(_KIND)})
"""Where it is written down what of the host is in a VE."""

NOTHING = MountsObservation()


def observe(site: Site, uid: Uid, init: ProcessId) -> MountsObservation:
    """Look at which directories of the host are where they were put.

    Raises: KernelError, StateError.
    """
    noted = grafts.read(site, uid, _KIND, init)
    if not noted:
        return NOTHING
    there = grafts.in_place(init.pid, noted)
    return MountsObservation(mounts={target: _mount_of(it) for target, it in there.items()})


def _mount_of(it: Graft) -> MountSpec:
    return MountSpec(source=it.about["source"], read_only=it.about["flags"] == "ro")


async def add(site: Site, effect: AddMount) -> None:
    """Show a directory in a VE, in the place of another one of ours.

    Raises: StateError, if the VE does not run; RefusedError, if the directory is vectl's own; KernelError, if there is
    none, if its file system cannot show other owners, or if the VE's root has something mounted there.
    """
    into = interface_ends.inside(site, effect.uid)
    await asyncio.to_thread(_add, site, effect, into)


def _add(site: Site, effect: AddMount, into: Inside) -> None:
    uid, path, wanted = effect.uid, effect.target, effect.mount
    noted = dict(grafts.read(site, uid, _KIND, into.init))
    there = grafts.in_place(into.init.pid, noted).get(path)
    if there is not None and _mount_of(there) == wanted:
        return
    target = _target(site, uid, path)
    with _tree(site, wanted, into) as tree:
        if there is not None:
            grafts.take_out(into, target, there)
        made = grafts.put(uid, into, tree, target, locked=True)
    about = {"source": wanted.source, "flags": "ro" if wanted.read_only else ""}
    noted[path] = Graft(number=made.number, device=made.device, root=made.root, about=about)
    grafts.write(site, uid, _KIND, into.init, noted)


def _target(site: Site, uid: Uid, path: str) -> Target:
    return Target(path=path.strip("/"), owner=site.need_record(uid).id_base)


@contextmanager
def _tree(site: Site, wanted: MountSpec, into: Inside) -> Iterator[int]:
    """Open the directory, judge what was opened, and make a detached mount of exactly that."""
    source = _open_source(wanted.source)
    try:
        _refuse_own(site, wanted.source)
        tree = detached.clone_at(source, "", what=wanted.source)
    finally:
        os.close(source)
    try:
        _restrict(tree, wanted, into)
        yield tree
    finally:
        os.close(tree)


def _open_source(source: str) -> int:
    """Open a directory of the host without following links: another VE's root may have made them."""
    try:
        return openat2(AT_FDCWD, source, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)
    except KernelError as err:
        if err.errno == errno.ELOOP:
            text = f"mount {source}: expected no symbolic link on the way; name the directory that it leads to"
            raise KernelError(text, errno=err.errno) from err
        if err.errno in (errno.ENOENT, errno.ENOTDIR):
            raise KernelError(f"mount {source}: this host has no such directory; make it", errno=err.errno) from err
        raise


def _refuse_own(site: Site, source: str) -> None:
    """Keep a VE's root off what belongs to vectl and to other VEs."""
    instance = site.instance
    for own in (instance.state_dir, instance.run_dir, instance.pool_path or instance.state_dir):
        real = os.path.realpath(own)
        if os.path.commonpath((real, source)) in (real, source):
            raise RefusedError(f"mount {source}: {real}, which is vectl's own, is in it or around it; name another one")


def _restrict(tree: int, wanted: MountSpec, into: Inside) -> None:
    users = graft.open_of(into.init.pid, "user", pidfd=into.process)
    try:
        detached.restrict(tree, wanted.source, id_map=users, read_only=wanted.read_only)
    except KernelError as err:
        if err.errno != errno.EINVAL:
            raise
        text = "its file system cannot show its files to a VE as the VE's own; name a directory of another one"
        raise KernelError(f"mount {wanted.source}: {text}", errno=err.errno) from err
    finally:
        os.close(users)


async def remove(site: Site, effect: RemoveMount) -> None:
    """Take a directory of the host out of a VE; absent is success.

    Raises: StateError, if the VE does not run; KernelError.
    """
    into = interface_ends.inside(site, effect.uid)
    await asyncio.to_thread(_remove, site, effect, into)


def _remove(site: Site, effect: RemoveMount, into: Inside) -> None:
    uid, path = effect.uid, effect.target
    noted = dict(grafts.read(site, uid, _KIND, into.init))
    present = noted.pop(path, None)
    if present is None:
        return
    grafts.take_out(into, _target(site, uid, path), present)
    grafts.write(site, uid, _KIND, into.init, noted)
