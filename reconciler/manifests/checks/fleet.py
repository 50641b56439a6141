"""Checks across the fleet: what must be unique, what must exist, and what must not go in circles."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.manifests.document import Complaint, Document, complain
from reconciler.manifests.problem import Path, did_you_mean
from reconciler.manifests.resolved import ResolvedVe
from reconciler.model.fleet import HostSpec
from reconciler.model.network import Address, NetworkSpec, Subnet

_CIRCLE_SHOWN_MAX = 10
"""Of the names of a circle; a longer one is shown by its ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """All valid documents of a revision, by name; networks with their own gateways in the order they are written in.

    ``known``: names by kind, those of broken documents included. ``certain``: no document is missing for a mistake
    in its file, so that a name that is not known does not exist. ``lacks_hosts``: whether VEs may be without a host on
    a fleet of several, as somebody is about to give them one.
    """

    ves: Mapping[str, ResolvedVe]
    networks: Mapping[str, tuple[Document, NetworkSpec, tuple[Address, ...]]]
    hosts: Mapping[str, tuple[Document, HostSpec]]
    known: Mapping[str, frozenset[str]] = field(repr=False)
    certain: bool = True
    lacks_hosts: bool = False


def unknown(every: Everything, document: Document, path: Path, kind: str, name: str) -> Iterator[Complaint]:
    """Complain about a reference to an object that no document declares."""
    if every.certain and name not in every.known[kind]:
        hint = did_you_mean(name, sorted(every.known[kind])) or f"declare it, with 'kind: {kind}'"
        yield complain(document, path, f"unknown {kind} {name!r}", hint)


def references(every: Everything) -> Iterator[Complaint]:
    """Templates, networks and VEs that a VE names exist."""
    for ve in every.ves.values():
        yield from unknown(every, ve.document, ("spec", "template"), "Template", ve.stake.template)
        for interface in ve.stake.ports:
            if interface.network is not None:
                path = ("spec", "interfaces", interface.name, "network")
                yield from unknown(every, ve.document, path, "Network", interface.network)
        for position, name in enumerate(ve.stake.depends_on):
            where: Path = ("spec", "boot", "dependsOn", position)
            yield from unknown(every, ve.document, where, "VirtualEnvironment", name)


def hosts(every: Everything) -> Iterator[Complaint]:
    """Hosts that are named exist, and on a fleet of several each VE names one."""
    declared = every.known["Host"]
    named = sorted({ve.stake.host for ve in every.ves.values() if ve.stake.host is not None})
    for ve in every.ves.values():
        document, host = ve.document, ve.stake.host
        if host is None and len(declared) > 1:
            if not every.lacks_hosts:
                hint = "needed on a fleet of several hosts; `vectl place` proposes one"
                yield complain(document, ("spec", "host"), "missing field", hint)
        elif host is not None and declared:
            yield from unknown(every, document, ("spec", "host"), "Host", host)
        elif host is not None and len(named) > 1 and every.certain:
            message = f"unknown Host {host!r}: a fleet of several hosts declares them"
            yield complain(document, ("spec", "host"), message, "declare each, with 'kind: Host'")
        for position, replica in enumerate(ve.stake.replicas):
            yield from unknown(every, document, ("spec", "replicas", "hosts", position), "Host", replica)


def identities(every: Everything) -> Iterator[Complaint]:
    """No two VEs claim one identity, by uid or by a former name."""
    uids: dict[str, str] = {}
    former: dict[str, str] = {}
    for name, ve in every.ves.items():
        uid, old = ve.stake.uid, ve.stake.renamed_from
        if uid is not None and (first := uids.setdefault(uid, name)) != name:
            message = f"expected a uid of its own, VE {first!r} has it too"
            yield complain(ve.document, ("metadata", "uid"), message, "remove it where the VE was copied to")
        if old is None:
            continue
        if old in every.known["VirtualEnvironment"]:
            message = f"expected the name of a VE that is no more, {old!r} is declared"
            yield complain(ve.document, ("metadata", "renamedFrom"), message)
        elif (first := former.setdefault(old, name)) != name:
            yield complain(ve.document, ("metadata", "renamedFrom"), f"expected one heir of {old!r}, got {first!r} too")


def addresses(every: Everything) -> Iterator[Complaint]:
    """Every address and every MAC address exists once, gateways and hosts included."""
    owners: dict[tuple[int, int], str] = {}
    for name, (document, _, gateways) in every.networks.items():
        for position, gateway in enumerate(gateways):
            first = owners.setdefault((gateway.version, int(gateway)), f"gateway of network {name}, entry {position}")
            if first != f"gateway of network {name}, entry {position}":
                path = ("spec", "gateway", position)
                yield complain(document, path, f"expected an address of its own, {gateway} is the {first}")
    for name, (document, host) in every.hosts.items():
        if host.address is not None:
            address = ipaddress.ip_address(host.address)
            first = owners.setdefault((address.version, int(address)), f"address of host {name}")
            if first != f"address of host {name}":
                message = f"expected an address of its own, {host.address} is the {first}"
                yield complain(document, ("spec", "address"), message)
    yield from _ve_addresses(every, owners)


