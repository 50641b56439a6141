"""What a host was seen to be, at one moment, facet by facet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.compute import ComputeObservation, HostComputeObservation, Limit
from reconciler.model.devices import DevicesObservation
from reconciler.model.facts import Unknown
from reconciler.model.identity import Digest, NetworkName, Uid
from reconciler.model.mounts import MountsObservation
from reconciler.model.network import FilterObservation, HostNetworkObservation, VeNetworkObservation
from reconciler.model.power import PowerObservation
from reconciler.model.reach import ReachObservation
from reconciler.model.settings import SettingsObservation
from reconciler.model.snapshots import SnapshotsObservation
from reconciler.model.views import Views
from reconciler.model.volume import ImageObservation, Record, TrashEntry, VolumeObservation


class Facet(StrEnum):
    """A part of the host that is observed, diffed and changed by files of one name."""

    __hash__ = str.__hash__  # an enum's own is a function of Python's, and every look hashes thousands

    POWER = "power"
    COMPUTE = "compute"
    VOLUME = "volume"
    NETWORK = "network"
    MOUNTS = "mounts"
    VIEWS = "views"
    DEVICES = "devices"
    SETTINGS = "settings"
    SNAPSHOTS = "snapshots"


ALL_FACETS = frozenset(Facet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which VEs to look at (``uids`` None: all that are there), whether at the host's own objects too, and whether
    at what the VEs use, which is never compared and costs as much to read as all that is."""

    uids: frozenset[Uid] | None = None
    host: bool = True
    use: bool = True


EVERYTHING = Scope()

STATE = Scope(use=False)
"""All that is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VeObservation:
    """One VE. A facet is None where it cannot exist (no cgroup; no namespace because nothing runs), `Unknown` where it
    could not be read or was not asked for."""

    uid: Uid
    record: Record | Unknown
    power: PowerObservation | Unknown
    compute: ComputeObservation | Unknown | None
    volume: VolumeObservation | Unknown
    network: VeNetworkObservation | Unknown | None
    mounts: MountsObservation | Unknown | None
    views: Views | Unknown | None
    devices: DevicesObservation | Unknown | None
    settings: SettingsObservation | Unknown | None = None
    snapshots: SnapshotsObservation | Unknown = field(default_factory=SnapshotsObservation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What this host can do. ``enforceable``: the limits its kernel can hold. ``why_not``: of what it cannot hold,
    the reason by the path of the field.

    Units: ``memory`` bytes of the machine; ``cpus`` and ``nodes`` the numbers there are.
    """

    cgroup: str
    enforceable: frozenset[Limit]
    why_not: Mapping[str, str] = field(default_factory=dict)
    memory: int = 0
    cpus: frozenset[int] = frozenset()
    nodes: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolObservation:
    """Units: bytes."""

    size: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostObservation:
    """One host. ``ves`` holds those in scope; ``complete``: it holds every VE that is on the host.

    ``templates``: digest of the image by key of the source; ``images``: each of them. Parts outside the scope are
    `Unknown`. ``reach``: how the host itself is reached. ``within``: the VE that whoever looks is a process of.
    """

    capabilities: Capabilities
    ves: Mapping[Uid, VeObservation]
    complete: bool
    compute: HostComputeObservation | Unknown
    networks: Mapping[NetworkName, HostNetworkObservation] | Unknown
    filter: FilterObservation | Unknown
    templates: Mapping[Digest, Digest] | Unknown
    trash: tuple[TrashEntry, ...] | Unknown
    images: Mapping[Digest, ImageObservation] = field(default_factory=dict, compare=False)
    pool: PoolObservation | Unknown = field(compare=False)
    reach: ReachObservation | Unknown = field(default_factory=ReachObservation)
    within: Uid | None = None
