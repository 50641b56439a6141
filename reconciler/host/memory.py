"""Memory: VEs whose processes are on disk, written by criu and restored from there.

A memory belongs to the state that the data had at the same instant, which is kept beside it. It is whole as soon as
its directory has its name, and spent when what was restored from it runs.
"""

from __future__ import annotations

import asyncio
import json
import os

from reconciler.errors import BusyError, CommandError, StateError
from reconciler.host import (
    compute,
    ending,
    externals,
    image,
    interface_ends,
    kept,
    memory_files,
    neighbours,
    network,
    power,
    preflight,
    quota,
    runtime,
)
from reconciler.host.keeper import protocol, records
from reconciler.host.memory_files import Memory
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import cgroup_tree, cgroup_use
from reconciler.kernel.criu import DumpSpec
from reconciler.kernel.dumping import Dump, Hold, Note, Volume
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.identity import Uid
from reconciler.model.power import DiscardMemory, PowerState, SuspendRuntime

_DUMP_S = 60.0
_BYTES_PER_S = 20 << 20
GRACE_S = 30.0
"""How much longer than a dump may take its end is waited for. Units: seconds."""


async def suspend(site: Site, effect: SuspendRuntime) -> None:
    """Write a running VE to disk and end it; that it was our doing is written down.

    Raises: StateError, if it does not run; BusyError, if its init was never let go; NotSuspendableError, if something
    in it cannot be saved; CommandError, saying what cannot be written, and then it goes on.
    """
    uid, seen = effect.uid, power.observe(site, effect.uid)
    if seen.state is PowerState.SUSPENDED:
        return
    if seen.state is PowerState.CREATED:
        raise BusyError(f"suspend VE {uid}: its init was not let go yet; delete its runtime instead")
    init = runtime.need_init(site, uid)
    born = site.instance.suspended_dir(uid)
    if os.path.isdir(born):
        await _end_suspended(site, uid, init, born)
        return
    await preflight.refuse_obstacles(site, uid, doing=f"suspend VE {uid}")
    unborn = await asyncio.to_thread(memory_files.begin, site, uid, born)
    note = Note(path=runtime.file(site, uid, "stop.json"), text=json.dumps([init.pid, init.start_time]))
    try:
        await dump(site, uid, unborn=unborn, born=born, note=note)
    except CommandError:  # of any other we do not know whether it goes on without us
        await asyncio.to_thread(kept.delete, site, unborn)
        raise
    await ending.await_exit_record(site, uid, init)


async def _end_suspended(site: Site, uid: Uid, init: ProcessId, born: str) -> None:
    """End what is left of a VE whose memory is whole: whoever wrote it was killed before that."""
    memory = memory_files.read(f"{born}/{kept.MEMORY}")
    if (memory.boot_id, memory.init) != (records.boot_id(), init):
        raise StateError(f"suspend VE {uid}: {born} holds the memory of an earlier run; discard that first")
    runtime.note(site, uid, "stop.json", init)
    await asyncio.to_thread(compute.tree(site, uid).kill)
    await ending.await_exit_record(site, uid, init)


async def dump(site: Site, uid: Uid, *, unborn: str, born: str, note: Note | None) -> None:
    """Write a running VE into a directory that then gets its name: its processes, and its data as of that instant.

    ``unborn`` is there, with all that belongs into it beside these. ``note``: the VE ends with it; None lets it go on.
    Raises: CommandError, if it failed; KeeperError or TimeLimitError, if it may go on without us; MissingToolError;
    StateError, if the VE does not run.
    """
    into = interface_ends.inside(site, uid)
    spec = await asyncio.to_thread(dump_of, site, uid, into, unborn=unborn, born=born, note=note)
    request = protocol.Dump(uid=uid, spec=spec)
    keeper = await site.keeper()
    try:
        await keeper.ask(request, protocol.Done, timeout_s=spec.timeout_s + GRACE_S)
    except CommandError as err:
        raise goes_on(uid, err) from err


def goes_on(uid: Uid, err: CommandError) -> CommandError:
    """Say of what kept a VE from being written that it did no harm."""
    return CommandError(f"write VE {uid} to disk: {err}; it goes on", status=err.status, output="")


def dump_of(
    site: Site, uid: Uid, into: Inside, *, unborn: str, born: str, note: Note | None, hold: Hold | None = None
) -> Dump:
    """Say how a VE is written to disk, and write beside what is known of it.

    Raises: StateError; MissingToolError; KernelError; NoSpaceError.
    """
    tree, init = compute.tree(site, uid), into.init
    pids = tree.processes()
    names, names_inside = externals.process_names(pids)
    memory = Memory(
        boot_id=records.boot_id(),
        init=init,
        names=names_inside,
        externals=externals.find(site, uid, init, pids),
        addresses=network.find_addresses(site, uid, into),
        neighbours=neighbours.find(site, uid, into),
        cgroups=cgroup_tree.read(f"{site.layout.unified}{tree.inner}") if site.layout.unified else {},
    )
    images = f"{unborn}/{kept.MEMORY}"
    memory_files.write(images, memory)
    return Dump(
        criu=DumpSpec(
            program=externals.program(site),
            pid=init.pid,
            images=images,
            work=memory_files.work_dir(site, uid),
            freezer=tree.freezer_directory,
            externals={target: target for target in memory.externals},
            hook=memory_files.write_hook(site),
            leave_running=note is None and hold is None,
        ),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        cgroup=tree.cgroup,
        unborn=unborn,
        born=born,
        volume=_volume(site, uid),
        note=note,
        names=names,
        hold=hold,
        timeout_s=_DUMP_S + (cgroup_use.read_use(site.layout, tree.cgroup).memory or 0) / _BYTES_PER_S,
    )


def _volume(site: Site, uid: Uid) -> Volume:
    path = site.instance.volume(uid)
    group, device = kept.group_above(site, path), quota.device_of(site, uid)
    if device is None:
        return Volume(path=path, group=group)
    return Volume(path=path, group=group, device=device, quotas=image.has_quotas(image.path_in(path)))


async def discard(site: Site, effect: DiscardMemory) -> None:
    """Delete the memory of a suspended VE; absent is success.

    Raises: BusyError, if its init is just being made from it; KernelError.
    """
    uid, born = effect.uid, site.instance.suspended_dir(effect.uid)
    if not os.path.isdir(born):
        return
    seen = power.observe(site, uid)
    if seen.pid is not None:
        raise BusyError(f"discard the memory of VE {uid}: its init {seen.pid} comes from it")
    await asyncio.to_thread(kept.remove, site, born)
