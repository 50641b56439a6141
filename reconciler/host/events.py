"""What happens on the host, as hints: limits written, links and addresses changed, tables replaced, inits ended.

Every source names a VE or the host's own objects, and nothing else: whoever is woken looks for himself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress

from reconciler.errors import KernelError, VectlError
from reconciler.host import compute
from reconciler.host.site import Site
from reconciler.kernel import cgroup_instance, cgroup_v1, inotify, pidfd
from reconciler.kernel.netevents import EventKind, ForwardingEvents, NftEvents, RouteEvent, RouteEvents
from reconciler.kernel.netlink import OverrunError
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.compute import HostComputeObservation
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid, filter_table, host_link_name
from reconciler.model.observation import Facet, HostObservation, VeObservation
from reconciler.model.seam import Wake

_LOST = Wake(lost=True)
_QUEUES = frozenset({EventKind.QUEUE, EventKind.QUEUE_GONE, EventKind.FILTER, EventKind.FILTER_GONE})

_KILL_S = 0.1
"""How long the kernel is given to kill, and count, what it told of before. Units: seconds."""
_LXCFS_ASKED_S = 5.0
"""How often lxcfs is asked whether it answers, and whether one that could not be started now can be."""


class HostEvents:
    """The wake-ups of one instance; for one event loop, in which it must be made."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._pending: set[Wake] = set()
        self._some = asyncio.Event()
        self._inotify = inotify.Inotify()
        self._routes, self._tables = RouteEvents(), NftEvents()
        self._forwarding: ForwardingEvents | None = None
        self._watches: dict[int, Uid | None] = {}
        self._watched: dict[Uid | None, set[int]] = {}
        self._ooms: dict[Uid, int] = {}
        self._inits: dict[Uid, tuple[ProcessId, int]] = {}
        self._links: dict[int, Uid | None] = {}
        for source, read in (
            (self._inotify, self._read_limits),
            (self._routes, self._read_routes),
            (self._tables, self._read_tables),
        ):
            self._loop.add_reader(source.fileno(), read)
        self._lxcfs: tuple[ProcessId, int] | None = None
        self._asking = self._loop.create_task(self._watch_lxcfs())

    async def wakes(self) -> frozenset[Wake]:
        """Wait for something to happen; give all that has happened since the last call."""
        await self._some.wait()
        self._some.clear()
        wakes, self._pending = frozenset(self._pending), set()
        return wakes

    def follow(self, observed: HostObservation) -> None:
        """Watch the VEs that were observed; after a complete look, stop watching those that are gone."""
        for uid, seen in observed.ves.items():
            self._follow_init(uid, seen)
            self._follow_limits(uid, seen)
        if isinstance(observed.compute, HostComputeObservation):
            self._watch(None, cgroup_instance.limit_paths(self._site.layout, self._site.instance.cgroup))
        if observed.complete:
            for gone in self._watched.keys() - observed.ves.keys() - {None}:
                self._forget_limits(gone)
            for uid in self._inits.keys() - observed.ves.keys():
                self._forget_init(uid)
            self._learn_links(observed)
            self._follow_tunnels(observed)
        with suppress(VectlError):  # the watch finds what is not told
            self._follow_lxcfs()

    def close(self) -> None:
        """Stop listening to everything."""
        self._asking.cancel()
        self._forget_lxcfs()
        for uid in list(self._inits):
            self._forget_init(uid)
        for uid in list(self._ooms):
            self._forget_oom(uid)
        for source in (self._inotify, self._routes, self._tables, self._forwarding):
            if source is not None:
                self._loop.remove_reader(source.fileno())
                source.close()

    def _wake(self, *wakes: Wake) -> None:
        self._pending.update(wakes)
        if self._pending:
            self._some.set()

    def _follow_init(self, uid: Uid, seen: VeObservation) -> None:
        power = seen.power
        if isinstance(power, Unknown):
            return
        init = None
        if power.pid is not None and power.start_time is not None:
            init = ProcessId(pid=power.pid, start_time=power.start_time)
        known = self._inits.get(uid)
        if known is not None and known[0] == init:
            return
        self._forget_init(uid)
        if init is None:
            return
        try:
            descriptor = pidfd.open_process(init)
        except KernelError:  # no descriptor left: the resync finds what is not told
            return
        if descriptor is None:
            self._wake(Wake(uid=uid, facet=Facet.POWER))
            return
        self._inits[uid] = (init, descriptor)
        self._loop.add_reader(descriptor, self._init_ended, uid)

    def _init_ended(self, uid: Uid) -> None:
        self._forget_init(uid)
        self._wake(Wake(uid=uid, facet=Facet.POWER))

    def _forget_init(self, uid: Uid) -> None:
        known = self._inits.pop(uid, None)
        if known is not None:
            self._loop.remove_reader(known[1])
            os.close(known[1])

    def _follow_lxcfs(self) -> None:
        """Watch the lxcfs that runs: its end breaks the views of all VEs."""
        running = self._site.lxcfs.running()
        if running is None or (self._lxcfs is not None and self._lxcfs[0] == running.process):
            return
        self._forget_lxcfs()
        descriptor = pidfd.open_process(running.process)
        if descriptor is None:
            self._wake(Wake())
            return
        self._lxcfs = (running.process, descriptor)
        self._loop.add_reader(descriptor, self._lxcfs_ended)

    def _lxcfs_ended(self) -> None:
        self._forget_lxcfs()
        self._wake(Wake())

    def _forget_lxcfs(self) -> None:
        if self._lxcfs is not None:
            self._loop.remove_reader(self._lxcfs[1])
            os.close(self._lxcfs[1])
            self._lxcfs = None

    async def _watch_lxcfs(self) -> None:
        """Wake whoever looks when lxcfs no longer answers, or when what kept it from being started is over."""
        lxcfs, well, obstacle = self._site.lxcfs, True, ""
        while True:
            await asyncio.sleep(_LXCFS_ASKED_S)
            with suppress(VectlError):
                before = well, obstacle
                well, obstacle = await lxcfs.answers(), lxcfs.obstacle()
                if (well, obstacle) != before:
                    self._wake(Wake())

    def _follow_limits(self, uid: Uid, seen: VeObservation) -> None:
        if isinstance(seen.compute, Unknown):  # not looked at, or not to be read: what is watched stays so
            return
        if seen.compute is None:
            self._forget_limits(uid)
            return
        if uid not in self._watched:
            self._watch(uid, compute.tree(self._site, uid).watch_paths())
            self._watch_oom(uid)

    def _watch(self, uid: Uid | None, paths: Iterable[str]) -> None:
        """Watch the files of a VE's cgroup, or of that of the instance, unless some of them are watched already."""
        if self._watched.get(uid):
            return
        watches = self._watched[uid] = set()
        for path in paths:
            with suppress(KernelError):  # gone again, or no watch left: the resync finds what is not told
                watch = self._inotify.add(path, inotify.MODIFY)
                watches.add(watch)
                self._watches[watch] = uid

    def _watch_oom(self, uid: Uid) -> None:
        """Listen for want of memory, of which cgroup v1 tells in a way of its own."""
        memory = self._site.layout.of("memory")
        if memory is None or memory.unified:
            return
        with suppress(KernelError):
            event = cgroup_v1.watch_oom(memory.path(self._site.instance.ve_cgroup(uid)))
            self._ooms[uid] = event
            self._loop.add_reader(event, self._read_oom, uid)

    def _read_oom(self, uid: Uid) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._ooms[uid])
        self._loop.call_later(_KILL_S, self._wake, Wake(uid=uid, facet=Facet.COMPUTE))

    def _forget_oom(self, uid: Uid) -> None:
        event = self._ooms.pop(uid, None)
        if event is not None:
            self._loop.remove_reader(event)
            os.close(event)

    def _forget_limits(self, uid: Uid | None) -> None:
        if uid is not None:
            self._forget_oom(uid)
        for watch in self._watched.pop(uid, set()):
            self._watches.pop(watch, None)
            with suppress(KernelError):
                self._inotify.remove(watch)

    def _read_limits(self) -> None:
        for event in self._inotify.read():
            if event.mask & inotify.OVERFLOW:
                self._wake(_LOST)
            if event.watch not in self._watches:
                continue
            uid = self._watches[event.watch]
            if event.mask & inotify.IGNORED:
                self._forget_limits(uid)
            self._wake(Wake(uid=uid, facet=Facet.COMPUTE))

    def _read_routes(self) -> None:
        try:
            events = self._routes.read()
        except OverrunError:
            self._wake(_LOST)
            return
        self._wake(*(wake for event in events if (wake := self._route_wake(event)) is not None))

    def _follow_tunnels(self, observed: HostObservation) -> None:
        """Listen for changes of forwarding tables once there are some of ours: bridges tell of every VE that speaks."""
        if self._forwarding is not None or isinstance(observed.networks, Unknown):
            return
        if any(network.tunnel is not None for network in observed.networks.values()):
            self._forwarding = ForwardingEvents()
            self._loop.add_reader(self._forwarding.fileno(), self._read_forwarding)

    def _read_forwarding(self) -> None:
        assert self._forwarding is not None
        try:
            indexes = self._forwarding.read()
        except OverrunError:
            self._wake(_LOST)
            return
        if not self._links.keys().isdisjoint(indexes):
            self._wake(Wake(facet=Facet.NETWORK))

    def _route_wake(self, event: RouteEvent) -> Wake | None:
        if event.kind in (EventKind.NAMESPACE, EventKind.NAMESPACE_GONE):
            return None
        if event.nsid is not None:
            if event.kind in _QUEUES:
                return None  # rates are held on the host's end
            uid = self._site.namespaces.uid_of(event.nsid)
            return None if uid is None else Wake(uid=uid, facet=Facet.NETWORK)
        return self._own_link_wake(event)

    def _own_link_wake(self, event: RouteEvent) -> Wake | None:
        """Tell whether an event of the host's own namespace concerns one of our links."""
        index = event.index
        if index is None:
            return None
        instance = self._site.instance.name
        if event.alias is not None and event.alias.startswith(f"{instance}:"):
            self._links[index] = self._uid_in(event.alias)
        elif index not in self._links:
            return None
        uid = self._links[index]
        if event.kind is EventKind.LINK_GONE:
            del self._links[index]
        return Wake(uid=uid, facet=Facet.NETWORK)

    def _uid_in(self, alias: str) -> Uid | None:
        rest = alias.split(":")[1:]
        return Uid(rest[0]) if len(rest) == 1 else None

    def _learn_links(self, observed: HostObservation) -> None:
        instance = self._site.instance.name
        names = {
            host_link_name(instance, uid, name): uid
            for uid, seen in observed.ves.items()
            if seen.network is not None and not isinstance(seen.network, Unknown)
            for name in seen.network.interfaces
        }
        with suppress(KernelError):
            for entry in self._site.rtnl.dump_links():
                if entry.alias is not None and entry.alias.startswith(f"{instance}:"):
                    self._links[entry.index] = names.get(entry.name, self._uid_in(entry.alias))

    def _read_tables(self) -> None:
        try:
            commits = self._tables.read()
        except OverrunError:
            self._wake(_LOST)
            return
        name = filter_table(self._site.instance.name)
        touched: Iterable[str] = (table for commit in commits for _, table in commit.tables)
        if name in touched:
            self._wake(Wake())
