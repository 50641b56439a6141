"""Resuming: how a suspended VE comes to run again, from the memory that its processes are in.

It is created as any other, but for who makes it: criu stops as soon as there are namespaces, mounts and an init, and
goes on when that is let go. A resume that fails leaves the memory, and is tried again with the data put back that
belongs to it, as the one before may have touched them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from reconciler.errors import BusyError, CommandError, StateError
from reconciler.host import (
    compute,
    devices,
    externals,
    held_notes,
    interface_ends,
    kept,
    memory_files,
    neighbours,
    network,
    power,
    runtime,
    switching,
    views,
    volume,
)
from reconciler.host.keeper import protocol
from reconciler.host.memory_files import Memory
from reconciler.host.site import Site
from reconciler.kernel import cgroup_tree, files, overlay_index, uts
from reconciler.kernel.criu import RestoreSpec
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.restoring import Closed, Restore
from reconciler.model.identity import Uid
from reconciler.model.network import SetLoopbackUp
from reconciler.model.placement import OpenRuntime
from reconciler.model.power import CreateRuntime, PowerState, StartRuntime, launch_to_json

_RESTORE_S = 60.0
_BYTES_PER_S = 20 << 20
_GRACE_S = 30.0
_CLOSED_S = 15.0
_CLOSED_BYTES_PER_S = 50 << 20
"""One that starts closed has somebody wait for it who goes on where it was, if it does not come in time."""
_TRIED = "tried"
_BACK = "back"


def is_resumed(site: Site, uid: Uid) -> bool:
    """Say whether a created VE comes from its memory: then a file that is no FIFO tells that it is held back."""
    return os.path.isfile(runtime.of(site, uid).fifo(uid))


def prepare(site: Site, uid: Uid) -> None:
    """Put the data of a suspended VE back, if an earlier attempt may have changed them.

    Raises: StateError, if it is not suspended; KernelError; NoSpaceError.
    """
    born = site.instance.suspended_dir(uid)
    if not os.path.isdir(born):
        raise StateError(f"resume VE {uid}: it is not suspended")
    tried = f"{born}/{_TRIED}"
    if os.path.exists(tried):
        _put_back(site, uid, f"{born}/{kept.VOLUME}")
    else:
        files.write_atomic(tried, b"")


def _put_back(site: Site, uid: Uid, data: str) -> None:
    """Begin anew with the data that belong to a memory; what is done already, as the volume says, stays done."""
    present, mark = site.instance.volume(uid), kept.read_mark(site, uid)
    place = kept.begin(site, f"{site.instance.ve_dir(uid)}/{_BACK}")
    new = f"{place}/{kept.VOLUME}"
    kept.copy(site, data, new, read_only=False)
    with _limited_as(site, present, new):
        if mark is not None:
            switching.put_mark(new, mark)
    files.exchange(new, present)
    files.sync_directory(site.instance.ve_dir(uid))
    kept.delete(site, place)


@contextmanager
def _limited_as(site: Site, present: str, new: str) -> Iterator[None]:
    """Make a copy ready to be mounted, and give it the limits that are in force now, in place of those of its time."""
    if not os.path.isdir(f"{new}/work"):  # an image has no other limit than its size
        yield
        return
    size, total = volume.read_limits(site, present)
    with volume.limited_afterwards(site, new, size=size, total=total):
        overlay_index.renew(new)
        yield


def sweep(site: Site, uid: Uid) -> None:
    """Delete what a crash has left of a resume: data half put back, and a memory whose processes run.

    Raises: KernelError; StateError.
    """
    kept.delete(site, kept.unborn(f"{site.instance.ve_dir(uid)}/{_BACK}"))
    spent = memory_files.spent_dir(site, uid)
    if os.path.isdir(spent) and power.observe(site, uid).state is PowerState.RUNNING:
        kept.delete(site, spent)


async def create(site: Site, effect: CreateRuntime, overlay: OverlayMount) -> None:
    """Make a suspended VE's namespaces and mounts from its memory, with its init held back.

    Raises: CommandError, saying what cannot be restored; TimeLimitError; MissingToolError, without criu; StateError.
    """
    uid, born = effect.uid, site.instance.suspended_dir(effect.uid)
    uts.expect_fits(effect.hostname)
    memory = await asyncio.to_thread(memory_files.read, f"{born}/{kept.MEMORY}")
    await asyncio.to_thread(_clear, site, uid, memory)
    devices.allow(site, uid, _accesses(memory))
    keeper = await site.keeper()
    seen_by = await views.prepare(site)
    files.write_volatile(runtime.file(site, uid, "launch.json"), json.dumps(launch_to_json(effect.launch)).encode())
    spec = _spec(site, uid, overlay, memory)
    request = protocol.Restore(uid=uid, spec=spec)
    try:
        launched = await keeper.ask(request, protocol.Launched, timeout_s=spec.timeout_s + _GRACE_S)
    except CommandError as err:
        raise _failed(uid, err) from err
    views.note(site, uid, launched.init, seen_by)
    into = interface_ends.inside(site, uid)
    uts.set_hostname(into.uts, effect.hostname)
    network.set_loopback_up(site, SetLoopbackUp(uid=uid))


def _failed(uid: Uid, err: CommandError) -> CommandError:
    text = f"resume VE {uid}: {err}; its memory is kept, start it without to lose that"
    return CommandError(text, status=err.status, output="")


def _clear(site: Site, uid: Uid, memory: Memory) -> None:
    """Make the ground that a restore needs: nothing of an earlier runtime, and the cgroups that the VE had made."""
    files.remove_tree(os.path.dirname(runtime.of(site, uid).fifo(uid)))
    kept.delete(site, memory_files.spent_dir(site, uid))
    if site.layout.unified is not None:
        cgroup_tree.make(f"{site.layout.unified}{compute.tree(site, uid).inner}", memory.cgroups)


def _spec(site: Site, uid: Uid, overlay: OverlayMount, memory: Memory) -> Restore:
    born, scratch = site.instance.suspended_dir(uid), runtime.file(site, uid, "externals")
    images = f"{born}/{kept.MEMORY}"
    shown = externals.sources(site, memory.externals, scratch=scratch, disk=overlay.image)
    return Restore(
        criu=RestoreSpec(
            program=externals.program(site),
            images=images,
            work=memory_files.work_dir(site, uid),
            root=overlay.target,
            externals=shown.paths,
            hook=memory_files.write_hook(site),
            cgroup=compute.tree(site, uid).inner,
        ),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        overlay=overlay,
        cgroup=compute.tree(site, uid).cgroup,
        held=runtime.of(site, uid).fifo(uid),
        born=born,
        spent=memory_files.spent_dir(site, uid),
        names=memory.names,
        timeout_s=_RESTORE_S + memory_files.size_of(images) / _BYTES_PER_S,
        scratch=scratch,
        directories=shown.directories,
        nodes=shown.nodes,
        closed=Closed(
            note=held_notes.arrived_file(site, uid),
            timeout_s=_CLOSED_S + memory_files.size_of(images) / _CLOSED_BYTES_PER_S,
        ),
    )


def _accesses(memory: Memory) -> Mapping[str, str]:
    """Say what may be done with the devices that were grafted, by their numbers."""
    return {it.about["device"]: it.about["access"] for it in memory.externals.values() if it.kind == "node"}


async def start(site: Site, effect: StartRuntime) -> None:
    """Let a VE go on that is held back in its restore, and wait until its processes run.

    Raises: CommandError, saying what cannot be restored, and then nothing of it runs and its memory is kept;
    TimeLimitError.
    """
    await _release(site, effect.uid, protocol.Release(uid=effect.uid))
    await _note_running(site, effect.uid)


async def start_closed(site: Site, effect: StartRuntime) -> None:
    """Have all of a VE made that is held back in its restore, with its sockets, while nothing of it runs.

    Raises: as `start`.
    """
    uid = effect.uid
    memory = await asyncio.to_thread(memory_files.read, f"{site.instance.suspended_dir(uid)}/{kept.MEMORY}")
    neighbours.teach(site, uid, interface_ends.inside(site, uid), memory.neighbours)
    await _release(site, uid, protocol.ReleaseClosed(uid=uid))


async def open_closed(site: Site, effect: OpenRuntime) -> None:
    """Let a VE run that stands closed, and wait until its processes do; a running one is success.

    Raises: BusyError, if it was not started closed; StateError, if nothing of it is there; as `start`.
    """
    uid, seen = effect.uid, power.observe(site, effect.uid)
    if seen.state is PowerState.RUNNING:
        return
    if seen.pid is None:
        raise StateError(f"open VE {uid}: its runtime was not created")
    if not is_resumed(site, uid):
        raise BusyError(f"open VE {uid}: it was not started closed")
    await _release(site, uid, protocol.Open(uid=uid))
    await _note_running(site, uid)


async def _release(site: Site, uid: Uid, request: protocol.Release | protocol.ReleaseClosed | protocol.Open) -> None:
    keeper = await site.keeper()
    size = memory_files.size_of(f"{site.instance.suspended_dir(uid)}/{kept.MEMORY}")
    timeout_s = _RESTORE_S + size / _BYTES_PER_S + _GRACE_S
    try:
        await keeper.ask(request, protocol.Done, timeout_s=timeout_s)
    except CommandError as err:
        raise _failed(uid, err) from err


async def _note_running(site: Site, uid: Uid) -> None:
    init, spent = runtime.need_init(site, uid), memory_files.spent_dir(site, uid)
    memory = await asyncio.to_thread(memory_files.read, f"{spent}/{kept.MEMORY}")
    await asyncio.to_thread(
        externals.note_anew, site, uid, init, memory.externals, program=devices.program_of(site, uid)
    )
    with suppress(FileNotFoundError):
        os.unlink(runtime.of(site, uid).fifo(uid))
    await asyncio.to_thread(kept.delete, site, spent)
