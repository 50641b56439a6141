"""A VE as it is now, in the words of a spec: what was observed, and from its record what the host cannot show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reconciler.model.compute import ComputeObservation, Limit
from reconciler.model.facts import Json
from reconciler.model.identity import NetworkName, Uid, bridge_name, derived_mac
from reconciler.model.network import (
    FilterObservation,
    HostNetworkObservation,
    InterfaceObservation,
    NetworkMode,
    NetworkSpec,
    VeNetworkObservation,
)
from reconciler.model.observation import HostObservation, VeObservation
from reconciler.model.volume import Record
from reconciler.plan.field import to_json
from reconciler.plan.spec import observed_values

_OF_A_LINK = ("network", "mac", "mtu", "rate.egress", "rate.ingress", "addresses", "routes")


def live_values(instance: str, record: Record, seen: VeObservation) -> dict[str, Json]:
    """Give the values of a spec that plans to no change, by path, as `spec.spec_values` would.

    ``seen`` holds nothing that could not be read.
    """
    applied, found = dict(record.applied), observed_values(seen)
    values = {path: value for path, value in applied.items() if not path.startswith("interfaces.")}
    values |= {path: value for path, value in found.items() if path in applied}
    if isinstance(seen.compute, ComputeObservation):
        values["cpu.weight"] = _weight(applied, seen.compute)
    if isinstance(seen.network, VeNetworkObservation):
        if applied.get("dns") is None:
            values["dns"] = None  # left to the VE, whatever it wrote
        return values | dict(_links(instance, record.uid, applied, seen.network))
    return values | {path: value for path, value in applied.items() if path.startswith("interfaces.")}


def _weight(applied: Mapping[str, Json], seen: ComputeObservation) -> Json:
    """Give the declared weight, unless the kernel holds another one than follows from it and the guarantee."""
    declared, guarantee = applied.get("cpu.weight"), applied.get("cpu.guarantee")
    observed = to_json(seen.limits.get(Limit.CPU_WEIGHT))
    if isinstance(declared, int) and isinstance(guarantee, int):
        return declared if observed in (None, max(declared, min(10_000, guarantee // 1000))) else observed
    return declared if observed is None else observed


def _links(
    instance: str, uid: Uid, applied: Mapping[str, Json], seen: VeNetworkObservation
) -> Iterator[tuple[str, Json]]:
    for name, link in sorted(seen.interfaces.items()):
        known = applied.get(f"interfaces.{name}.network")
        parts = {
            "network": known if isinstance(known, str) and _is_on(instance, known, link) else _network_of(link),
            "mac": "auto" if link.mac == derived_mac(uid, name) else link.mac,
            "mtu": link.mtu,
            "rate.egress": link.rate.egress,
            "rate.ingress": link.rate.ingress,
            "addresses": to_json(link.addresses),
            "routes": to_json(link.routes),
        }
        yield from ((f"interfaces.{name}.{part}", parts[part]) for part in _OF_A_LINK)


def _is_on(instance: str, network: str, link: InterfaceObservation) -> bool:
    return link.bridge in (None, bridge_name(instance, NetworkName(network)))


def _network_of(link: InterfaceObservation) -> Json:
    """Name the network of a bridge whose name holds it, for a link that was moved by hand."""
    return link.bridge.partition("-")[2] if link.bridge else ""


def live_networks(
    instance: str, observed: HostObservation, declared: Mapping[NetworkName, NetworkSpec], names: Iterable[str]
) -> dict[NetworkName, NetworkSpec]:
    """Give networks by name: as the manifests have them, else as the host holds them."""
    seen = observed.networks if isinstance(observed.networks, Mapping) else {}
    networks = {}
    for name in sorted(NetworkName(name) for name in names):
        if name in declared:
            networks[name] = declared[name]
        elif name in seen:
            networks[name] = _live_network(instance, name, seen[name], observed)
    return networks


def _live_network(
    instance: str, name: NetworkName, seen: HostNetworkObservation, observed: HostObservation
) -> NetworkSpec:
    rules = observed.filter.rules if isinstance(observed.filter, FilterObservation) else None
    bridge = bridge_name(instance, name)
    hidden = {rule.subnet for rule in rules.masquerades if rule.bridge == bridge} if rules else set()
    subnets = {address.network for address in seen.addresses} | hidden
    return NetworkSpec(
        name=name,
        mode=seen.mode,
        subnets=tuple(sorted(subnets, key=str)),
        gateways=seen.addresses if seen.mode is NetworkMode.BRIDGED else frozenset(),
        nat=bool(hidden),
        uplink=seen.uplink,
        mtu=seen.mtu,
    )
