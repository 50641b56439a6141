"""Reach: by which addresses, links and routes of its own a host is reached from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.model.network import Address, Interface, Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAddress:
    """A global address of the host itself, and the link that holds it."""

    link: str
    address: Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoute:
    """A route of the host's main table that neither the kernel nor we made; ``via`` None: what is on the link itself.

    ``source``: the address that it prefers. ``protocol``: who made it, as rtnetlink(7) numbers them.
    """

    to: Subnet
    link: str
    via: Address | None = None
    source: Address | None = None
    metric: int = 0
    protocol: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachObservation:
    """How the host is reached. ``sessions``: the addresses at which somebody is logged in by ssh now.

    They are looked for only where a network of ours could carry them.
    """

    addresses: frozenset[HeldAddress] = frozenset()
    routes: frozenset[HostRoute] = frozenset()
    sessions: frozenset[Address] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreAddress:
    """Give a link of the host an address that it had."""

    held: HeldAddress
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRoute:
    """Give the host a route that it had."""

    route: HostRoute
    serves: str = field(default="", compare=False)
