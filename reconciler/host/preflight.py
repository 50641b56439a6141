"""Preflight: looking at a running VE for what could not be saved and restored, before anybody tries.

The look reads /proc in a thread of its own, with a budget, as the VE's root decides how much there is. It has to be
taken while the VE runs: of a frozen one every process seems stuck.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread

from reconciler.errors import BusyError, KernelError, NotSuspendableError, StateError, TimeLimitError, VectlError
from reconciler.host import compute, dumps, grafts, held_notes, lxcfs, nics, power
from reconciler.host.site import Site
from reconciler.kernel import criu_program, process_state, rtnl, socket_diag
from reconciler.kernel.image import QUOTA_DIRECTORY
from reconciler.kernel.mount import Mount
from reconciler.kernel.nftread import NftSocket
from reconciler.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.syscalls import translated
from reconciler.model.identity import ROUTE_PROTOCOL, Uid, link_alias
from reconciler.model.migration import MountState, Obstacle, ObstacleKind, RunningState
from reconciler.model.power import PowerState
from reconciler.plan import migration

_GRAFTS = ("devices", "mounts")
_QUOTA = f"/dev/{QUOTA_DIRECTORY}", "ext4"
"""Where a VE on an image shows the quotas of it to itself."""
_QUEUES_MAX = 100
_ROUTES_MAX = 100
_LOOK_S = 30.0
_PASSING_LOOKS = 6
_PASSING_PAUSE_S = 0.2

# Every network namespace is born with it, or its modules give it some.
_BORN_WITH = frozenset(
    {"lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}
)


_REDIRECT, _KERNEL, _ADVERTISED = 1, 2, 9  # Source: linux/rtnetlink.h, RTPROT_*
_SET_ANYWAY = frozenset({_REDIRECT, _KERNEL, _ADVERTISED, ROUTE_PROTOCOL})


async def find_obstacles(site: Site, uid: Uid) -> tuple[Obstacle, ...]:
    """Name what keeps a VE from being suspended and resumed on this host; empty, if nothing is known to.

    Raises: StateError, if it does not run; BusyError, if it stands still; KernelError, if there is more in it than is
    looked at; TimeLimitError.
    """
    if held_notes.move_of(site, uid) is not None:
        raise BusyError(f"look for obstacles in VE {uid}: it stands still on behalf of a move")
    if dumps.was_begun(site, uid):
        await asyncio.to_thread(dumps.settle, site, uid)
    look = site.looks.get(uid) or _begin(site, uid)
    try:
        async with asyncio.timeout(_LOOK_S):
            return migration.judge(await asyncio.shield(look))
    except TimeoutError:
        raise TimeLimitError(f"look for obstacles in VE {uid}: not ended after {_LOOK_S:g} s") from None


def _begin(site: Site, uid: Uid) -> asyncio.Future[RunningState]:
    """Begin a look. Should the VE's root have found a way to keep it from ending, it holds no thread but its own."""
    inside, look = _open(site, uid), asyncio.get_running_loop().create_future()
    site.looks[uid] = look
    look.add_done_callback(lambda _: site.looks.pop(uid, None))
    Thread(target=_look_and_close, args=(inside, look), name=f"look-{uid}", daemon=True).start()
    return look


def _look_and_close(inside: _Inside, look: asyncio.Future[RunningState]) -> None:
    try:
        settle = partial(_settle, look, _look(inside), None)
    except (VectlError, OSError) as err:
        settle = partial(_settle, look, None, err)
    finally:
        inside.close()
    with suppress(RuntimeError):  # the loop is closed by now
        look.get_loop().call_soon_threadsafe(settle)


def _settle(look: asyncio.Future[RunningState], seen: RunningState | None, error: Exception | None) -> None:
    if look.cancelled():
        return
    if error is not None:
        look.set_exception(error)
    elif seen is not None:
        look.set_result(seen)


