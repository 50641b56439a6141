"""Settings: parameters of a VE's namespaces, and the limits of its sockets and terminals.

What was set, and what was there before, is written down for the very init whose namespaces they are: so a VE that sets
nothing costs nothing to look at, and what is no longer asked for returns to what the kernel had made it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from reconciler.errors import ReadBackError, StateError
from reconciler.host import runtime
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.host.sockets import SOCKETS
from reconciler.kernel import devpts, files, nssysctl
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.decode import Fields
from reconciler.model.identity import Uid
from reconciler.model.settings import TERMINALS, SetSetting, SettingsObservation

_FILE = "settings.json"
_UNLIMITED = "unlimited"
_GROUPS = "net.ipv4.ping_group_range"
_NONE: Mapping[str, str] = {}

NOTES = frozenset({_FILE})
"""Where it is written down what was set."""

NOTHING = SettingsObservation(values=_NONE)


def observe(site: Site, uid: Uid, init: ProcessId) -> SettingsObservation:
    """Read the settings that were set of a VE.

    Raises: KernelError, StateError.
    """
    names = _before(site, uid, init)
    return SettingsObservation(values=_read(site, uid, init, tuple(names))) if names else NOTHING


def begin(site: Site, uid: Uid) -> None:
    """Forget what was set in former namespaces; limits of sockets hang on the cgroup, and outlive those.

    Raises: KernelError.
    """
    if site.parsed.read(runtime.file(site, uid, _FILE), _parse) is not None:
        os.unlink(runtime.file(site, uid, _FILE))
    for name in SOCKETS:
        site.sockets.set_limit(uid, name, None)


def set_setting(site: Site, effect: SetSetting) -> None:
    """Give a setting its value, or the one that it had before.

    Raises: StateError, if nothing of the VE runs; KernelError, if the kernel does not take the value; ReadBackError.
    """
    uid, name = effect.uid, effect.name
    init = runtime.need_init(site, uid)
    if name == TERMINALS:
        site.namespaces.of(uid, init, site.rtnl).expect_own_root()
    before = dict(_before(site, uid, init))
    if effect.value is None and name not in before:
        return
    if name not in before:
        before[name] = _read(site, uid, init, (name,))[name]
        _remember(site, uid, init, before)  # before it is changed: else a crash would make the new value the old one
    value = before[name] if effect.value is None else effect.value
    _write(site, uid, init, name, value)
    seen = _read(site, uid, init, (name,))[name]
    if seen != value:
        raise ReadBackError(f"set {name} of VE {uid}: wrote {value!r}, read {seen!r}")
    if effect.value is None:
        _remember(site, uid, init, {other: old for other, old in before.items() if other != name})


def _before(site: Site, uid: Uid, init: ProcessId) -> Mapping[str, str]:
    """Give what the settings were before they were set, by name."""
    found = site.parsed.read(runtime.file(site, uid, _FILE), _parse)
    return found[1] if found is not None and found[0] == (init.pid, init.start_time) else _NONE


def _remember(site: Site, uid: Uid, init: ProcessId, before: Mapping[str, str]) -> None:
    content = {"pid": init.pid, "start_time": init.start_time, "before": dict(before)}
    files.write_volatile(runtime.file(site, uid, _FILE), json.dumps(content).encode())


def _parse(data: bytes, *, where: str) -> tuple[tuple[int, int], Mapping[str, str]]:
    try:
        fields = Fields(json.loads(data), where=where)
    except ValueError as err:
        raise StateError(f"read {where}: expected JSON; restart the VE to have it written anew") from err
    return (fields.integer("pid"), fields.integer("start_time")), fields.strings("before")


def _read(site: Site, uid: Uid, init: ProcessId, names: tuple[str, ...]) -> Mapping[str, str]:
    found = {name: _number(site.sockets.limit(uid, name)) for name in names if name in SOCKETS}
    inside = site.namespaces.of(uid, init, site.rtnl)
    if TERMINALS in names:
        with inside.root() as root:
            found[TERMINALS] = _number(devpts.read_max(root, init.pid))
    parameters = [name for name in names if name not in found]
    if parameters:
        with _entered(site, uid, inside) as into:
            read = nssysctl.read_all(into, parameters)
            found |= {name: _shown(name, value, into.owner) for name, value in read.items()}
    return found


def _write(site: Site, uid: Uid, init: ProcessId, name: str, value: str) -> None:
    limit = None if value == _UNLIMITED else value
    inside = site.namespaces.of(uid, init, site.rtnl)
    if name in SOCKETS:
        site.sockets.set_limit(uid, name, None if limit is None else int(limit))
    elif name == TERMINALS:
        with inside.root() as root:
            devpts.set_max(root, None if limit is None else int(limit), id_base=site.need_record(uid).id_base)
    else:
        with _entered(site, uid, inside) as into:
            nssysctl.write(into, name, _written(name, value, into.owner))


@contextmanager
def _entered(site: Site, uid: Uid, inside: Inside) -> Iterator[nssysctl.Namespaces]:
    owner = site.need_record(uid).id_base
    with inside.opened_ipc() as ipc:
        yield nssysctl.Namespaces(net=inside.net, ipc=ipc, owner=owner)


def _number(value: int | None) -> str:
    return _UNLIMITED if value is None else str(value)


def _written(name: str, value: str, base: int) -> str:
    """Give the text that the host's root writes: ids of groups are his, not the VE's."""
    return _shifted(value, base) if name == _GROUPS else value


def _shown(name: str, value: str, base: int) -> str:
    return _shifted(value, -base) if name == _GROUPS else value


def _shifted(value: str, by: int) -> str:
    low, high = map(int, value.split())
    return value if low > high else f"{low + by} {high + by}"
