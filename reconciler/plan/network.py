"""Network: a VE's names and interfaces, all changed live; only a lost address or link costs connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from ipaddress import ip_interface

from reconciler.model.action import Impact
from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.identity import NetworkName, Uid, bridge_name, derived_mac
from reconciler.model.network import (
    DEFAULT_MTU,
    AddAddress,
    AddHostRoute,
    Address,
    AddRoute,
    AnnounceAddress,
    AttachInterface,
    CreateInterface,
    Direction,
    Interface,
    InterfaceObservation,
    InterfaceSpec,
    NetworkMode,
    NetworkSpec,
    RemoveAddress,
    RemoveHostRoute,
    RemoveInterface,
    RemoveRoute,
    SetHostname,
    SetInterfaceMac,
    SetInterfaceMtu,
    SetInterfaceRate,
    SetInterfaceUp,
    SetLoopbackUp,
    SetResolver,
    VeNetworkObservation,
    VeNetworkSpec,
)
from reconciler.model.observation import Facet
from reconciler.plan.field import Difference, Field, Value, changed_paths

FIELDS = (
    Field(path="hostname", facet=Facet.NETWORK, impact=Impact.LIVE, default="<the VE's name>"),
    Field(path="dns", facet=Facet.NETWORK, impact=Impact.LIVE, default=None, effect="/etc/resolv.conf"),
    Field(path="interfaces.*", facet=Facet.NETWORK, impact=Impact.NETWORK, default=None, effect="link made or removed"),
    Field(path="interfaces.*.network", facet=Facet.NETWORK, impact=Impact.NETWORK, default="<required>"),
    Field(path="interfaces.*.isolated", facet=Facet.NETWORK, impact=Impact.LIVE, default="<the Network's>"),
    Field(path="interfaces.*.mtu", facet=Facet.NETWORK, impact=Impact.LIVE, default="<the Network's>"),
    Field(path="interfaces.*.mac", facet=Facet.NETWORK, impact=Impact.NETWORK, default="<derived from uid>"),
    Field(path="interfaces.*.rate.egress", facet=Facet.NETWORK, impact=Impact.LIVE, default=None, effect="hard limit"),
    Field(path="interfaces.*.rate.ingress", facet=Facet.NETWORK, impact=Impact.LIVE, default=None, effect="hard limit"),
    Field(path="interfaces.*.up", facet=Facet.NETWORK, impact=Impact.LIVE, default=True),
    Field(path="interfaces.*.addresses", facet=Facet.NETWORK, impact=Impact.NETWORK, default=[]),
    Field(path="interfaces.*.routes", facet=Facet.NETWORK, impact=Impact.LIVE, default="<default by the gateways>"),
    Field(path="loopback", facet=Facet.NETWORK, impact=Impact.LIVE, default=True),
)


_IPV6_MTU = 1280
"""The least that IPv6 needs of a link. Units: bytes. Source: RFC 8200, section 5."""


class InterfacePlan:
    """What one interface of one VE should be, in the same form in which it is observed."""

    def __init__(self, instance: str, uid: Uid, spec: InterfaceSpec) -> None:
        self.spec, self.uid = spec, uid
        self.mac = spec.mac or derived_mac(uid, spec.name)
        self.bridge = bridge_name(instance, spec.network) if spec.mode is NetworkMode.BRIDGED else None
        self.host_routes = frozenset(a.ip for a in spec.addresses) if spec.mode is NetworkMode.ROUTED else frozenset()

    def values(self) -> dict[str, Value]:
        """Give the canonical values by the last part of the path."""
        return {
            "network": self.bridge,
            "isolated": self.spec.isolated and self.bridge is not None,
            "mtu": self.spec.mtu,
            "mac": self.mac,
            "rate.egress": self.spec.rate.egress,
            "rate.ingress": self.spec.rate.ingress,
            "up": True,
            "addresses": (self.spec.addresses, self.host_routes),
            "routes": self.spec.routes,
        }


def _observed(link: InterfaceObservation) -> dict[str, Value]:
    return {
        "network": link.bridge,
        "isolated": link.isolated,
        "mtu": link.mtu,
        "mac": link.mac,
        "rate.egress": link.rate.egress,
        "rate.ingress": link.rate.ingress,
        "up": link.up and link.host_up,
        "addresses": (link.addresses, link.host_routes),
        "routes": link.routes,
    }


def differences(
    instance: str, uid: Uid, spec: VeNetworkSpec, observed: VeNetworkObservation
) -> Iterator[tuple[str, Value, Value]]:
    """Yield (path, desired, observed) of everything that is not as desired."""
    yield from _named(spec, observed)
    for name in sorted(observed.interfaces.keys() - spec.interfaces.keys()):
        yield f"interfaces.{name}", None, observed.interfaces[name]
    for name, interface in sorted(spec.interfaces.items()):
        wanted, path = InterfacePlan(instance, uid, interface), f"interfaces.{name}"
        link = observed.interfaces.get(name)
        if link is None:
            yield path, interface, None
            continue
        seen = _observed(link)
        for part in changed_paths(wanted.values(), seen):
            yield f"{path}.{part}", wanted.values()[part], seen[part]


def _named(spec: VeNetworkSpec, observed: VeNetworkObservation) -> Iterator[tuple[str, Value, Value]]:
    if spec.hostname != observed.hostname:
        yield "hostname", spec.hostname, observed.hostname
    if spec.resolver is not None and spec.resolver != observed.resolver:
        yield "dns", spec.resolver, observed.resolver
    if not observed.loopback_up:
        yield "loopback", True, False


def record_values(spec: VeNetworkSpec) -> dict[str, Value]:
    """Give the spec's own words by path, for the record and for people."""
    values: dict[str, Value] = {"hostname": spec.hostname, "dns": spec.resolver}
    for name, interface in sorted(spec.interfaces.items()):
        values[f"interfaces.{name}.network"] = interface.network
        values[f"interfaces.{name}.mode"] = interface.mode
        values[f"interfaces.{name}.isolated"] = interface.isolated
        values[f"interfaces.{name}.mtu"] = interface.mtu
        values[f"interfaces.{name}.mac"] = interface.mac or "auto"
        values[f"interfaces.{name}.rate.egress"] = interface.rate.egress
        values[f"interfaces.{name}.rate.ingress"] = interface.rate.ingress
        values[f"interfaces.{name}.addresses"] = interface.addresses
        values[f"interfaces.{name}.routes"] = interface.routes
    return values


