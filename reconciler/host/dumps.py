"""Dumps that nobody leads any more: brought to an end by whoever comes upon one.

The keeper sees to those that its children led and were killed at. One that was killed with its keeper leaves the VE
standing still, its connections cut off, and half a memory.
"""

from __future__ import annotations

import os
from contextlib import suppress

from reconciler.errors import BusyError
from reconciler.host import compute, kept, memory_files, power, runtime
from reconciler.host.site import Site
from reconciler.kernel import dumping
from reconciler.model.identity import Uid
from reconciler.model.power import PowerState


def was_begun(site: Site, uid: Uid) -> bool:
    """Say whether a dump of a VE was begun and has not come to its end, with somebody to lead it or without."""
    return dumping.was_begun(memory_files.work_dir(site, uid))


def settle(site: Site, uid: Uid) -> None:
    """Let a VE go on whose dump nobody leads any more; one that counts already is left to whoever ends the VE, and
    one that is held to whoever knows what has become of the move.

    Raises: KernelError; StateError.
    """
    with suppress(BusyError), dumping.leading(memory_files.work_dir(site, uid)):
        if was_begun(site, uid):
            _let_go(site, uid)


def _let_go(site: Site, uid: Uid) -> None:
    seen = power.observe(site, uid)
    if seen.state is PowerState.RUNNING and seen.pid is not None and (seen.memory or seen.held) is None:
        work, note = memory_files.work_dir(site, uid), runtime.file(site, uid, "stop.json")
        dumping.let_go(compute.tree(site, uid), seen.pid, work=work, note=note)


def sweep(site: Site, uid: Uid) -> None:
    """Bring the dump of a VE to its end that nobody leads any more, and delete what it has written of a memory.

    Raises: KernelError; StateError.
    """
    unborn = kept.unborn(site.instance.suspended_dir(uid))
    if not os.path.isdir(site.instance.ve_run_dir(uid)):  # it did not run since the host was booted
        kept.delete(site, unborn)
        return
    with suppress(BusyError), dumping.leading(memory_files.work_dir(site, uid)):
        if was_begun(site, uid):
            _let_go(site, uid)
        kept.delete(site, unborn)
