"""Power: the runtime of a VE, from the bundle to the end of its init.

What runs is told by the kernel (a process of that pid and start time), what it was made with and how it ended by files
that are named after that very process, so that none of them can speak of another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from contextlib import suppress

from reconciler.errors import BusyError, CommandError, KernelError, StateError, TemplateError
from reconciler.host import bundle, compute, templates
from reconciler.host.keeper import protocol, records
from reconciler.host.keeper.client import NOT_FOUND
from reconciler.host.site import Site
from reconciler.kernel import command, files, pidfd, runc
from reconciler.kernel.launch import LaunchSpec
from reconciler.kernel.overlay import OverlayMount
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.model.identity import IDS_PER_VE, Uid
from reconciler.model.power import (
    CreateRuntime,
    DeleteRuntime,
    End,
    EndCause,
    ForgetEnd,
    Launch,
    PowerObservation,
    PowerState,
    StartRuntime,
    StopRuntime,
    launch_from_json,
    launch_to_json,
)

_CREATE_S = 60.0
_NOFILE = (1024, 524288)
"""Open files of a process, soft and hard, as systemd's DefaultLimitNOFILE has them."""

_LXCFS = "/var/lib/lxcfs/proc"
_LXCFS_FILES = ("cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime")
_END_SEEN_S = 2.0
_COLLECTED_S = 5.0  # a keeper that takes longer is stuck, and one that is dead leaves its children to others
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_SYSTEMD_HALT = signal.SIGRTMIN + 4
"""What makes systemd power off; the other inits take Ctrl-Alt-Del's. Source: systemd(1), "SIGRTMIN+4"."""


def observe(site: Site, uid: Uid) -> PowerObservation:
    """Tell whether a VE runs, with what, and how it last ended.

    Raises: KernelError, StateError.
    """
    init = read_init(site, uid)
    runtime = _runtime(site, uid)
    if init is None or not site.inits.is_alive(init):
        end = None if init is None else _end_of(site, uid, init)
        return PowerObservation(
            state=PowerState.STOPPED,
            last_end=end,
            stop_requested=init is not None and end is not None and _names(site, uid, "stop.json", init),
            holdings=("runtime",) if os.path.isdir(f"{runtime.root}/{uid}") else (),
        )
    waiting = runc.awaits_release(runtime, uid)
    return PowerObservation(
        state=PowerState.CREATED if waiting else PowerState.RUNNING,
        pid=init.pid,
        start_time=init.start_time,
        started_at=site.boot_time + init.start_time / _CLOCK_TICKS,
        launch=_read_launch(site, uid),
    )


def is_ending(pid: int) -> bool:
    """Tell whether a process is on its way out: it has let go of its files, and cannot be looked into any more."""
    try:
        os.readlink(f"/proc/{pid}/root")
    except OSError:
        return True
    return False


async def await_end(site: Site, uid: Uid) -> None:
    """Wait until an init that is ending has ended, a moment at most."""
    init = read_init(site, uid)
    descriptor = None if init is None else pidfd.open_process(init)
    if descriptor is None:
        return
    try:
        await _ended(descriptor, _END_SEEN_S)
    finally:
        os.close(descriptor)


async def await_collected(site: Site, uid: Uid) -> None:
    """Wait until an init that ended just now is collected: its parent writes down how it ended before it does that.

    Raises: KernelError, StateError.
    """
    init = read_init(site, uid)
    for _ in range(int(_COLLECTED_S / 0.002)):
        if init is None or pidfd.identify(init.pid) != init:
            return
        await asyncio.sleep(0.002)


def read_init(site: Site, uid: Uid) -> ProcessId | None:
    """Read who the newest init of a VE is or was in this boot.

    Raises: KernelError, StateError.
    """
    record = site.parsed.read(_file(site, uid, "init.json"), records.parse_init)
    return None if record is None else record.init


def need_init(site: Site, uid: Uid) -> ProcessId:
    """Give the init of a VE that has one.

    Raises: StateError, if nothing of the VE runs.
    """
    init = read_init(site, uid)
    if init is None or not site.inits.is_alive(init):
        raise StateError(f"enter VE {uid}: it does not run")
    return init


def _end_of(site: Site, uid: Uid, init: ProcessId) -> End | None:
    if _names(site, uid, "forgotten.json", init):
        return None
    record = site.parsed.read(_file(site, uid, "exit.json"), records.parse_exit)
    if record is None or record.init != init:
        return End(cause=EndCause.UNKNOWN)
    return End(cause=_cause(record.exit), value=record.exit.value)


def _cause(exit_: Exit) -> EndCause:
    if exit_.kind == "exited":
        return EndCause.EXITED
    by_signal: dict[int, EndCause] = {signal.SIGHUP: EndCause.REBOOT, signal.SIGINT: EndCause.HALT}
    return by_signal.get(exit_.value, EndCause.KILLED)


def _file(site: Site, uid: Uid, name: str) -> str:
    return f"{site.instance.ve_run_dir(uid)}/{name}"


def _note(site: Site, uid: Uid, name: str, init: ProcessId) -> None:
    files.write_volatile(_file(site, uid, name), json.dumps([init.pid, init.start_time]).encode())


def _names(site: Site, uid: Uid, name: str, init: ProcessId) -> bool:
    return site.parsed.read(_file(site, uid, name), _parse_note) == [init.pid, init.start_time]


def _parse_note(data: bytes, *, where: str) -> object:
    """Parse the identity of an init; damaged, it names none."""
    del where
    try:
        return json.loads(data)
    except ValueError:
        return None


def _read_launch(site: Site, uid: Uid) -> Launch | None:
    return site.parsed.read(_file(site, uid, "launch.json"), _parse_launch)


def _parse_launch(data: bytes, *, where: str) -> Launch:
    try:
        return launch_from_json(json.loads(data), where=where)
    except ValueError as err:
        raise StateError(f"read {where}: expected JSON; restart the VE to have it written anew") from err


def _runtime(site: Site, uid: Uid) -> runc.Runtime:
    root = f"{site.instance.run_dir}/runtime"
    return runc.Runtime(program=site.instance.runtime, root=root, log=runtime_log(site, uid))


def runtime_log(site: Site, uid: Uid) -> str:
    """Give the file in which the runtime says what is wrong when it makes a VE."""
    return _file(site, uid, "runtime.log")


async def create_runtime(site: Site, effect: CreateRuntime) -> None:
    """Make the namespaces and the root file system, with init held back; the same again is success.

    Raises: StateError, if record, volume or cgroup is missing; TemplateError; BusyError, if something runs already;
    MissingToolError, without the runtime; CommandError, with its complaint.
    """
    uid, seen = effect.uid, observe(site, effect.uid)
    if seen.state is PowerState.CREATED and seen.launch == effect.launch:
        return
    if seen.state is not PowerState.STOPPED:
        raise BusyError(f"create runtime of {effect.name}: one is there already, {seen.state.value}")
    overlay = _overlay(site, effect)
    runtime = _runtime(site, uid)
    os.makedirs(overlay.target, mode=0o711, exist_ok=True)
    await asyncio.to_thread(runc.delete, runtime, uid)
    with suppress(FileNotFoundError):
        os.unlink(runtime.log)
    directory = site.instance.ve_run_dir(uid)
    _write_bundle(site, effect, directory, overlay.target)
    files.write_volatile(_file(site, uid, "launch.json"), json.dumps(launch_to_json(effect.launch)).encode())
    pid_file = f"{directory}/pid"
    request = protocol.Launch(
        uid=uid,
        spec=LaunchSpec(
            argv=runtime.create_argv(uid, bundle=f"{directory}/bundle", pid_file=pid_file),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            overlay=overlay,
        ),
        pid_file=pid_file,
        timeout_s=_CREATE_S,
    )
    keeper = await site.keeper()
    try:
        await keeper.launch(request)
    except CommandError as err:
        complaint = runc.read_error(runtime.log)
        if complaint is None and err.status == NOT_FOUND:
            raise command.missing_tool(runtime.program, "no such program") from err
        raise CommandError(
            f"create runtime of {effect.name}: {complaint or err}", status=err.status, output=complaint or err.output
        ) from err


def _overlay(site: Site, effect: CreateRuntime) -> OverlayMount:
    uid, record = effect.uid, site.need_record(effect.uid)
    if record.template_digest is None:
        raise TemplateError(f"create runtime of {effect.name}: its record names no image of template {record.template}")
    volume = site.instance.volume(uid)
    if not os.path.isdir(f"{volume}/work"):
        raise StateError(f"create runtime of {effect.name}: it has no volume")
    if not compute.tree(site, uid).exists():
        raise StateError(f"create runtime of {effect.name}: it has no cgroup")
    return OverlayMount(
        lower=templates.ensure_mounted(site, record.template_digest),
        volume=volume,
        target=f"{site.instance.ve_run_dir(uid)}/bundle/rootfs",
        id_base=effect.launch.id_base,
        id_count=IDS_PER_VE,
        nfs_export=True,
    )


def _write_bundle(site: Site, effect: CreateRuntime, directory: str, rootfs: str) -> None:
    spec = bundle.BundleSpec(
        hostname=effect.hostname,
        rootfs=rootfs,
        id_base=effect.launch.id_base,
        id_count=IDS_PER_VE,
        cgroup=site.instance.ve_cgroup(effect.uid),
        init=effect.launch.init,
        nesting=effect.launch.nesting,
        rlimits=rlimits(effect.launch),
        binds=_proc_binds(),
        cgroup_mount="v2" if site.layout.is_pure_v2 else "hybrid",
        criu_config=f"{site.instance.run_dir}/criu.conf",
    )
    files.write_volatile(f"{directory}/bundle/config.json", json.dumps(bundle.build_config(spec)).encode())


def rlimits(launch: Launch) -> dict[str, tuple[int, int]]:
    """Give the limits of each process by their kernel names; open files always, so that the host's do not leak in."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    default = {"RLIMIT_NOFILE": (min(_NOFILE[0], hard), min(_NOFILE[1], hard))}
    return default | {f"RLIMIT_{name.upper()}": (value, value) for name, value in launch.rlimits.items()}


def _proc_binds() -> tuple[bundle.Bind, ...]:
    """Show lxcfs's files in place of the host's, where lxcfs runs. Source: lxcfs(1)."""
    return tuple(
        bundle.Bind(source=f"{_LXCFS}/{name}", target=f"/proc/{name}")
        for name in _LXCFS_FILES
        if os.path.exists(f"{_LXCFS}/{name}")
    )


def start(site: Site, effect: StartRuntime) -> None:
    """Let init of a created VE go; a running one is success.

    Raises: StateError, if nothing was created; KernelError, if init ended before.
    """
    seen = observe(site, effect.uid)
    if seen.state is PowerState.RUNNING:
        return
    if seen.state is PowerState.STOPPED:
        raise StateError(f"start VE {effect.uid}: its runtime was not created")
    runc.start(_runtime(site, effect.uid), effect.uid)


async def stop(site: Site, effect: StopRuntime) -> None:
    """Ask init to shut down, wait, and kill what is left; that it was our doing is written down before.

    Raises: BusyError, if init was never let go; TimeLimitError, if it cannot be killed.
    """
    uid, seen = effect.uid, observe(site, effect.uid)
    if seen.state is PowerState.CREATED:
        raise BusyError(f"stop VE {uid}: its init was not let go yet; delete its runtime")
    init = read_init(site, uid)
    if seen.state is PowerState.STOPPED or init is None:
        return
    _note(site, uid, "stop.json", init)
    descriptor = pidfd.open_process(init)
    if descriptor is None:
        return
    try:
        pidfd.send_signal(descriptor, _SYSTEMD_HALT if is_systemd(init) else signal.SIGINT)
        if not await _ended(descriptor, effect.timeout_s):
            await _kill_all(site, uid)
            await _ended(descriptor, _END_SEEN_S)
    finally:
        os.close(descriptor)
    await _await_exit_record(site, uid, init)


def is_systemd(init: ProcessId) -> bool:
    """Say whether an init is systemd; the VE itself says so, so it decides about nothing but convenience."""
    try:
        with open(f"/proc/{init.pid}/comm", "rb") as comm:
            return comm.read().strip() == b"systemd"
    except OSError:
        return False


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


async def _await_exit_record(site: Site, uid: Uid, init: ProcessId) -> None:
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
    uid, seen = effect.uid, observe(site, effect.uid)
    if seen.state is PowerState.RUNNING:
        raise BusyError(f"delete runtime of VE {uid}: it runs; stop it first")
    site.namespaces.forget(uid)
    init = read_init(site, uid)
    if seen.state is PowerState.CREATED and init is not None:
        _note(site, uid, "stop.json", init)
    await asyncio.to_thread(_delete_all, site, uid)
    if init is not None:
        await _await_gone(site, init)


def _delete_all(site: Site, uid: Uid) -> None:
    """Kill what is in the VE's cgroup, and remove the runtime's record by hand: it holds nothing else."""
    cgroup = compute.tree(site, uid)
    if cgroup.exists() and cgroup.processes():
        cgroup.kill()
    files.remove_tree(f"{_runtime(site, uid).root}/{uid}")


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
    seen = observe(site, effect.uid)
    if seen.state is not PowerState.STOPPED:
        raise BusyError(f"forget the last end of VE {effect.uid}: it is {seen.state.value}")
    init = read_init(site, effect.uid)
    if init is not None:
        _note(site, effect.uid, "forgotten.json", init)


def forget(site: Site, uid: Uid) -> None:
    """Remove the volatile files of a VE that is no more, and what is remembered of its files."""
    site.namespaces.forget(uid)
    files.remove_tree(site.instance.ve_run_dir(uid))
    for directory in (site.instance.ve_run_dir(uid), site.instance.ve_dir(uid)):
        site.parsed.forget_below(directory)
