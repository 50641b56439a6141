"""What a revision asks for: the specs of all its documents, canonical and validated against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.compute import ComputeSpec
from reconciler.model.devices import DevicesSpec
from reconciler.model.facts import Json
from reconciler.model.identity import HostName, NetworkName, TemplateName, Uid, VeName
from reconciler.model.mounts import MountSpec
from reconciler.model.network import NetworkSpec, VeNetworkSpec
from reconciler.model.power import PowerSpec
from reconciler.model.settings import SettingsSpec
from reconciler.model.snapshots import SnapshotsSpec, Source
from reconciler.model.volume import TemplateSpec, VolumeSpec


class DriftPolicy(StrEnum):
    """What to do with a field that was changed by hand."""

    CORRECT = "correct"
    WARN = "warn"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the manifests something was written. Units: ``line`` and ``column`` from 1."""

    file: str
    line: int
    column: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSpec:
    """``fields``: the policy by path prefix; the longest match wins over ``default``."""

    default: DriftPolicy = DriftPolicy.CORRECT
    fields: Mapping[str, DriftPolicy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VeSpec:
    """A VE as its manifest, its profiles and the defaults give it.

    ``host`` None: the only host of a fleet of one. ``protect``: True, an explicit False, or None where no manifest
    says anything, which leaves a protection in force. ``rlimits``, ``nesting`` and ``init_*`` are fixed at launch.
    ``spread``: labels; VEs with equal values of them are to be on different hosts.
    ``source``: read at creation only. ``keep``: directories that outlive a new root file system.
    ``mounts`` are by target. ``fuse``: said as a feature; the device is among ``devices`` then.
    ``unsupported``: paths of fields that were set but that this version cannot carry out; such a VE is refused.
    """

    name: VeName
    uid: Uid | None = None
    renamed_from: VeName | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    host: HostName | None = None
    power: PowerSpec = field(default_factory=PowerSpec)
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    volume: VolumeSpec
    network: VeNetworkSpec
    mounts: Mapping[str, MountSpec] = field(default_factory=dict)
    devices: DevicesSpec = field(default_factory=DevicesSpec)
    settings: SettingsSpec = field(default_factory=SettingsSpec)
    snapshots: SnapshotsSpec = field(default_factory=SnapshotsSpec)
    source: Source | None = None
    keep: tuple[str, ...] = ()
    rlimits: Mapping[str, int] = field(default_factory=dict)
    nesting: bool = False
    fuse: bool = False
    spread: tuple[str, ...] = ()
    protect: bool | None = None
    drift: DriftSpec = field(default_factory=DriftSpec)
    unsupported: tuple[str, ...] = ()
    place: Place | None = field(default=None, compare=False)
    canonical: dict[str, Json] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `plan.spec` works out of all of it, once: a pass over hundreds of VEs asks for it many times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A host of the fleet. Units: bytes; CPUs; ``overcommit`` a factor per resource.

    ``capacity``: what the machine is said to have, by resource; CPUs as in `ComputeSpec`.
    """

    name: HostName
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    port: int = 7443
    public_key: str | None = None
    capacity: Mapping[str, int] = field(default_factory=dict)
    reserve_memory: int = 0
    reserve_cpu: float = 0.0
    reserve_disk: int = 0
    overcommit: Mapping[str, float] = field(default_factory=dict)
    maintenance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All that one revision asks for, on all hosts. ``revision``: a commit, or a digest of a directory's content."""

    revision: str
    ves: Mapping[VeName, VeSpec] = field(default_factory=dict)
    networks: Mapping[NetworkName, NetworkSpec] = field(default_factory=dict)
    templates: Mapping[TemplateName, TemplateSpec] = field(default_factory=dict)
    hosts: Mapping[HostName, HostSpec] = field(default_factory=dict)
    cpu_weights: dict[tuple[HostName, frozenset[int]], Mapping[VeName, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What `plan.cpu_share` works out for a host and its CPUs, once: a look at one VE needs it as one at all does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a revision, for people: where, which field, what was expected, and the remedy.

    ``source``: the line of the file that ``place`` points at, for the caret.
    """

    place: Place
    path: str
    message: str
    hint: str = ""
    source: str = ""

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl validate -o json`."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }
