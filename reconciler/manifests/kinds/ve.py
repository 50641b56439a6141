"""The VirtualEnvironment kind, and the Profile kind that holds parts of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from reconciler.manifests.fields import (
    AbsolutePath,
    CountLimit,
    Duration,
    Hostname,
    IoLimit,
    Items,
    LabelKey,
    LinkName,
    Name,
    Note,
    Text,
    UidText,
)
from reconciler.manifests.kinds.base import Manifest, Metadata, Section, shared
from reconciler.manifests.kinds.compute import Beancounters, Cpu, Ipc, Memory, Rlimits
from reconciler.manifests.kinds.network import Dns, Interface, ProfileInterface
from reconciler.manifests.kinds.power import Boot, PowerWord
from reconciler.manifests.kinds.volume import Disk, Rollback, Snapshot, SnapshotSchedule, Source
from reconciler.model import compute, power
from reconciler.model.fleet import DriftPolicy
from reconciler.model.settings import Sysctl

DriftWord = Annotated[DriftPolicy, Strict(False)]


class Io(Section):
    """Traffic with the pool's disks, in a second. Of several disks, each has the limit for itself."""

    weight: int = Field(100, ge=1, le=1000, description="Share of a disk when it is busy, in relation to other VEs.")
    read: IoLimit = Field(None, description="Most bytes read in a second, at least 64Ki. Unlimited, if left out.")
    write: IoLimit = Field(None, description="Most bytes written in a second, at least 64Ki. Unlimited, if left out.")
    read_ops: CountLimit = Field(None, description="Most read operations in a second.")
    write_ops: CountLimit = Field(None, description="Most write operations in a second.")


class Device(Section):
    """A device of the host: a device file, or a network interface that moves into the VE."""

    path: AbsolutePath | None = Field(None, description="Device file, such as /dev/net/tun.")
    access: Literal["r", "w", "rw", "rwm"] = Field("rw", description="What the VE may do: read, write, make the node.")
    nic: LinkName | None = Field(None, description="Network interface of the host.")

    @model_validator(mode="after")
    def _one_device(self) -> Device:
        if (self.path is None) == (self.nic is None):
            raise ValueError("expected either path or nic")
        return self


class Mount(Section):
    """A directory of the host that is seen inside the VE."""

    source: AbsolutePath | None = Field(
        None, description="Directory of the host, no symbolic link on the way. Needed here or in a profile."
    )
    target: AbsolutePath = Field(description="Where the VE sees it.")
    read_only: bool = Field(False, description="Whether the VE may only read it.")


class Access(Section):
    """Who may log in."""

    ssh_keys: Items[Text] = Field((), description="Public keys of root, one line each.")


class Features(Section):
    """What the VE may do beyond the usual."""

    nesting: bool = Field(False, description="Whether containers may run inside it. A change needs a restart.")
    fuse: bool = Field(False, description="Whether it may mount FUSE file systems.")


class Security(Section):
    """How tightly the VE is confined."""

    profile: Literal["system", "app"] = Field(
        "system", description="system: boots an init like a machine. app: runs one process, confined more tightly."
    )
    command: Items[Text] = Field((), description="Command of profile app.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of that command.")
    user: Text | None = Field(None, description="User, or user:group, that the command runs as.")


class Migration(Section):
    """How the VE may be moved to another host."""

    strategies: Items[Literal["live", "near-live", "restart"]] = Field(
        ("live", "near-live"), description="Allowed ways, best first. restart is only used if it is listed."
    )


class Replicas(Section):
    """Copies of the data on other hosts."""

    hosts: Items[Name] = Field((), description="Hosts that keep a copy.")
    every: Duration = Field(300.0, description="Time between two copies.")


class Drift(Section):
    """What happens to changes by hand."""

    default: DriftWord = Field(
        DriftPolicy.CORRECT, description="correct: put right. warn: leave and tell. ignore: leave."
    )
    fields: dict[str, DriftWord] = Field(
        default_factory=dict, description="The same by field, such as `interfaces: warn`; the longest path wins."
    )


