"""The circle of hosts that know each other: who this one is, and whom its manifests in force pin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.errors import PeerError
from reconciler.fleet.host_key import HostKey
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName
from reconciler.model.public_key import PublicLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Fellow:
    """Another host: where it is reached, and the key that it proves itself with."""

    name: HostName
    address: str
    port: int
    key: PublicLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """This host with its key, and the others by name."""

    name: HostName
    key: HostKey
    fellows: Mapping[HostName, Fellow]

    def fellow(self, name: HostName) -> Fellow:
        """Give another host.

        Raises: PeerError, if it is not one that can be talked to.
        """
        found = self.fellows.get(name)
        if found is None:
            raise PeerError(
                f"talk to {name}: expected a Host manifest with address and publicKey in the revision in force"
            )
        return found


CircleNow: TypeAlias = Callable[[], Circle]
"""Gives the circle as the revision in force has it; the same object for as long as nothing changes."""


def fellows_of(fleet: Fleet, *, own: HostName) -> Mapping[HostName, Fellow]:
    """Give the hosts of a revision that can be talked to, without this one."""
    return {
        name: Fellow(name=name, address=host.address, port=host.port, key=PublicLine(host.public_key))
        for name, host in fleet.hosts.items()
        if name != own and host.address is not None and host.public_key is not None
    }
