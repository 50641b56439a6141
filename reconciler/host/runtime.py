"""The runtime of a VE: the files in its run directory, each named after the very init that it speaks of.

What was written about one process so never speaks of another one, as after a restart or a boot.
"""

from __future__ import annotations

import json

from reconciler.errors import StateError
from reconciler.host.keeper import records
from reconciler.host.site import Site
from reconciler.kernel import files, runc
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.identity import Uid
from reconciler.model.power import Launch, launch_from_json


def of(site: Site, uid: Uid) -> runc.Runtime:
    """Give the program that makes a VE, with the place of its records and of its complaints."""
    root = f"{site.instance.run_dir}/runtime"
    return runc.Runtime(program=site.instance.runtime, root=root, log=log_file(site, uid))


def log_file(site: Site, uid: Uid) -> str:
    """Give the file in which the runtime says what is wrong when it makes a VE."""
    return file(site, uid, "runtime.log")


def read_init(site: Site, uid: Uid) -> ProcessId | None:
    """Read who the newest init of a VE is or was in this boot.

    Raises: KernelError, StateError.
    """
    record = site.parsed.read(file(site, uid, "init.json"), records.parse_init)
    return None if record is None else record.init


def need_init(site: Site, uid: Uid) -> ProcessId:
    """Give the init of a VE that has one.

    Raises: StateError, if nothing of the VE runs.
    """
    init = read_init(site, uid)
    if init is None or not site.inits.is_alive(init):
        raise StateError(f"enter VE {uid}: it does not run")
    return init


def is_systemd(init: ProcessId) -> bool:
    """Say whether an init is systemd; the VE itself says so, so it decides about nothing but convenience."""
    try:
        with open(f"/proc/{init.pid}/comm", "rb") as comm:
            return comm.read().strip() == b"systemd"
    except OSError:
        return False


def note(site: Site, uid: Uid, name: str, init: ProcessId) -> None:
    """Write down in a file of that name that something holds for this very init."""
    files.write_volatile(file(site, uid, name), json.dumps([init.pid, init.start_time]).encode())


def names(site: Site, uid: Uid, name: str, init: ProcessId) -> bool:
    """Say whether the file of that name was written about this very init."""
    return site.parsed.read(file(site, uid, name), _parse_note) == [init.pid, init.start_time]


def _parse_note(data: bytes, *, where: str) -> object:
    """Parse the identity of an init; damaged, it names none."""
    del where
    try:
        return json.loads(data)
    except ValueError:
        return None


def read_launch(site: Site, uid: Uid) -> Launch | None:
    """Read what the VE was made with.

    Raises: KernelError, StateError.
    """
    return site.parsed.read(file(site, uid, "launch.json"), _parse_launch)


def _parse_launch(data: bytes, *, where: str) -> Launch:
    try:
        return launch_from_json(json.loads(data), where=where)
    except ValueError as err:
        raise StateError(f"read {where}: expected JSON; restart the VE to have it written anew") from err


def file(site: Site, uid: Uid, name: str) -> str:
    """Give the path of a file in the VE's run directory."""
    return f"{site.instance.ve_run_dir(uid)}/{name}"