class ProfileBody(Section):
    """The part of a VE's spec that profiles may hold."""

    description: Note | None = Field(None, description="A line for people.")
    template: Name = Field("busybox", description="Template that the VE is made from. Read at creation only.")
    keep: Items[AbsolutePath] = Field((), description="Directories that are carried over when the VE is made anew.")
    power: PowerWord = Field(
        power.PowerSpec().state,
        description="Whether it runs. suspended: its memory is on disk, its processes are gone.",
    )
    hostname: Hostname | None = Field(None, description="Host name inside. The VE's name, if left out.")
    dns: Dns | None = Field(None, description="Name servers. Left to the VE, if left out.")
    boot: Boot = Field(default_factory=shared(Boot), description="How it starts and stops.")
    cpu: Cpu = Field(default_factory=shared(Cpu), description="CPU time and the CPUs it is spent on.")
    memory: Memory = Field(default_factory=shared(Memory), description="Memory and swap.")
    processes: CountLimit = Field(compute.ComputeSpec().processes, description="Most processes and threads.")
    beancounters: Beancounters = Field(
        default_factory=shared(Beancounters), description="OpenVZ's counters that no other field stands for."
    )
    rlimits: Rlimits = Field(default_factory=shared(Rlimits), description="Resource limits of each process.")
    ipc: Ipc = Field(default_factory=shared(Ipc), description="Limits of System V and POSIX IPC.")
    sysctls: dict[Sysctl, str] = Field(
        default_factory=dict, description="Kernel settings of its own, as text, out of a short list."
    )
    io: Io = Field(default_factory=shared(Io), description="Disk traffic.")
    disk: Disk = Field(default_factory=shared(Disk), description="Disk space and files.")
    interfaces: Items[ProfileInterface] = Field((), description="Network interfaces, keyed by name.")
    devices: Items[Device] = Field((), description="Devices of the host, keyed by path or nic.")
    mounts: Items[Mount] = Field((), description="Directories of the host, keyed by target.")
    access: Access = Field(default_factory=shared(Access), description="Who may log in.")
    features: Features = Field(default_factory=shared(Features), description="What it may do beyond the usual.")
    security: Security = Field(default_factory=shared(Security), description="How tightly it is confined.")
    snapshots: Items[Snapshot] = Field((), description="Snapshots that are to exist, keyed by name.")
    snapshot_schedule: SnapshotSchedule | None = Field(None, description="Snapshots taken by the clock.")
    migration: Migration = Field(default_factory=shared(Migration), description="How it may be moved to another host.")
    replicas: Replicas | None = Field(None, description="Copies of the data on other hosts.")
    spread: Items[LabelKey] = Field(
        (), description="Labels: VEs with equal values of them are kept on different hosts."
    )
    protect: bool | None = Field(
        None,
        description="Whether deletion is refused, even after the manifest is gone. Only an explicit false lifts it.",
    )
    drift: Drift = Field(default_factory=shared(Drift), description="What happens to changes by hand.")


class VeBody(ProfileBody):
    """A VE: everything that is not set is at its default."""

    host: Name | None = Field(None, description="Host that it runs on. May be left out on a fleet of one.")
    profile: Items[Name] = Field((), description="Profiles; later ones win over earlier ones, and the VE over all.")
    source: Source | None = Field(None, description="Where its data comes from: clone wins over the template.")
    interfaces: Items[Interface] = Field((), description="Network interfaces, keyed by name.")
    rollback: Rollback | None = Field(None, description="A return of the data to a snapshot, done once.")


class VeMetadata(Metadata):
    """Who the VE is."""

    uid: UidText | None = Field(None, description="Identity; pins it across renames. Made at creation, if left out.")
    renamed_from: Name | None = Field(None, description="Former name of the VE that this manifest goes on with.")


class VirtualEnvironment(Manifest):
    """A system container."""

    kind: Literal["VirtualEnvironment"] = Field(description="The kind.")
    metadata: VeMetadata = Field(description="Who the VE is.")
    spec: VeBody = Field(default_factory=shared(VeBody), description="What the VE is.")


class Profile(Manifest):
    """Part of a VE's spec, to be shared by VEs that name it."""

    kind: Literal["Profile"] = Field(description="The kind.")
    spec: ProfileBody = Field(
        default_factory=shared(ProfileBody), description="Any part of a VE's spec but what is its own."
    )
