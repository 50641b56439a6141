"""Devices: device files of the host in a VE, and network interfaces of the host that move into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model.identity import Uid

FUSE = "/dev/fuse"
"""What a VE needs of the host to mount file systems of its own programs; a feature of its own in manifests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesSpec:
    """``nodes``: what the VE may do, of the letters ``rwm``, by the path, which is the same on the host and inside.

    ``nics``: names of interfaces of the host.
    """

    nodes: Mapping[str, str] = field(default_factory=dict)
    nics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesObservation:
    """What of the host's devices is in a VE, in the shape of `DevicesSpec`; an access of "" is none at all."""

    nodes: Mapping[str, str] = field(default_factory=dict)
    nics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDevice:
    """Give a VE a device file of the host with exactly this access."""

    uid: Uid
    path: str
    access: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveDevice:
    """Take a device file from a VE; who has it open keeps it."""

    uid: Uid
    path: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNic:
    """Move a network interface of the host into a VE."""

    uid: Uid
    nic: str
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNic:
    """Move a network interface back to the host, under its name there."""

    uid: Uid
    nic: str
    serves: str = field(default="", compare=False)
