"""One instance of vectl on a machine: where everything of it lives. Two instances never meet."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.model.identity import Digest, HostName, Uid

DEFAULT_LIB = "/usr/lib/vectl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Paths are absolute; ``cgroup`` is relative to the mount of each hierarchy. Units: ``pool_size`` bytes.

    ``lib_dir``: vectl's own directory of programs, whose ``bin`` comes before the system's.
    """

    name: str
    host: HostName
    state_dir: str
    run_dir: str
    cgroup: str
    runtime: str = "runc"
    pool_size: int = 16 << 30
    pool_path: str | None = None
    lib_dir: str = DEFAULT_LIB

    @property
    def pool(self) -> str:
        """Mount point of the btrfs file system that holds the VEs."""
        return f"{self.state_dir}/pool"

    @property
    def programs(self) -> str:
        """Directory of the programs that vectl brings itself."""
        return f"{self.lib_dir}/bin"

    @property
    def ves(self) -> str:
        """Directory of the VEs' directories, in the pool."""
        return f"{self.pool}/ves"

    @property
    def trash(self) -> str:
        """Directory of removed VEs, in the pool."""
        return f"{self.pool}/trash"

    @property
    def moves(self) -> str:
        """Directory of what is sent to other hosts and received from them, in the pool, a directory for each move."""
        return f"{self.pool}/moves"

    @property
    def templates(self) -> str:
        """Directory of the template images."""
        return f"{self.state_dir}/templates"

    def ve_dir(self, uid: Uid) -> str:
        """A VE's directory: its record and its volume."""
        return f"{self.ves}/{uid}"

    def volume(self, uid: Uid) -> str:
        """A VE's subvolume, with ``upper`` and ``work``."""
        return f"{self.ve_dir(uid)}/volume"

    def snapshots_dir(self, uid: Uid) -> str:
        """Directory of a VE's snapshots, one directory each."""
        return f"{self.ve_dir(uid)}/snapshots"

    def suspended_dir(self, uid: Uid) -> str:
        """A suspended VE's memory and the state of its data that belongs to it, as in a snapshot's directory."""
        return f"{self.ve_dir(uid)}/suspended"

    def record_file(self, uid: Uid) -> str:
        """A VE's record."""
        return f"{self.ve_dir(uid)}/record.json"

    def ledger_file(self, uid: Uid) -> str:
        """What is remembered of a VE's counters."""
        return f"{self.ve_dir(uid)}/counters.json"

    def ve_run_dir(self, uid: Uid) -> str:
        """A VE's volatile files: bundle, handle, exit."""
        return f"{self.run_dir}/ves/{uid}"

    def ve_rootfs(self, uid: Uid) -> str:
        """Where a VE's root directory is mounted for whoever makes or restores it, and for nobody else."""
        return f"{self.ve_run_dir(uid)}/bundle/rootfs"

    def template_image(self, digest: Digest) -> str:
        """A template's image file."""
        return f"{self.templates}/{digest}.erofs"

    def template_mount(self, digest: Digest) -> str:
        """Where a template's image is mounted, read-only."""
        return f"{self.run_dir}/templates/{digest}"

    def ve_cgroup(self, uid: Uid) -> str:
        """A VE's cgroup, which holds its limits; its child ``ve`` is delegated."""
        return f"{self.cgroup}/{uid}"
