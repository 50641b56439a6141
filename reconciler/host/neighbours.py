"""Neighbours: the hardware addresses that a VE had learnt, so that it need not ask for them where it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from reconciler.errors import KernelError
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import neighbour
from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.model.identity import Uid, link_alias
from reconciler.model.network import Address

_MOST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was learnt on an interface: who has an address."""

    interface: str
    address: Address
    mac: str


def find(site: Site, uid: Uid, into: Inside) -> tuple[Known, ...]:
    """Give what a VE has learnt on its interfaces from us, but for what this host itself has: elsewhere another host
    stands in its place.

    Raises: KernelError.
    """
    alias = link_alias(site.instance.name, uid)
    names = {entry.index: entry.name for entry in into.rtnl.dump_links() if entry.alias == alias}
    own = {entry.mac for entry in site.rtnl.dump_links()}
    found = [
        Known(interface=names[entry.index], address=entry.address, mac=entry.mac)
        for entry in into.rtnl.dump_neighbours()
        if entry.index in names and neighbour.is_learnt(entry) and entry.mac is not None and entry.mac not in own
    ]
    return tuple(found[:_MOST])


def teach(site: Site, uid: Uid, into: Inside, known: Sequence[Known]) -> None:
    """Let a VE know what it had learnt, on interfaces of the same names; what the kernel takes not is asked for anew.

    Raises: KernelError, if its links cannot be listed.
    """
    alias = link_alias(site.instance.name, uid)
    indexes = {entry.name: entry.index for entry in into.rtnl.dump_links() if entry.alias == alias}
    for entry in known:
        if entry.interface in indexes:
            with suppress(KernelError):
                neighbour.learn(into.rtnl, indexes[entry.interface], entry.address, entry.mac)


def to_json(known: Sequence[Known]) -> Json:
    """Give the JSON form."""
    return {f"{entry.interface} {entry.address}": entry.mac for entry in known}


def from_json(fields: Fields) -> tuple[Known, ...]:
    """Take apart what `to_json` gave, which stands under the name ``neighbours``.

    Raises: StateError; ValueError.
    """
    found = []
    for words, mac in fields.strings("neighbours").items():
        interface, _, address = words.rpartition(" ")
        found.append(Known(interface=interface, address=ip_address(address), mac=mac))
    return tuple(found)