def recorded_as(path: str) -> tuple[str, ...]:
    """Name the paths of the record on which a compared value rests: what leads to a VE differs with the mode too."""
    parts = path.split(".")
    if len(parts) == 3 and parts[0] == "interfaces" and parts[2] in ("network", "addresses"):
        return path, f"interfaces.{parts[1]}.mode"
    return (path,)


def observed_values(observed: VeNetworkObservation) -> dict[str, Value]:
    """Give what was seen, in the shape of the spec."""
    values: dict[str, Value] = {"hostname": observed.hostname, "dns": observed.resolver}
    for name, link in sorted(observed.interfaces.items()):
        for part in ("mtu", "mac", "addresses", "routes"):
            values[f"interfaces.{name}.{part}"] = getattr(link, part)
        values[f"interfaces.{name}.rate.egress"] = link.rate.egress
        values[f"interfaces.{name}.rate.ingress"] = link.rate.ingress
        values[f"interfaces.{name}.up"] = link.up and link.host_up
        values[f"interfaces.{name}.bridge"] = link.bridge
    return values


def explain(path: str, value: Value) -> Value:
    """Give the part of a compared value that means something to people."""
    if value is None or not path.startswith("interfaces."):
        return value
    if path.endswith(".addresses") and isinstance(value, tuple):
        return value[0]
    if path.count(".") == 1 and isinstance(value, InterfaceSpec | InterfaceObservation):
        return value.addresses
    return value


def as_written(values: Mapping[str, Json], path: str) -> Json:
    """Give a value in the words of manifests, where what is compared is derived from the host or the VE's uid, or None.

    ``values``: those of a record, by path.
    """
    match path.split("."):
        case ["interfaces", _, "network"] if path in values:
            return f"{values[path]} ({values[path.removesuffix('network') + 'mode']})"
        case ["interfaces", _, "mac"]:
            return values.get(path)
    return None


def impact(difference: Difference) -> Impact:
    """Judge a change: connections drop only where an address or a link goes away."""
    desired, observed = difference.desired, difference.observed
    if difference.path.count(".") == 1 and difference.path.startswith("interfaces."):
        return Impact.NETWORK if desired is None else Impact.LIVE
    if difference.path.endswith(".addresses"):
        assert isinstance(desired, tuple)
        assert isinstance(observed, tuple)
        return Impact.NETWORK if observed[0] - desired[0] else Impact.LIVE
    return difference.field.impact


def set_effects(instance: str, uid: Uid, spec: VeNetworkSpec, difference: Difference) -> tuple[Effect, ...]:
    """Carry out one difference."""
    match difference.path.split("."):
        case ["hostname"]:
            return (SetHostname(uid=uid, hostname=spec.hostname),)
        case ["dns"]:
            assert spec.resolver is not None
            return (SetResolver(uid=uid, resolver=spec.resolver),)
        case ["loopback"]:
            return (SetLoopbackUp(uid=uid),)
        case ["interfaces", name] if difference.desired is None:
            return (RemoveInterface(uid=uid, interface=name),)
        case ["interfaces", name]:
            return tuple(_make(InterfacePlan(instance, uid, spec.interfaces[name])))
        case ["interfaces", name, "rate", direction]:
            return (_rate(InterfacePlan(instance, uid, spec.interfaces[name]), Direction(direction)),)
        case ["interfaces", name, part]:
            return tuple(_change(InterfacePlan(instance, uid, spec.interfaces[name]), part, difference))
    raise AssertionError(difference.path)


def _make(wanted: InterfacePlan) -> Iterator[Effect]:
    uid, name = wanted.uid, wanted.spec.name
    yield from _with_addresses(wanted)
    yield _attach(wanted)
    yield SetInterfaceUp(uid=uid, interface=name)
    yield from _host_routes(wanted)
    yield from _routes(wanted)
    yield from announcements(uid, wanted.spec)


def _with_addresses(wanted: InterfacePlan) -> Iterator[Effect]:
    spec, uid = wanted.spec, wanted.uid
    yield CreateInterface(uid=uid, interface=spec.name, mac=wanted.mac, mtu=spec.mtu)
    for effect in map(partial(_rate, wanted), Direction):
        if effect.rate is not None:
            yield effect
    for address in sorted(spec.addresses, key=str):
        yield AddAddress(uid=uid, interface=spec.name, address=address)


def _host_routes(wanted: InterfacePlan) -> Iterator[AddHostRoute]:
    for host_route in sorted(wanted.host_routes, key=str):
        yield AddHostRoute(uid=wanted.uid, interface=wanted.spec.name, address=host_route)


def _rate(wanted: InterfacePlan, direction: Direction) -> SetInterfaceRate:
    rate: int | None = getattr(wanted.spec.rate, direction)
    return SetInterfaceRate(uid=wanted.uid, interface=wanted.spec.name, direction=direction, rate=rate)


def _attach(wanted: InterfacePlan) -> AttachInterface:
    spec = wanted.spec
    return AttachInterface(
        uid=wanted.uid, interface=spec.name, network=spec.network, mode=spec.mode, isolated=spec.isolated
    )


def _routes(wanted: InterfacePlan) -> Iterator[AddRoute]:
    """Routes on the link come before the routes through a gateway that they make reachable."""
    for route in sorted(wanted.spec.routes, key=lambda r: (r.via != "", r.to, r.via)):
        yield AddRoute(uid=wanted.uid, interface=wanted.spec.name, route=route)


