"""The site: an instance on this machine, with the descriptors that are kept open for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from weakref import WeakValueDictionary

from reconciler.errors import KernelError, StateError
from reconciler.host.inits import Inits
from reconciler.host.keeper.client import KeeperClient, ensure_keeper
from reconciler.host.ledgers import Ledgers
from reconciler.host.lxcfs import Lxcfs
from reconciler.host.namespaces import Namespaces
from reconciler.host.sockets import Sockets
from reconciler.kernel import cgroup_layout, cgroup_limits, criu_program, descriptors, disks, files
from reconciler.kernel.nftread import Fingerprints, NftSocket, TableName
from reconciler.kernel.parsed import ParsedFiles
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.kernel.sessions import SessionSocket
from reconciler.kernel.syscalls import file_errors
from reconciler.model.compute import Limit
from reconciler.model.identity import Digest, Uid
from reconciler.model.instance import Instance
from reconciler.model.migration import RunningState
from reconciler.model.record import decode_record
from reconciler.model.snapshots import SnapshotsObservation
from reconciler.model.volume import Record

_DESCRIPTORS = 32
"""Twice as many as the files that hold the limits of a VE."""

_OF_SOCKETS = ("beancounters.numtcpsock.limit", "beancounters.numothersock.limit")


class Site:
    """What the facets share. Everything is opened at first use, so that looking at one facet costs only that one.

    ``told`` hears of the steps of work that takes long, ``progress`` how they get on; both from any thread.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._keeper: KeeperClient | None = None
        self._connecting = asyncio.Lock()
        self.parsed = ParsedFiles()
        self.kept: dict[Uid, tuple[frozenset[str], frozenset[str], SnapshotsObservation]] = {}
        self.ledgers = Ledgers(instance, self.parsed)
        self.inits = Inits()
        self.lxcfs = Lxcfs(instance, self.parsed, self.inits)
        self.layout = cgroup_layout.detect()
        self.sockets = Sockets(self.layout, instance)
        self.limit_reader = self._read_limits_of_many()
        self.namespaces = Namespaces(instance)
        self.builds: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        self.told: Callable[[str], None] = lambda text: None
        self.progress: Callable[[str], None] = lambda text: None
        self.devices: dict[Uid, str] = {}
        self.looks: dict[Uid, asyncio.Future[RunningState]] = {}
        self._rtnl: RtnlSocket | None = None
        self._nft: NftSocket | None = None
        self._sessions: SessionSocket | None = None
        self.own_ve: Uid | None = None
        self.cannot_suspend = ""
        self._fingerprints: Fingerprints | None = None

    async def keeper(self) -> KeeperClient:
        """Give the connection to the keeper, which is started if there is none.

        Raises: KeeperError.
        """
        async with self._connecting:  # two at once would leave one connection behind
            if self._keeper is None or not self._keeper.is_open:
                self._keeper = await ensure_keeper(self.instance.run_dir)
            return self._keeper

    def learn_disks(self) -> bool:
        """Look which disks the pool is on, and how they are shared; say whether that is news.

        What cannot be read, as of a pool that is not mounted, is not known, and no limit of I/O can be held.
        """
        unified = self.layout.unified
        try:
            found = disks.examine(self.instance.pool, cost_model=unified and f"{unified}/io.cost.qos")
        except (KernelError, OSError, ValueError) as err:
            found = disks.Disks(why_not=str(err))
        if found == self.layout.disks:
            return False
        self.layout = replace(self.layout, disks=found)
        self.limit_reader.close()
        self.limit_reader = self._read_limits_of_many()
        return True

    def learn_criu(self) -> bool:
        """Look whether VEs can be suspended and resumed; say whether that is news."""
        before, self.cannot_suspend = self.cannot_suspend, criu_program.why_not(self.instance.programs)
        return before != self.cannot_suspend

    def _read_limits_of_many(self) -> cgroup_limits.LimitReader[Limit]:
        """Keep open what is read at each look, with half of what this process may have open left for all else."""
        return cgroup_limits.LimitReader(self.layout, name=Limit, keep=descriptors.make_room() // _DESCRIPTORS)

    @property
    def rtnl(self) -> RtnlSocket:
        """The host's own route netlink socket."""
        if self._rtnl is None:
            self._rtnl = RtnlSocket.open_here()
        return self._rtnl

    @property
    def nft(self) -> NftSocket:
        """The host's own nftables netlink socket."""
        if self._nft is None:
            self._nft = NftSocket.open_here()
        return self._nft

    @property
    def sessions(self) -> SessionSocket:
        """The host's own socket to ask for connections with."""
        if self._sessions is None:
            self._sessions = SessionSocket()
        return self._sessions

    @cached_property
    def boot_time(self) -> float:
        """When the machine booted. Units: seconds since the epoch. Source: proc_stat(5), "btime"."""
        with open("/proc/stat", encoding="ascii") as stat:
            return next(float(line.split()[1]) for line in stat if line.startswith("btime "))

    @cached_property
    def why_not(self) -> Mapping[str, str]:
        """Why this host cannot hold what, by the path of the field: what `compute.capabilities` does not ask."""
        reason = self.sockets.why_not()
        return dict.fromkeys(_OF_SOCKETS, reason) if reason else {}

    def nft_digests(self, tables: tuple[TableName, ...]) -> Mapping[TableName, str | None]:
        """Read the fingerprints of nftables tables; an unchanged generation means unchanged tables.

        Raises: KernelError.
        """
        known = self._fingerprints
        if known is None or known.digests.keys() != set(tables) or known.generation != self.nft.generation():
            self._fingerprints = known = self.nft.fingerprints(tables)
        return known.digests

    def close(self) -> None:
        """Close what was opened."""
        if self._keeper is not None:
            self._keeper.close()
        self.ledgers.write_down()
        self.limit_reader.close()
        self.namespaces.close()
        self.sockets.close()
        self.inits.close()
        for opened in (self._rtnl, self._nft, self._sessions):
            if opened is not None:
                opened.close()

    def read_record(self, uid: Uid) -> Record | None:
        """Read a VE's record; None if there is none.

        Raises: StateError, KernelError.
        """
        return self.parsed.read(self.instance.record_file(uid), decode_record)

    def need_record(self, uid: Uid) -> Record:
        """Read a VE's record.

        Raises: StateError, if there is none.
        """
        record = self.read_record(uid)
        if record is None:
            raise StateError(f"look up VE {uid}: this host has none of that uid")
        return record

    def uids(self) -> list[Uid]:
        """List the VEs whose directory is here.

        Raises: KernelError.
        """
        return [Uid(name) for name in sorted(_list(self.instance.ves)) if not name.startswith(".")]

    def those_here(self, wanted: Iterable[Uid]) -> list[Uid]:
        """Name those of some VEs whose directory is here, however many others there are.

        Raises: KernelError.
        """
        ves = self.instance.ves
        with file_errors("look into", ves):
            found = [uid for uid in sorted(wanted) if _is_there(f"{ves}/{uid}")]
            if not found:
                os.stat(ves)  # or the directory of all of them is not there, as with a pool that is not mounted
        return found

    def trashed_records(self) -> list[Record]:
        """Read the records of the VEs in the trash.

        Raises: StateError, KernelError.
        """
        found = []
        for name in _list(self.instance.trash):
            if name.startswith("."):
                continue
            path = f"{self.instance.trash}/{name}/record.json"
            data = files.read_bytes_if_exists(path)
            if data is not None:
                found.append(decode_record(data, where=path))
        return found


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _list(directory: str) -> list[str]:
    with file_errors("list", directory):
        return os.listdir(directory)
