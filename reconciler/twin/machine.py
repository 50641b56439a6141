"""What the in-memory host is made of: small tables of frozen values, so that a copy of the tables is a snapshot."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from reconciler.model import views
from reconciler.model.compute import ComputeUse, Limit, LimitValue
from reconciler.model.counters import Ledger, Look
from reconciler.model.facts import Unknown
from reconciler.model.identity import Digest, NetworkName, SnapshotName, TemplateName, Uid
from reconciler.model.instance import Instance
from reconciler.model.mounts import MountSpec
from reconciler.model.network import (
    Address,
    FilterRules,
    HostNetworkObservation,
    Interface,
    InterfaceObservation,
    Resolver,
    VeNetworkObservation,
)
from reconciler.model.observation import Capabilities, Facet
from reconciler.model.power import End, Launch
from reconciler.model.quota import Quotas
from reconciler.model.reach import HostRoute
from reconciler.model.seam import Clock
from reconciler.model.snapshots import SnapshotKind, VolumeMark
from reconciler.model.volume import ImageObservation, Record

FIRST_PID = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A VE's data. ``complete`` False: a crash left the subvolume without its directories.

    ``is_image``: a file system of its own, with ``quotas`` in it. ``content``: the paths of the VE's own files.
    ``grouped``: it and its snapshots are held to a limit together. ``shares``: snapshots or clones have its data.
    Units: bytes.
    """

    size: int | None
    total: int | None = None
    is_image: bool = False
    quotas: Quotas = field(default_factory=Quotas)
    complete: bool = True
    used: int | None = None
    resolver: Resolver | None = None
    mark: VolumeMark | None = None
    content: tuple[str, ...] = ()
    grouped: bool = False
    shares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The processes of a VE on disk, with the data that they go on from. ``is_whole`` False: nobody can read it.
    ``mounts`` and ``nodes``: what of the host they were shown.

    Units: ``suspended_at`` seconds since the epoch.
    """

    launch: Launch
    volume: Volume
    suspended_at: float
    addresses: frozenset[Interface] = frozenset()
    mounts: Mapping[str, MountSpec] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A snapshot. Units: ``taken_at`` seconds since the epoch."""

    kind: SnapshotKind
    taken_at: float
    volume: Volume
    template: TemplateName
    template_digest: Digest
    memory: Memory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A VE's cgroup: a value for every limit that the host can enforce."""

    limits: dict[Limit, LimitValue]
    use: ComputeUse = field(default_factory=ComputeUse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A VE's init and namespaces. ``foreign_links``: names of links in its network namespace that are not ours.
    ``views``: the lxcfs that serves its views, None where it sees the host's. ``settings``: those that were set.
    ``resumed``: it comes from the VE's memory. ``leaving``: the move that it is held for, with the links that were
    ``uncut`` before; ``arrived``: all its processes are made, and none has taken a step.
    """

    pid: int
    start_time: int
    launch: Launch
    network: VeNetworkObservation
    mounts: dict[str, MountSpec] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    nics: frozenset[str] = frozenset()
    started_at: float | None = None
    foreign_links: frozenset[str] = frozenset({"lo"})
    views: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False
    leaving: str | None = None
    uncut: Mapping[str, InterfaceObservation] = field(default_factory=dict)
    arrived: bool = False

    @property
    def is_running(self) -> bool:
        """Say whether init was let go."""
        return self.started_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is remembered of a VE's last end; ``requested`` is written before the end is seen."""

    end: End | None = None
    requested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trashed:
    """A removed VE. Units: ``trashed_at`` seconds since the epoch."""

    trashed_at: float
    record: Record
    volume: Volume | None
    snapshots: Mapping[SnapshotName, Kept] = field(default_factory=dict)
    memory: Memory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A parcel that was received: of the volume with what was counted of the VE, of a snapshot, or of a memory."""

    volume: Volume | None = None
    kept: Kept | None = None
    memory: Memory | None = None
    ledger: Ledger | None = None


@dataclass(slots=True, kw_only=True)
class Machine:
    """The whole state of a host; the tables' values are frozen and replaced, never changed in place.

    ``host_links``: links of the host that are not ours, with the master of each or ""; ``host_addresses``: theirs.
    ``host_routes``: those of the host itself. ``sessions``: where somebody is logged in. ``within``: the VE that the
    reconciler is a process of. ``holdings``: VEs of whom the
    runtime keeps a record. ``filter_intact``: the kernel holds exactly ``filter``, which is what was loaded last.
    ``unreadable``: reasons by VE, or None for the host's own objects, and facet. ``unlisted``: why the VEs could not
    be listed. ``networks``: their ``forwarding`` is IPv4's; IPv6 knows only ``forwards_ipv6``, for all together.
    ``instance_limits``: those of the cgroup of all VEs that were written; ``rivals``: the weights beside it, in sum.
    ``directories`` and ``device_files``: those of the host that can be shown in a VE.
    ``forwarding_default``: what the kernel gives a new network. ``looks``: what is counted of VEs.
    ``lxcfs``: the one that runs, by its number. ``obstacles``: what keeps a running VE from being suspended.
    ``spent``: every memory whose processes were let go.
    ``cut``: what was kept to be sent, by VE and move and then by parcel; ``arrived``: what was received.
    """

    instance: Instance
    capabilities: Capabilities
    clock: Clock
    templates: dict[Digest, Digest] = field(default_factory=dict)
    images: dict[Digest, ImageObservation] = field(default_factory=dict)
    records: dict[Uid, Record | Unknown] = field(default_factory=dict)
    volumes: dict[Uid, Volume] = field(default_factory=dict)
    snapshots: dict[Uid, Mapping[SnapshotName, Kept]] = field(default_factory=dict)
    memories: dict[Uid, Memory] = field(default_factory=dict)
    trash: dict[str, Trashed] = field(default_factory=dict)
    cgroups: dict[Uid, Cgroup] = field(default_factory=dict)
    instance_limits: dict[Limit, LimitValue] = field(default_factory=dict)
    rivals: int = 0
    runtimes: dict[Uid, Runtime] = field(default_factory=dict)
    holdings: dict[Uid, str] = field(default_factory=dict)
    obstacles: dict[Uid, str] = field(default_factory=dict)
    endings: dict[Uid, Ending] = field(default_factory=dict)
    networks: dict[NetworkName, HostNetworkObservation] = field(default_factory=dict)
    host_links: dict[str, str] = field(default_factory=dict)
    host_addresses: dict[str, frozenset[Interface]] = field(default_factory=dict)
    host_routes: frozenset[HostRoute] = frozenset()
    sessions: frozenset[Address] = frozenset()
    within: Uid | None = None
    device_files: dict[str, None] = field(default_factory=lambda: dict.fromkeys(("/dev/net/tun", "/dev/fuse")))
    directories: dict[str, None] = field(default_factory=lambda: dict.fromkeys(("/srv", "/usr")))
    filter: FilterRules = field(default_factory=FilterRules)
    filter_intact: bool = True
    forwarding_default: bool = False
    forwards_ipv6: bool = False
    looks: dict[Uid, Look] = field(default_factory=dict)
    ledgers: dict[Uid, Ledger] = field(default_factory=dict)
    pool_is_full: bool = False
    unreadable: dict[tuple[Uid | None, Facet], str] = field(default_factory=dict)
    unlisted: str = ""
    next_pid: int = FIRST_PID
    next_start_time: int = 1
    spent: tuple[Memory, ...] = ()
    cut: dict[tuple[Uid, str], Mapping[str, Volume | Memory]] = field(default_factory=dict)
    arrived: dict[tuple[Uid, str], Mapping[str, Arrived]] = field(default_factory=dict)
    lxcfs: int | None = None
    next_lxcfs: int = 1

    def copy(self) -> Machine:
        """Give a machine in the same state that goes its own way from here."""
        twin = copy.copy(self)
        for name in _NAMES:
            if isinstance(table := getattr(self, name), dict):
                setattr(twin, name, dict(table))
        return twin

    def ensure_lxcfs(self) -> int | None:
        """Start lxcfs if there is none; give which one it is, None where there can be none."""
        if views.PATH in self.capabilities.why_not:
            return None
        if self.lxcfs is None:
            self.lxcfs, self.next_lxcfs = self.next_lxcfs, self.next_lxcfs + 1
        return self.lxcfs

    def uids(self) -> list[Uid]:
        """List the VEs that have a directory in the pool, in a fixed order."""
        return sorted(self.records)


_NAMES = tuple(table.name for table in fields(Machine))