def announcements(uid: Uid, spec: InterfaceSpec) -> Iterator[AnnounceAddress]:
    """Tell the neighbours all addresses of an interface."""
    for address in sorted(spec.addresses, key=str):
        yield AnnounceAddress(uid=uid, interface=spec.name, address=address.ip)


def _change(wanted: InterfacePlan, part: str, difference: Difference) -> Iterator[Effect]:
    uid, name = wanted.uid, wanted.spec.name
    match part:
        case "network" | "isolated":
            yield _attach(wanted)
        case "mtu":
            yield SetInterfaceMtu(uid=uid, interface=name, mtu=wanted.spec.mtu)
        case "mac":
            yield SetInterfaceMac(uid=uid, interface=name, mac=wanted.mac)
            yield from announcements(uid, wanted.spec)
        case "up":
            yield _attach(wanted)
            yield SetInterfaceUp(uid=uid, interface=name)
            for address in sorted(wanted.spec.addresses, key=str):  # the kernel drops IPv6 ones from a link set down
                yield AddAddress(uid=uid, interface=name, address=address)
            yield from _routes(wanted)
        case "addresses":
            yield from _renumber(wanted, difference)
        case "routes":
            yield from _reroute(wanted, difference)


def _renumber(wanted: InterfacePlan, difference: Difference) -> Iterator[Effect]:
    """Add before removing, so that the VE is never without an address, and mend the routes that went with the old.

    Only an address that gets another prefix goes first: the kernel holds an IPv6 address once.
    """
    uid, name = wanted.uid, wanted.spec.name
    assert isinstance(difference.observed, tuple)
    had: frozenset[Interface] = difference.observed[0]
    led: frozenset[Address] = difference.observed[1]
    added = sorted(wanted.spec.addresses - had, key=str)
    removed = sorted(had - wanted.spec.addresses, key=str)
    again = {address.ip for address in added}
    for address in removed:
        if address.ip in again:
            yield RemoveAddress(uid=uid, interface=name, address=address)
    for address in added:
        yield AddAddress(uid=uid, interface=name, address=address)
    for host_route in sorted(wanted.host_routes - led, key=str):
        yield AddHostRoute(uid=uid, interface=name, address=host_route)
    for address in removed:
        if address.ip not in again:
            yield RemoveAddress(uid=uid, interface=name, address=address)
    for host_route in sorted(led - wanted.host_routes, key=str):
        yield RemoveHostRoute(uid=uid, interface=name, address=host_route)
    yield from _routes(wanted)
    for address in added:
        yield AnnounceAddress(uid=uid, interface=name, address=address.ip)


def _reroute(wanted: InterfacePlan, difference: Difference) -> Iterator[Effect]:
    assert isinstance(difference.observed, frozenset)
    for route in sorted(difference.observed - wanted.spec.routes):
        yield RemoveRoute(uid=wanted.uid, interface=wanted.spec.name, route=route)
    for route in sorted(wanted.spec.routes - difference.observed, key=lambda r: (r.via != "", r.to, r.via)):
        yield AddRoute(uid=wanted.uid, interface=wanted.spec.name, route=route)


def boot_effects(instance: str, uid: Uid, spec: VeNetworkSpec) -> tuple[Effect, ...]:
    """Fill the namespaces of a created VE before its init is let go."""
    effects: list[Effect] = [SetLoopbackUp(uid=uid), SetHostname(uid=uid, hostname=spec.hostname)]
    if spec.resolver is not None:
        effects.append(SetResolver(uid=uid, resolver=spec.resolver))
    for _, interface in sorted(spec.interfaces.items()):
        effects.extend(_make(InterfacePlan(instance, uid, interface)))
    return tuple(effects)


