"""Ending: how a VE comes to stand still, asked, killed or by itself, and what is cleared away after it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal

from reconciler.errors import BusyError, KernelError
from reconciler.host import attachment, compute, image, interface_ends, nics, power, runtime
from reconciler.host.keeper import records
from reconciler.host.site import Site
from reconciler.kernel import files, pidfd
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.identity import Uid
from reconciler.model.power import DeleteRuntime, ForgetEnd, PowerState, StopRuntime

_END_SEEN_S = 2.0
_COLLECTED_S = 5.0  # a keeper that takes longer is stuck, and one that is dead leaves its children to others
_SYSTEMD_HALT = signal.SIGRTMIN + 4
"""What makes systemd power off; the other inits take Ctrl-Alt-Del's. Source: systemd(1), "SIGRTMIN+4"."""


async def stop(site: Site, effect: StopRuntime) -> None:
    """Ask init to shut down, wait, and kill what is left; that it was our doing is written down before.

    Raises: BusyError, if init was never let go; TimeLimitError, if it cannot be killed.
    """
    uid, seen = effect.uid, power.observe(site, effect.uid)
    if seen.state is PowerState.CREATED:
        raise BusyError(f"stop VE {uid}: its init was not let go yet; delete its runtime")
    init = runtime.read_init(site, uid)
    if seen.pid is None or init is None:
        return
    runtime.note(site, uid, "stop.json", init)
    descriptor = pidfd.open_process(init)
    if descriptor is None:
        return
    try:
        pidfd.send_signal(descriptor, _SYSTEMD_HALT if runtime.is_systemd(init) else signal.SIGINT)
        if not await _ended(descriptor, effect.timeout_s):
            await _kill_all(site, uid)
            await _ended(descriptor, _END_SEEN_S)
    finally:
        os.close(descriptor)
    await await_exit_record(site, uid, init)


async def _ended(descriptor: int, timeout_s: float) -> bool:
    """Wait until the process behind a pidfd has ended; False, if it has not in time. Units: seconds."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)


async def _kill_all(site: Site, uid: Uid) -> None:
    await asyncio.to_thread(compute.tree(site, uid).kill)


async def await_exit_record(site: Site, uid: Uid, init: ProcessId) -> None:
    """Give the keeper the moment that it needs to write down what it reaped."""
    for _ in range(int(_END_SEEN_S / 0.005)):
        record = records.read_exit(site.instance.run_dir, uid)
        if record is not None and record.init == init:
            return
        await asyncio.sleep(0.005)


async def delete(site: Site, effect: DeleteRuntime) -> None:
    """Remove what the runtime keeps of a VE; an init that was never let go is killed.

    Raises: BusyError, if it runs.
    """
    uid, seen = effect.uid, power.observe(site, effect.uid)
    if seen.state is PowerState.RUNNING:
        raise BusyError(f"delete runtime of VE {uid}: it runs; stop it first")
    attachment.leave(site, uid)
    init = runtime.read_init(site, uid)
    if seen.state is PowerState.CREATED and init is not None:
        runtime.note(site, uid, "stop.json", init)
    await asyncio.to_thread(_kill_rest, site, uid)
    if init is not None:
        await _await_gone(site, init)
    nics.leave(site, uid)  # while something of us is in there, it stays
    await interface_ends.await_released(site, uid)
    await image.await_released(image.path_in(site.instance.volume(uid)))
    # By hand, as it holds nothing else; and last, as it tells that something is left to do.
    await asyncio.to_thread(files.remove_tree, f"{runtime.of(site, uid).root}/{uid}")


def _kill_rest(site: Site, uid: Uid) -> None:
    """Kill what is in the VE's cgroup."""
    cgroup = compute.tree(site, uid)
    if cgroup.exists() and cgroup.processes():
        cgroup.kill()


async def _await_gone(site: Site, init: ProcessId) -> None:
    for _ in range(int(_END_SEEN_S / 0.005)):
        if not site.inits.is_alive(init):
            return
        await asyncio.sleep(0.005)
    raise KernelError(f"kill process {init.pid}: it is still there")


def forget_end(site: Site, effect: ForgetEnd) -> None:
    """Drop the memory of the last end.

    Raises: BusyError, if the VE runs or is being started.
    """
    seen = power.observe(site, effect.uid)
    if seen.pid is not None:
        raise BusyError(f"forget the last end of VE {effect.uid}: it is {seen.state.value}")
    init = runtime.read_init(site, effect.uid)
    if init is not None:
        runtime.note(site, effect.uid, "forgotten.json", init)


def forget(site: Site, uid: Uid) -> None:
    """Remove the volatile files of a VE that is no more, and what is remembered of its files."""
    site.namespaces.forget(uid)
    site.ledgers.forget(uid)
    files.remove_tree(site.instance.ve_run_dir(uid))
    for directory in (site.instance.ve_run_dir(uid), site.instance.ve_dir(uid)):
        site.parsed.forget_below(directory)


def is_ending(pid: int) -> bool:
    """Tell whether a process is on its way out: it has let go of its files, and cannot be looked into any more.

    Any other failure tells nothing of an end: the root of an init may be a path that is too long to be read.
    """
    try:
        os.readlink(f"/proc/{pid}/root")
    except OSError as err:
        return err.errno in (errno.ENOENT, errno.ESRCH)
    return False


async def await_end(site: Site, uid: Uid) -> None:
    """Wait until an init that is ending has ended, a moment at most, and only once for one that then has not."""
    init = runtime.read_init(site, uid)
    if init is None or init in site.inits.lingering:
        return
    descriptor = pidfd.open_process(init)
    if descriptor is None:
        return
    try:
        if not await _ended(descriptor, _END_SEEN_S):
            site.inits.lingering.add(init)
    finally:
        os.close(descriptor)


async def await_collected(site: Site, uid: Uid) -> None:
    """Wait until an init that ended just now is collected: its parent writes down how it ended before it does that.

    Raises: KernelError, StateError.
    """
    init = runtime.read_init(site, uid)
    for _ in range(int(_COLLECTED_S / 0.002)):
        if init is None or pidfd.identify(init.pid) != init:
            return
        await asyncio.sleep(0.002)