async def refuse_obstacles(site: Site, uid: Uid, *, doing: str, goes_on: bool = False) -> None:
    """Refuse what takes a dump while something keeps the VE from one; what passes by itself is given a second.

    ``goes_on``: it is not ended by it, nor is what was put in from outside.
    Raises: NotSuspendableError, naming what, with the remedies; StateError, if it does not run; KernelError.
    """
    for _ in range(_PASSING_LOOKS):
        found = await find_obstacles(site, uid)
        if goes_on:
            found = tuple(obstacle for obstacle in found if obstacle.kind is not ObstacleKind.OUTSIDER)
        if not found or not all(obstacle.passes for obstacle in found):
            break
        await asyncio.sleep(_PASSING_PAUSE_S)
    if found:
        raise NotSuspendableError(f"{doing}: {migration.sentence(found)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inside:
    """What the look takes, put together on the event loop: what the site keeps open may be closed meanwhile."""

    init: int
    pids: frozenset[int]
    root: int
    net: int
    ours: frozenset[tuple[str, str]]
    links: tuple[str, ...]
    routes: tuple[str, ...]
    nics: tuple[str, ...]
    programs: str
    no_template: str

    def close(self) -> None:
        os.close(self.root)
        os.close(self.net)


def _open(site: Site, uid: Uid) -> _Inside:
    record, seen = site.need_record(uid), power.observe(site, uid)
    if seen.state is not PowerState.RUNNING or seen.pid is None or seen.start_time is None:
        raise StateError(f"look for obstacles in VE {uid}: it does not run")
    init = ProcessId(pid=seen.pid, start_time=seen.start_time)
    kept = site.namespaces.of(uid, init, site.rtnl)
    digest = record.template_digest
    has_template = digest is not None and os.path.exists(site.instance.template_image(digest))
    tree = compute.tree(site, uid)
    if tree.is_frozen():
        raise BusyError(f"look for obstacles in VE {uid}: it stands still, as while it is written to disk")
    pids = tree.processes()
    links = tuple(sorted(_made_inside(kept.rtnl.dump_links(), alias=link_alias(site.instance.name, uid))))
    with kept.root() as root:
        return _Inside(
            init=init.pid,
            pids=pids,
            root=os.dup(root),
            net=os.dup(kept.net),
            ours=frozenset(_ours(site, uid, init)),
            links=links,
            routes=tuple(sorted(_led_inside(kept.rtnl.dump_routes())))[:_ROUTES_MAX],
            nics=tuple(sorted(nics.observe(site, uid, init))),
            programs=site.instance.programs,
            no_template="" if has_template else f"the image of its template {record.template} is gone; build it anew",
        )


def _made_inside(links: Iterable[rtnl.Link], *, alias: str) -> Iterator[str]:
    """Name the interfaces that neither vectl nor the kernel by itself has made in a network namespace."""
    for link in links:
        if link.alias != alias and link.kind is not None and link.name not in _BORN_WITH:
            yield link.name


def _led_inside(routes: Iterable[rtnl.Route]) -> Iterator[str]:
    """Name the destinations of routes that neither vectl nor the kernel by itself has set."""
    for route in routes:
        if route.protocol not in _SET_ANYWAY:
            yield str(route.destination)


def _ours(site: Site, uid: Uid, init: ProcessId) -> Iterator[tuple[str, str]]:
    """Give device and root of the mounts that vectl has put in, which it puts in again."""
    for kind in _GRAFTS:
        for graft in grafts.read(site, uid, kind, init).values():
            yield graft.device, graft.root


def _look(inside: _Inside) -> RunningState:
    notes = socket_diag.read_notes(inside.net)
    root = process_state.device_text(os.fstat(inside.root).st_dev)
    processes, mounts = process_state.read_all(inside.pids, init=inside.init, notes=notes)
    return RunningState(
        processes=processes,
        mounts=tuple(_foreign((found for found in mounts if found.device != root), inside.ours)),
        queues=tuple(_queues(mounts, inside.root)),
        links=inside.links,
        routes=inside.routes,
        nics=inside.nics,
        filter_rules=_filter_rules(inside.net),
        no_criu=_no_criu(inside.programs),
        no_template=inside.no_template,
    )


def _foreign(mounts: Iterable[Mount], ours: frozenset[tuple[str, str]]) -> Iterator[MountState]:
    """Give the mounts that vectl has not put there, once each, however many mount namespaces show them.

    ``mounts``: without those of the VE's root file system, parts of which systemd shows its services at other places.
    """
    table = list(mounts)
    whole = {found.device for found in table if found.root == "/"}
    kept = {
        (found.target, found.fstype, found.device not in whole)
        for found in table
        if (found.device, found.root) not in ours
        and found.fstype != lxcfs.FSTYPE
        and (found.target, found.fstype) != _QUOTA
    }
    for target, fstype, is_part in sorted(kept):
        yield MountState(
            target=process_state.printable(target),
            fstype=process_state.printable(fstype),
            is_part=is_part and fstype != "devtmpfs",
        )


def _queues(mounts: Iterable[Mount], root: int) -> Iterator[str]:
    """Name the POSIX message queues of a VE, as far as it has them mounted somewhere."""
    for found in mounts:
        if found.fstype == "mqueue" and found.root == "/":
            yield from sorted(map(process_state.printable, _list(root, found)))[:_QUEUES_MAX]
            return


def _list(root: int, found: Mount) -> list[str]:
    """List the directory at which something is mounted, unless its root has put something else in the way."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    try:
        directory = openat2(root, found.target.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
    except KernelError as err:
        if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    try:
        with translated("list", found.target):
            is_it = process_state.device_text(os.fstat(directory).st_dev) == found.device
            return os.listdir(directory) if is_it else []
    finally:
        os.close(directory)


def _filter_rules(net: int) -> int:
    """Count the rules of nftables, by which iptables works too; a VE whose root keeps them changing has some."""
    try:
        with NftSocket.open_in(net) as nft:
            return nft.count_rules()
    except KernelError:
        return 1


def _no_criu(programs: str) -> str:
    try:
        criu_program.find(programs)
    except VectlError as err:
        return str(err)
    return ""