def effects_before_resume(
    instance: str, uid: Uid, spec: VeNetworkSpec, had: frozenset[Interface]
) -> tuple[Effect, ...]:
    """Give a VE that is being resumed all that its sockets need, and let nothing reach it yet.

    ``had``: its addresses when it was suspended. What of them is not its own any more it has until its sockets are
    there: they can be bound to nothing else, and nobody would go on otherwise.
    """
    effects: list[Effect] = [SetLoopbackUp(uid=uid)]
    for _, interface in sorted(spec.interfaces.items()):
        wanted = InterfacePlan(instance, uid, interface)
        effects += _with_addresses(wanted)
        effects.append(SetInterfaceUp(uid=uid, interface=interface.name))
        effects += _routes(wanted)
    effects += (AddAddress(uid=uid, interface=name, address=address) for name, address in _former(spec, had))
    return tuple(effects)


def _former(spec: VeNetworkSpec, had: frozenset[Interface]) -> Iterator[tuple[str, Interface]]:
    """Yield the addresses that a VE had and has no more, and an interface that can have them; it may have none."""
    mine = addresses(spec.interfaces)
    for address in sorted(had, key=str):
        able = (name for name, link in sorted(spec.interfaces.items()) if address.version == 4 or link.mtu >= _IPV6_MTU)
        if address.ip not in mine and (name := next(able, None)) is not None:
            yield name, address


def effects_after_resume(instance: str, uid: Uid, spec: VeNetworkSpec, had: frozenset[Interface]) -> tuple[Effect, ...]:
    """Connect a VE that was resumed, with its own addresses only, and name it as its spec does."""
    effects: list[Effect] = [
        RemoveAddress(uid=uid, interface=name, address=address) for name, address in _former(spec, had)
    ]
    for _, interface in sorted(spec.interfaces.items()):
        wanted = InterfacePlan(instance, uid, interface)
        effects += (_attach(wanted), *_host_routes(wanted), *announcements(uid, interface))
    effects.append(SetHostname(uid=uid, hostname=spec.hostname))
    if spec.resolver is not None:
        effects.append(SetResolver(uid=uid, resolver=spec.resolver))
    return tuple(effects)


def addresses(interfaces: Mapping[str, InterfaceSpec]) -> frozenset[Address]:
    """Give all addresses of a VE."""
    return frozenset(a.ip for interface in interfaces.values() for a in interface.addresses)


_APPLIED = ("network", "mode", "mac", "mtu", "addresses")


def applied_spec(name: str, applied: Mapping[str, Json], networks: Mapping[NetworkName, NetworkSpec]) -> VeNetworkSpec:
    """Give back, from a record, the network that a VE was last given; what is not in it is left out."""
    interfaces = {}
    for link in sorted({path.split(".")[1] for path in applied if path.startswith("interfaces.")}):
        parts = {part: applied.get(f"interfaces.{link}.{part}") for part in _APPLIED}
        addresses = parts["addresses"] if isinstance(parts["addresses"], list) else []
        mtu, mode = parts["mtu"], parts["mode"]
        on = NetworkName(str(parts["network"]))
        interfaces[link] = InterfaceSpec(
            name=link,
            network=on,
            mode=NetworkMode(mode) if isinstance(mode, str) else _mode_of(on, networks),
            addresses=frozenset(ip_interface(str(address)) for address in addresses),
            mac=None if parts["mac"] == "auto" else str(parts["mac"]),
            mtu=mtu if isinstance(mtu, int) else DEFAULT_MTU,
        )
    return VeNetworkSpec(hostname=str(applied.get("hostname", name)), interfaces=interfaces)


def applied_names(applied: Mapping[str, Json]) -> Iterator[NetworkName]:
    """Name, from a record, the networks that a VE was last put on."""
    for path, value in applied.items():
        if path.endswith(".network") and path.startswith("interfaces."):
            yield NetworkName(str(value))


def _mode_of(name: NetworkName, networks: Mapping[NetworkName, NetworkSpec]) -> NetworkMode:
    return networks[name].mode if name in networks else NetworkMode.BRIDGED
