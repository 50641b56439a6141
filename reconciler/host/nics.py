"""NICs: interfaces of the host that are in a VE for as long as that runs.

Inside, its root may do with one what he likes, but he cannot change its number: by that it is found again. When the
VE ends, the kernel returns only interfaces of hardware by itself; so whoever lets go of the VE's namespaces fetches
what is still in there.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from reconciler.errors import BusyError, KernelError, StateError, VectlError
from reconciler.host import interface_ends, runtime
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import files, link, netns, pidfd, rtnl
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.decode import Fields
from reconciler.model.devices import AddNic, RemoveNic
from reconciler.model.identity import Uid

NOTE = "nics.json"
"""The file in the VE's run directory in which it is written down what was moved."""

_LOOPBACK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """A link inside by its number and by what its root cannot make: of hardware, or with its other end on the host.

    ``kind`` "": of hardware. ``peer`` and ``nsid``: the other end, or what it rests on, as it is told inside.
    """

    index: int
    kind: str
    peer: int
    nsid: int
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    pid: int
    start_time: int
    moved: Mapping[str, _Moved]


def observe(site: Site, uid: Uid, init: ProcessId) -> frozenset[str]:
    """Name the interfaces of the host that are in a VE.

    Raises: KernelError, StateError.
    """
    moved = _read(site, uid, init)
    if not moved:
        return frozenset()
    into = site.namespaces.of(uid, init, site.rtnl)
    return frozenset(nic for nic, it in moved.items() if _find(into, it) is not None)


def _find(into: Inside, it: _Moved) -> rtnl.Link | None:
    found = into.rtnl.link_at(it.index)
    return found if found is not None and _seen(found, up=it.up) == it else None


def _seen(found: rtnl.Link, *, up: bool) -> _Moved:
    nsid = -1 if found.peer_nsid is None else found.peer_nsid
    return _Moved(index=found.index, kind=found.kind or "", peer=found.peer_index or 0, nsid=nsid, up=up)


def _read(site: Site, uid: Uid, init: ProcessId) -> Mapping[str, _Moved]:
    note = site.parsed.read(runtime.file(site, uid, NOTE), _parse)
    return note.moved if note is not None and (note.pid, note.start_time) == (init.pid, init.start_time) else {}


def _parse(data: bytes, *, where: str) -> _Note:
    try:
        fields = Fields(json.loads(data), where=where)
    except ValueError as err:
        raise StateError(f"read {where}: expected JSON; restart the VE to have it written anew") from err
    moved = {}
    for nic, entry in fields.mapping("moved").items():
        of = Fields(entry, where=where)
        moved[nic] = _Moved(
            index=of.integer("index"),
            kind=of.text("kind"),
            peer=of.integer("peer"),
            nsid=of.integer("nsid"),
            up=of.flag("up"),
        )
    return _Note(pid=fields.integer("pid"), start_time=fields.integer("start_time"), moved=moved)


def _write(site: Site, uid: Uid, init: ProcessId, moved: Mapping[str, _Moved]) -> None:
    entries = {nic: asdict(it) for nic, it in sorted(moved.items())}
    note = {"pid": init.pid, "start_time": init.start_time, "moved": entries}
    files.write_volatile(runtime.file(site, uid, NOTE), json.dumps(note).encode())


def add(site: Site, effect: AddNic) -> None:
    """Move an interface of the host into a VE, under its name, down and without addresses.

    Raises: StateError, if the VE does not run; KernelError, if the host has none; BusyError, if the host uses it.
    """
    uid, nic = effect.uid, effect.nic
    into = interface_ends.inside(site, uid)
    moved = dict(_read(site, uid, into.init))
    if nic in moved and _find(into, moved[nic]) is not None:
        return
    found, inside = site.rtnl.link(nic), into.rtnl.link(nic)
    if found is None:
        moved[nic] = _left_by_a_crash(uid, nic, inside)
    elif inside is not None:
        raise BusyError(f"move {nic} into VE {uid}: a link inside has that name")
    else:
        _refuse_in_use(site, found)
        link.move(site.rtnl, found.index, into.net, name=nic)
        moved[nic] = _seen(_arrived(into, found), up=found.up)
    _write(site, uid, into.init, moved)


def _left_by_a_crash(uid: Uid, nic: str, inside: rtnl.Link | None) -> _Moved:
    """Take a link of hardware for the one that was moved before that could be written down: nobody inside makes one."""
    if inside is None or inside.kind is not None or inside.index == _LOOPBACK:
        raise KernelError(f"move {nic} into VE {uid}: this host has no such interface", errno=errno.ENODEV)
    return _seen(inside, up=False)


def _arrived(into: Inside, found: rtnl.Link) -> rtnl.Link:
    """Find a link that was moved: it keeps its number unless that was taken, and its name until the VE's root acts."""
    for there in (into.rtnl.link(found.name), into.rtnl.link_at(found.index)):
        if there is not None and (there.kind, there.mac) == (found.kind, found.mac):
            return there
    raise KernelError(f"move {found.name} into a VE: it is not there afterwards", errno=errno.ENODEV)


def _refuse_in_use(site: Site, found: rtnl.Link) -> None:
    """Keep what the host is reached by on the host, and what is vectl's own where vectl put it."""
    carried = [a for a in site.rtnl.dump_addresses(index=found.index) if a.scope == rtnl.RT_SCOPE_UNIVERSE]
    doing = f"move {found.name} into a VE"
    if carried:
        raise BusyError(f"{doing}: the host has {carried[0].interface} on it; take that off first")
    if found.master is not None:
        raise BusyError(f"{doing}: it is a port of a bridge; take it out first")
    if found.index == _LOOPBACK or (found.alias or "").startswith(f"{site.instance.name}:"):
        raise BusyError(f"{doing}: it belongs to the host or to vectl; name another one")
    if found.kind is not None and found.peer_index is None:
        raise BusyError(f"{doing}: the kernel would delete a {found.kind} with the VE; name one of hardware")


def remove(site: Site, effect: RemoveNic) -> None:
    """Move an interface back to the host; one that is not in the VE is success.

    Raises: StateError, if the VE does not run; BusyError, if another link of the host has its name now.
    """
    into = interface_ends.inside(site, effect.uid)
    moved = dict(_read(site, effect.uid, into.init))
    it = moved.pop(effect.nic, None)
    if it is None:
        return
    _return(site, into, effect.nic, it)
    _write(site, effect.uid, into.init, moved)


def _return(site: Site, into: Inside, nic: str, it: _Moved) -> None:
    if _find(into, it) is None:
        return
    home = netns.open_own()
    try:
        link.move(into.rtnl, it.index, home, name=nic)
    except KernelError as err:
        if err.errno != errno.EEXIST:
            raise
        raise BusyError(f"return {nic} to the host: another link has that name; rename it") from err
    finally:
        os.close(home)
    back = site.rtnl.link(nic)
    if back is not None and it.up:
        link.set_up(site.rtnl, back.index)


def leave(site: Site, uid: Uid) -> None:
    """Let go of the namespaces of a VE that has ended, after taking home what of the host is in them."""
    into = site.namespaces.held(uid)
    if into is not None and pidfd.has_ended(into.process):
        with suppress(VectlError):  # the kernel takes care of what is left: hardware returns by itself
            for nic, it in _read(site, uid, into.init).items():
                _return(site, into, nic, it)
    site.namespaces.forget(uid)