def host_keys(every: Everything) -> Iterator[Complaint]:
    """Every host proves itself with a key of its own: two with one key could pass for each other."""
    owners: dict[str, str] = {}
    for name, (document, host) in every.hosts.items():
        if host.public_key is not None and (first := owners.setdefault(host.public_key, name)) != name:
            message = f"expected a key of its own, host {first} has it too"
            hint = f"run `vectl host key` on {name}; a cloned host has `vectl host key --rotate`"
            yield complain(document, ("spec", "publicKey"), message, hint)


def _ve_addresses(every: Everything, owners: dict[tuple[int, int], str]) -> Iterator[Complaint]:
    macs: dict[str, str] = {}
    for name, ve in every.ves.items():
        for interface in ve.stake.ports:
            path = ("spec", "interfaces", interface.name)
            for position, address in enumerate(interface.addresses):
                key = (address.version, int(address))
                if key in owners:
                    message = f"expected an address of its own, {address.ip} is the {owners[key]}"
                    yield complain(ve.document, (*path, "addresses", position), message)
                else:
                    owners[key] = f"address of VE {name}, {interface.name}"
            if interface.mac is not None:
                mine = f"VE {name}, {interface.name}"
                if (first := macs.setdefault(interface.mac, mine)) != mine:
                    yield complain(ve.document, (*path, "mac"), f"expected a MAC address of its own, {first} has it")


def uplinks(every: Everything) -> Iterator[Complaint]:
    """A host interface is the uplink of one network."""
    taken: dict[str, str] = {}
    for name, (document, body, _) in every.networks.items():
        if body.uplink is not None and (first := taken.setdefault(body.uplink, name)) != name:
            message = f"expected an uplink of its own, network {first} has {body.uplink} too"
            yield complain(document, ("spec", "uplink"), message)


def spanning(every: Everything) -> Iterator[Complaint]:
    """Networks that span hosts have a number each, and the hosts addresses that can reach each other beneath them."""
    taken: dict[int, str] = {}
    spans = {name: entry for name, entry in every.networks.items() if entry[1].vxlan is not None}
    for name, (document, body, _) in spans.items():
        if body.vxlan is not None and (first := taken.setdefault(body.vxlan.id, name)) != name:
            message = f"expected an id of its own, network {first} has {body.vxlan.id} too"
            yield complain(document, ("spec", "vxlan", "id"), message)
    if spans:
        yield from _underlay(every, {name: body for name, (_, body, _) in spans.items()})


def _underlay(every: Everything, spans: Mapping[str, NetworkSpec]) -> Iterator[Complaint]:
    versions: dict[int, str] = {}
    for name, (document, host) in every.hosts.items():
        if host.address is None:
            continue
        address, where = ipaddress.ip_address(host.address), ("spec", "address")
        first = versions.setdefault(address.version, name)
        if len(versions) > 1 and first == name:
            message = f"expected the IP version of the other hosts, got {address}"
            hint = f"network {next(iter(spans))} spans hosts, which takes one version for all"
            yield complain(document, where, message, hint)
        for network, body in spans.items():
            if any(subnet.version == address.version and address in subnet for subnet in body.subnets):
                message = f"expected an address beneath network {network}, which spans hosts, got {address} within it"
                yield complain(document, where, message)


def nics(every: Everything) -> Iterator[Complaint]:
    """An interface of a host moves into one VE, and is no network's uplink."""
    only = _only_host(every)
    taken: dict[tuple[str, str], str] = {}
    uplinks = {body.uplink: name for name, (_, body, _) in every.networks.items() if body.uplink is not None}
    for name, ve in every.ves.items():
        for nic in ve.stake.nics:
            mine = f"VE {name}"
            first = taken.setdefault((ve.stake.host or only, nic), mine)
            if first == mine and nic in uplinks:
                first = f"network {uplinks[nic]}"
            if first != mine:
                message = f"expected an interface for this VE alone, {first} has {nic} too"
                yield complain(ve.document, ("spec", "devices", nic, "nic"), message)


def subnets(every: Everything) -> Iterator[Complaint]:
    """On one host each address belongs to one network: the host could not tell where to send it."""
    used = _networks_by_host(every)
    around: list[tuple[str, Subnet]] = []
    for subnet, name, position in sorted(_all_subnets(every), key=_widest_first):
        while around and not _contains(around[-1][1], subnet):
            around.pop()
        for other, wider in around:
            shared = sorted(host for host, names in used.items() if {name, other} <= names) if other != name else []
            if shared:
                where = f" on host {shared[0]}" if shared[0] else ""
                message = f"expected a subnet of its own{where}, {subnet} overlaps {wider} of network {other}"
                hint = "give one of them another subnet, or connect VEs of one host to only one of them"
                yield complain(every.networks[name][0], ("spec", "subnets", position), message, hint)
                break
        around.append((name, subnet))


