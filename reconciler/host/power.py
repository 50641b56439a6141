"""Power: whether a VE runs, with what, and how it last ended.

What runs is told by the kernel (a process of that pid and start time), what it was made with and how it ended by files
that are named after that very process, so that none of them can speak of another one.
"""

from __future__ import annotations

import os
import signal

from reconciler.host import held_notes, memory_files, runtime
from reconciler.host.keeper import records
from reconciler.host.site import Site
from reconciler.kernel import runc
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.model.identity import Uid
from reconciler.model.power import End, EndCause, PowerObservation, PowerState

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def observe(site: Site, uid: Uid) -> PowerObservation:
    """Tell whether a VE runs, with what, and how it last ended.

    Raises: KernelError, StateError.
    """
    init = runtime.read_init(site, uid)
    made_by = runtime.of(site, uid)
    suspended = memory_files.look(site, uid)
    memory = None if suspended is None else suspended.seen
    if init is None or not site.inits.is_alive(init):
        end = None if init is None else _end_of(site, uid, init)
        return PowerObservation(
            state=PowerState.STOPPED if suspended is None else PowerState.SUSPENDED,
            launch=None if suspended is None else suspended.launch,
            last_end=end,
            stop_requested=init is not None and end is not None and runtime.names(site, uid, "stop.json", init),
            holdings=("runtime",) if os.path.isdir(f"{made_by.root}/{uid}") else (),
            memory=memory,
        )
    waiting = init not in site.inits.released and runc.awaits_release(made_by, uid)
    if not waiting:
        site.inits.released.add(init)
    return PowerObservation(
        state=PowerState.CREATED if waiting else PowerState.RUNNING,
        pid=init.pid,
        start_time=init.start_time,
        started_at=site.boot_time + init.start_time / _CLOCK_TICKS,
        launch=runtime.read_launch(site, uid),
        memory=memory,
        held=held_notes.held_as(site, uid, init, waits=waiting),
    )


def _end_of(site: Site, uid: Uid, init: ProcessId) -> End | None:
    if runtime.names(site, uid, "forgotten.json", init):
        return None
    record = site.parsed.read(runtime.file(site, uid, "exit.json"), records.parse_exit)
    if record is None or record.init != init:
        return End(cause=EndCause.UNKNOWN)
    return End(cause=_cause(record.exit), value=record.exit.value)


def _cause(exit_: Exit) -> EndCause:
    if exit_.kind == "exited":
        return EndCause.EXITED
    by_signal: dict[int, EndCause] = {signal.SIGHUP: EndCause.REBOOT, signal.SIGINT: EndCause.HALT}
    return by_signal.get(exit_.value, EndCause.KILLED)
