"""The Host kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.fields import Cpus, IpAddress, Port, PublicKey, Size
from reconciler.manifests.kinds.base import Manifest, Section, shared


class Capacity(Section):
    """What the machine has: what `vectl capacity` shows there. For checks where the host is not."""

    memory: Size | None = Field(None, description="Memory, in bytes.")
    cpu: Cpus | None = Field(None, description="CPUs.")
    disk: Size | None = Field(None, description="Disk space of the pool, in bytes.")


class Reserve(Section):
    """What the host keeps for itself."""

    memory: Size = Field(0, description="Memory, in bytes.")
    cpu: float = Field(0.0, ge=0, description="CPUs.")
    disk: Size = Field(0, description="Disk space, in bytes.")


class Overcommit(Section):
    """How much more than it has, without its reserve, the host may promise as limits; any amount, if left out.

    Guarantees are never promised beyond what there is.
    """

    memory: float | None = Field(None, gt=0, le=1000, description="Factor of the memory.")
    cpu: float | None = Field(None, gt=0, le=1000, description="Factor of the CPUs.")
    disk: float | None = Field(None, gt=0, le=1000, description="Factor of the disk space.")


class HostBody(Section):
    """A host."""

    address: IpAddress | None = Field(None, description="Address that other hosts reach it at.")
    port: Port = Field(7443, description="Port that other hosts reach it at.")
    public_key: PublicKey | None = Field(
        None, description="Key that it proves its identity with: the line of `vectl host key`."
    )
    capacity: Capacity = Field(
        default_factory=shared(Capacity),
        description="What the machine has, so that `vectl validate` can add up what its VEs are promised.",
    )
    reserve: Reserve = Field(default_factory=shared(Reserve), description="What it keeps for itself.")
    overcommit: Overcommit = Field(
        default_factory=shared(Overcommit), description="How much more than it has it may promise."
    )
    maintenance: bool = Field(False, description="Whether no VE is to be placed on it.")


class Host(Manifest):
    """A host of the fleet. Not needed on a fleet of one."""

    kind: Literal["Host"] = Field(description="The kind.")
    spec: HostBody = Field(default_factory=shared(HostBody), description="What the host is.")
