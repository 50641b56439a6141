"""Settings: what the kernel keeps for a running VE beside its cgroup, in its namespaces and on its sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from reconciler.model.facts import Json
from reconciler.model.identity import Uid

TCP_SOCKETS = "sockets.tcp"
OTHER_SOCKETS = "sockets.other"
TERMINALS = "devpts.max"
"""Settings that are no parameters of the kernel by name: limits of sockets and of pseudo terminals."""

Sysctl = Literal[
    "net.core.somaxconn",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.forwarding",
]
"""A parameter of the network namespace that a manifest may set."""

SYSCTLS: tuple[str, ...] = get_args(Sysctl)

IPC_PREFIXES = ("kernel.", "fs.mqueue.")
"""Parameters that belong to the IPC namespace; the others, of ``net``, belong to the network namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSpec:
    """Shape: ``values`` by name, numbers joined by single spaces; what is not named is as the kernel made it.

    ``declared``: what the manifest says, by the paths of its fields; not all of it becomes a value.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    declared: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsObservation:
    """``values``: what the kernel holds now of those that were set since the VE was made, by name.

    Nothing else is looked at: what was never set is the VE's own affair.
    """

    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSetting:
    """Give a setting of a VE that has namespaces a value; with None the one that it had before it was first set."""

    uid: Uid
    name: str
    value: str | None
    serves: str = field(default="", compare=False)