def _all_subnets(every: Everything) -> Iterator[tuple[Subnet, str, int]]:
    for name, (_, body, _) in every.networks.items():
        for position, subnet in enumerate(body.subnets):
            yield subnet, name, position


def _widest_first(entry: tuple[Subnet, str, int]) -> tuple[int, int, int, str]:
    """Order subnets so that each comes after all that contain it, and before all that lie behind those."""
    subnet, name, _ = entry
    return subnet.version, int(subnet.network_address), subnet.prefixlen, name


def _contains(wider: Subnet, subnet: Subnet) -> bool:
    return wider.version == subnet.version and subnet.network_address in wider


def _networks_by_host(every: Everything) -> dict[str, set[str]]:
    """Give the networks that are needed on each host."""
    used: dict[str, set[str]] = {}
    only = _only_host(every)
    for ve in every.ves.values():
        if _is_yet_to_be_placed(every, ve):
            continue
        names = {interface.network for interface in ve.stake.ports if interface.network is not None}
        used.setdefault(ve.stake.host or only, set()).update(names)
    return used


def _is_yet_to_be_placed(every: Everything, ve: ResolvedVe) -> bool:
    """Say whether a VE is on no host yet, so that it shares none with anybody."""
    return every.lacks_hosts and ve.stake.host is None and len(every.known["Host"]) > 1


def _only_host(every: Everything) -> str:
    """Give the host of the VEs that name none: on a fleet of one it may have no name."""
    named = every.known["Host"] | {other.stake.host for other in every.ves.values() if other.stake.host is not None}
    return next(iter(named)) if len(named) == 1 else ""


def forwards(every: Everything) -> Iterator[Complaint]:
    """Forwards lead to VEs that have an address on the network, and each port of a host leads to one."""
    taken: dict[tuple[str, str, int], str] = {}
    only = _only_host(every)
    for name, (document, body, _) in every.networks.items():
        for position, forward in enumerate(body.forwards):
            path: Path = ("spec", "forwards", position)
            target = forward.ve
            yield from unknown(every, document, (*path, "to"), "VirtualEnvironment", target)
            ve = every.ves.get(target)
            if ve is None or not ve.whole:
                continue
            if not any(interface.network == name and interface.addresses for interface in ve.stake.ports):
                message = f"expected a VE with an address on network {name}, {target!r} has none"
                yield complain(document, (*path, "to"), message)
            if _is_yet_to_be_placed(every, ve):
                continue
            mine, key = f"network {name}, entry {position}", (ve.stake.host or only, forward.protocol, forward.listen)
            if (first := taken.setdefault(key, mine)) != mine:
                message = f"expected a port of its own, {forward.protocol} {forward.listen} is forwarded by {first}"
                yield complain(document, (*path, "listen"), message)


def cycles(every: Everything) -> Iterator[Complaint]:
    """No VE waits for itself, directly or through others."""
    for circle in _circles({name: ve.stake.depends_on for name, ve in every.ves.items()}):
        ve = every.ves[circle[-2]]
        position = ve.stake.depends_on.index(circle[-1])
        message = f"expected no circle, got {_shown_circle(circle)}"
        yield complain(ve.document, ("spec", "boot", "dependsOn", position), message, "remove one of these")


def clones(every: Everything) -> Iterator[Complaint]:
    """No VE is a copy of itself, directly or through others: none of them could ever be made."""
    sources = {name: (ve.stake.clone,) for name, ve in every.ves.items() if ve.stake.clone is not None}
    for circle in _circles(sources):
        message = f"expected the data of another VE, got {_shown_circle(circle)}"
        yield complain(every.ves[circle[-2]].document, ("spec", "source", "clone"), message)


def _circles(ways: Mapping[str, tuple[str, ...]]) -> Iterator[list[str]]:
    """Walk depth first, each VE once; give a closed circle for each way back to the trail.

    A stack of its own: a chain of dependencies may be longer than Python's.
    """
    finished: dict[str, bool] = {}
    for start in ways:
        trail: list[str] = []
        stack = [iter((start,))]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                if trail:
                    finished[trail.pop()] = True
            elif name not in finished and name in ways:
                finished[name] = False
                trail.append(name)
                stack.append(iter(ways[name]))
            elif not finished.get(name, True):
                yield [*trail[trail.index(name) :], name]


def _shown_circle(circle: list[str]) -> str:
    names = circle if len(circle) <= _CIRCLE_SHOWN_MAX else [*circle[: _CIRCLE_SHOWN_MAX - 2], "...", *circle[-2:]]
    return " -> ".join(names)


def all_of(every: Everything) -> Iterator[Complaint]:
    """Run every check of this module."""
    of_hosts = (references, hosts, identities, addresses, host_keys)
    for check in (*of_hosts, uplinks, spanning, nics, subnets, forwards, cycles, clones):
        yield from check(every)
