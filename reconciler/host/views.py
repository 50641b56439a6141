"""Views: what a VE sees of memory, CPUs, load and uptime in its ``/proc`` and ``/sys``.

Whether it is its own is told by a note that names the VE's init and the lxcfs that it was given: two numbers to
compare, and no file of an lxcfs to touch, which may hang. What the VE's root changes in his own mount table is his.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from reconciler.errors import ReadBackError, VectlError
from reconciler.host import bundle, lxcfs, runtime
from reconciler.host.keeper import protocol
from reconciler.host.lxcfs import Running
from reconciler.host.site import Site
from reconciler.kernel import files, mount
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.views import Shown, ShowSpec
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities
from reconciler.model.power import PowerObservation
from reconciler.model.views import PATH, ShowViews, Views

_NOTE = "views.json"
_SHOW_S = 10.0

_Note: TypeAlias = "tuple[tuple[int, int], tuple[int, int]] | None"
"""Pid and start time of the VE's init and of the lxcfs whose files it sees."""


def capabilities(site: Site, others: Capabilities) -> Capabilities:
    """Add to what a host can do why VEs see the host's views, if they do now."""
    try:
        why = site.lxcfs.obstacle()
    except VectlError as err:
        why = str(err)
    return replace(others, why_not={**others.why_not, PATH: why}) if why else others


def observe(site: Site, uid: Uid, power: PowerObservation, running: Running | None) -> Views | None:
    """Tell what a VE sees; None, if nothing of it runs. ``running``: the lxcfs that there is.

    Raises: KernelError, StateError.
    """
    if power.pid is None:
        return None
    note = site.parsed.read(runtime.file(site, uid, _NOTE), _parse)
    if note is None or note[0] != (power.pid, power.start_time):
        return Views.HOST
    return Views.OWN if running is not None and note[1] == _numbers(running.process) else Views.BROKEN


async def prepare(site: Site) -> Running | None:
    """Give the lxcfs for a VE that is about to be made; None, where there can be none: it is made without."""
    if site.lxcfs.obstacle():
        return None
    try:
        return await site.lxcfs.ensure(await site.keeper())
    except VectlError:
        return None  # what is not shown is seen, and put right or told by the passes that follow


def binds(site: Site, running: Running | None) -> tuple[bundle.Bind, ...]:
    """Give what the runtime is to bind into a VE that it makes."""
    if running is None:
        return ()
    return tuple(bundle.Bind(source=site.lxcfs.source(path), target=path, read_only=True) for path in lxcfs.TARGETS)


def note(site: Site, uid: Uid, init: ProcessId, running: Running | None) -> None:
    """Write down whose files an init sees."""
    path = runtime.file(site, uid, _NOTE)
    if running is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
    else:
        files.write_volatile(path, json.dumps([_numbers(init), _numbers(running.process)]).encode())


async def show(site: Site, effect: ShowViews) -> None:
    """Let a VE see its own or the host's, in the place of what it saw by an lxcfs before.

    Raises: StateError, if nothing of the VE runs; MissingToolError, if there can be no lxcfs; KeeperError;
    TimeLimitError; ReadBackError.
    """
    uid, init = effect.uid, runtime.need_init(site, effect.uid)
    keeper = await site.keeper()
    running = await site.lxcfs.ensure(keeper) if effect.views is Views.OWN else None
    shown = tuple(Shown(source=site.lxcfs.source(path), target=path) for path in lxcfs.TARGETS)
    spec = ShowSpec(init=init, files=shown, fstype=lxcfs.FSTYPE, shows=running is not None)
    await keeper.ask(protocol.Show(spec=spec, timeout_s=_SHOW_S), protocol.Done, timeout_s=_SHOW_S + 1)
    await asyncio.to_thread(_read_back, uid, init, None if running is None else running.device)
    note(site, uid, init, running)


def _read_back(uid: Uid, init: ProcessId, device: str | None) -> None:
    """Expect no other lxcfs on top of any file, and this one unless the VE's root has put something there."""
    mounts = mount.read_mounts(init.pid)
    for target in lxcfs.TARGETS:
        top = next((found for found in reversed(mounts) if found.target == target), None)
        seen = top.device if top is not None and top.fstype == lxcfs.FSTYPE else None
        if seen != device and (top is None or top.fstype == lxcfs.FSTYPE):
            raise ReadBackError(f"show {target} of VE {uid}: expected file system {device}, found {seen}")


def _numbers(process: ProcessId) -> tuple[int, int]:
    return process.pid, process.start_time


def _parse(data: bytes, *, where: str) -> _Note:
    """Parse a note; damaged, it names nobody."""
    del where
    try:
        (init, start), (pid, pid_start) = json.loads(data)
        return (int(init), int(start)), (int(pid), int(pid_start))
    except (ValueError, TypeError):
        return None
