"""Mounts: directories of the host that are seen inside a VE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model.identity import Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """``source``: a directory of the host, without symbolic links on the way to it; what is mounted below it stays
    out. Owners on its disk are the VE's own."""

    source: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MountsObservation:
    """What is mounted where it was put, by target. What the VE's root has mounted is his own."""

    mounts: Mapping[str, MountSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddMount:
    """Show a directory of the host in a VE, in the place of another one that was shown there."""

    uid: Uid
    target: str
    mount: MountSpec
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMount:
    """Take a directory of the host out of a VE; the empty one in which it was seen stays."""

    uid: Uid
    target: str
    serves: str = field(default="", compare=False)
