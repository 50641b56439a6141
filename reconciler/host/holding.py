"""Holding: a VE that is about to leave, written to disk and standing still until somebody says what becomes of it.

Who holds it is a child of the keeper, with criu before its last step. Should any of them be killed, the VE stays as it
is, and whoever is then asked finds it by a note beside it.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from reconciler.errors import BusyError, CommandError, KeeperError, KernelError, StateError, VectlError
from reconciler.host import (
    compute,
    cutting,
    ending,
    held_notes,
    interface_ends,
    kept,
    memory,
    memory_files,
    parcel_notes,
    power,
    preflight,
    runtime,
    snapshots,
)
from reconciler.host.keeper import protocol
from reconciler.host.site import Site
from reconciler.kernel import announce, btrfs, dumping
from reconciler.kernel.dumping import Hold
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.effects import Effect, effect_name, touched_by
from reconciler.model.identity import Uid, link_alias
from reconciler.model.placement import EndHeld, Held, HoldRuntime, ResumeHeld
from reconciler.model.power import PowerObservation, PowerState

_DECIDE_S = 90.0
_LEADING_S = 10.0


def refuse_held(site: Site, effect: Effect) -> None:
    """Refuse what would touch a VE that is held to leave.

    Raises: BusyError; StateError; KernelError.
    """
    for uid in touched_by(effect):
        move = held_notes.move_of(site, uid)
        if move is not None:
            raise BusyError(f"{effect_name(effect)} of VE {uid}: it stands still on behalf of move {move}")


async def hold(site: Site, effect: HoldRuntime) -> None:
    """Write a running VE and its data, and hold it, its network cut; held for that move is success.

    Raises: StateError, if it does not run; BusyError, if its init was never let go, or it is held for another move;
    NotSuspendableError; CommandError, saying what cannot be written, and then it goes on.
    """
    uid, doing, init = effect.uid, f"hold VE {effect.uid}", runtime.read_init(site, effect.uid)
    directory = parcel_notes.directory_of(site, uid, effect.move)
    if effect.number < 0:
        raise StateError(f"{doing}: expected a number from 0 on")
    seen = power.observe(site, uid)
    if seen.pid is None or init is None:
        raise StateError(f"{doing}: it does not run")
    if seen.held is Held.LEAVING:
        _need_move(site, uid, effect.move, doing)
        if not os.path.isdir(f"{directory}/{kept.MEMORY}"):
            raise StateError(f"{doing}: what was written of it is gone; let it go on")
        cutting.cut(site, uid, init)
        return
    _need_free(seen, parcel_notes.data_in(directory, effect.number), doing)
    await preflight.refuse_obstacles(site, uid, doing=doing)
    snapshots.need_space(site, kept.need_volume(site, uid, doing), doing)
    await _hold(site, effect, init, directory)
    try:
        cutting.cut(site, uid, init)
    except VectlError:
        await _let_go(site, uid, init, directory)
        raise


def _need_free(seen: PowerObservation, data: str, doing: str) -> None:
    if seen.state is not PowerState.RUNNING or seen.memory is not None:
        raise BusyError(f"{doing}: its init was not let go yet, or is being suspended")
    if btrfs.is_subvolume(data):
        raise StateError(f"{doing}: there is a {data} already")


async def _hold(site: Site, effect: HoldRuntime, init: ProcessId, directory: str) -> None:
    uid, born = effect.uid, f"{directory}/{kept.MEMORY}"
    cutting.begin(site, uid)
    await asyncio.to_thread(kept.remove, site, born)
    unborn = await asyncio.to_thread(memory_files.begin, site, uid, born)
    held = Hold(
        data=parcel_notes.data_in(directory, effect.number),
        note=held_notes.note(site, uid, init, effect.move),
    )
    into = interface_ends.inside(site, uid)
    spec = await asyncio.to_thread(memory.dump_of, site, uid, into, unborn=unborn, born=born, note=None, hold=held)
    keeper = await site.keeper()
    try:
        request = protocol.Hold(uid=uid, spec=spec)
        await keeper.ask(request, protocol.Done, timeout_s=spec.timeout_s + memory.GRACE_S)
    except CommandError as err:
        for path in (unborn, born):
            await asyncio.to_thread(kept.delete, site, path)
        raise memory.goes_on(uid, err) from err


async def resume(site: Site, effect: ResumeHeld) -> None:
    """Let a VE go on that is held, connected as before; nothing is left of what was written but the data.

    Raises: BusyError, if it is held for another move; KeeperError, if who holds it does not answer; KernelError.
    """
    uid, doing = effect.uid, f"let VE {effect.uid} go on"
    directory = parcel_notes.directory_of(site, uid, effect.move)
    init = runtime.read_init(site, uid)
    if init is None or power.observe(site, uid).held is not Held.LEAVING:
        return
    _need_move(site, uid, effect.move, doing)
    await _let_go(site, uid, init, directory)


async def _let_go(site: Site, uid: Uid, init: ProcessId, directory: str) -> None:
    cutting.connect(site, uid, init)
    await _decide(site, uid, init, resume=True)
    with suppress(VectlError):  # the neighbours learn it from whatever it sends, too
        _announce(site, uid)
    await asyncio.to_thread(kept.remove, site, f"{directory}/{kept.MEMORY}")


def _announce(site: Site, uid: Uid) -> None:
    into, alias = interface_ends.inside(site, uid), link_alias(site.instance.name, uid)
    for found in into.rtnl.dump_links():
        if found.alias == alias and found.up and found.mac is not None:
            announce.announce(into.rtnl, found.index, found.mac)


async def end(site: Site, effect: EndHeld) -> None:
    """End a VE that is held; nothing that it talks to hears of it. Ended is success.

    Raises: BusyError, if it is not held, or for another move; KeeperError; KernelError.
    """
    uid, doing = effect.uid, f"end VE {effect.uid}"
    parcel_notes.directory_of(site, uid, effect.move)
    seen, init = power.observe(site, uid), runtime.read_init(site, uid)
    if seen.pid is None or init is None:
        return
    if seen.held is not Held.LEAVING:
        raise BusyError(f"{doing}: it is not held")
    _need_move(site, uid, effect.move, doing)
    cutting.close(site, uid)
    runtime.note(site, uid, "stop.json", init)
    await _decide(site, uid, init, resume=False)
    await ending.await_exit_record(site, uid, init)
    held_notes.forget(site, uid)
    cutting.begin(site, uid)


def _need_move(site: Site, uid: Uid, move: str, doing: str) -> None:
    held_for = held_notes.move_of(site, uid)
    if held_for != move:
        raise BusyError(f"{doing}: it stands still on behalf of move {held_for}, not {move}")


async def _decide(site: Site, uid: Uid, init: ProcessId, *, resume: bool) -> None:
    """Tell who holds a VE what becomes of it, or do that, if nobody lives who does."""
    keeper = await site.keeper()
    try:
        await keeper.ask(protocol.Decide(uid=uid, resume=resume), protocol.Done, timeout_s=_DECIDE_S)
    except (KeeperError, CommandError):
        await asyncio.to_thread(_decide_alone, site, uid, init, resume=resume)


def _decide_alone(site: Site, uid: Uid, init: ProcessId, *, resume: bool) -> None:
    tree, work = compute.tree(site, uid), memory_files.work_dir(site, uid)
    with dumping.leading(work, wait_s=_LEADING_S):
        if not site.inits.is_alive(init):
            return
        if resume:
            held_notes.forget(site, uid)
            dumping.let_go(tree, init.pid, work=work, note=None)
        else:
            tree.kill()
    if not resume and tree.exists() and tree.processes():
        raise KernelError(f"kill VE {uid}: something of it is still there")
