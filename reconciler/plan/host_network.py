"""The host's side of the networks: bridges, gateways, forwarding, and the filter between the VEs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from reconciler.model.action import Action, Impact, Operation, Origin, Phase, Reason
from reconciler.model.effects import Effect
from reconciler.model.facts import Json, JsonMap
from reconciler.model.identity import (
    HostName,
    NetworkName,
    VeName,
    bridge_name,
    derived_mac,
    host_link_name,
    tunnel_name,
)
from reconciler.model.network import (
    AddGateway,
    Address,
    CreateNetwork,
    FilterObservation,
    FilterRules,
    HostNetworkObservation,
    Interface,
    LoadFilter,
    Masquerade,
    NetworkMode,
    NetworkSpec,
    Port,
    PortForward,
    RemoveGateway,
    RemoveNetwork,
    SetForwarding,
    SetNetworkMtu,
    SetNetworkUp,
    SetUplink,
    TunnelGuard,
)
from reconciler.model.vxlan import SetTunnel, Tunnel
from reconciler.plan import vxlan
from reconciler.plan.field import to_json
from reconciler.plan.members import Member, used_names

FILTER_TARGET = "host/filter"
"""What the filter's action is for. A target of the host's own has a slash, which no VE's name can have."""

_NETWORK_TARGET = "network/"


def network_target(network: NetworkName) -> str:
    """Name a network as what an action is for."""
    return f"{_NETWORK_TARGET}{network}"


def is_network(target: str) -> bool:
    """Say whether a target is a network."""
    return target.startswith(_NETWORK_TARGET)


def network_of(target: str) -> NetworkName:
    """Give the network that a target names."""
    return NetworkName(target.removeprefix(_NETWORK_TARGET))


def used_networks(
    members: Iterable[Member], networks: Mapping[NetworkName, NetworkSpec], host: HostName
) -> dict[NetworkName, NetworkSpec]:
    """Give the networks that this host needs and can have: those that a VE of it is on."""
    used = {name: networks[name] for name in sorted(used_names(members)) if name in networks}
    return {name: network for name, network in used.items() if vxlan.spans(network.vxlan, host)}


def needs_forwarding(network: NetworkSpec) -> bool:
    """Say whether the kernel must route for the network."""
    return network.mode is NetworkMode.ROUTED or network.nat or bool(network.forwards)


def plan_networks(
    wanted: Mapping[NetworkName, NetworkSpec],
    observed: Mapping[NetworkName, HostNetworkObservation],
    applied: Mapping[NetworkName, JsonMap],
    host: HostName,
) -> Iterator[Action]:
    """Yield the actions that make the host's networks what they should be; removals carry a late phase.

    ``applied``: what was carried out last, as `record_values` gives it.
    """
    for name, network in sorted(wanted.items()):
        before = applied.get(name)
        seen = observed.get(name)
        tunnel = vxlan.tunnel_of(network, host)
        if seen is None:
            found = [_created(network, tunnel)]
        else:
            found = [*_changes(network, tunnel, seen), *_announced(network, before or {})]
        yield from (_with_origin(action, before, record_values(network)) for action in found)
    for name in sorted(observed.keys() - wanted.keys()):
        yield _removed(name, observed[name])


def record_values(network: NetworkSpec) -> dict[str, Json]:
    """Give what is kept of a network that was carried out, canonical JSON by the path of an action."""
    return {
        "mode": network.mode.value,
        "mtu": network.mtu,
        "gateway": to_json(network.gateways),
        "uplink": network.uplink,
        "forwarding": needs_forwarding(network),
        **vxlan.record_values(network),
        **_of_filter(network),
    }


def _of_filter(network: NetworkSpec) -> dict[str, Json]:
    """Give what only the filter shows of a network: who reads a plan has to see it there."""
    forwards = [f"{f.protocol} {f.listen} to {f.ve}:{f.port}" for f in network.forwards]
    return {"nat": network.nat, "forwards": [*sorted(forwards)]}


def _announced(network: NetworkSpec, before: JsonMap) -> Iterator[Action]:
    """Yield what the filter carries out; where nobody wrote down what was before, nothing is known to change."""
    for path, value in _of_filter(network).items():
        if path in before and before[path] != value:
            action = _action(network.name, path, before[path], value, ())
            yield replace(action, impact=Impact.NETWORK) if _is_less(before[path], value) else action


def _is_less(before: Json, value: Json) -> bool:
    """Say whether something leads nowhere any more that led somewhere."""
    if isinstance(before, list) and isinstance(value, list):
        return any(one not in value for one in before)
    return before is True


def _with_origin(action: Action, before: JsonMap | None, now: JsonMap) -> Action:
    """Say who wants it: the manifests, unless they say what was carried out already. Drift needs no new consent."""
    # The link as a whole follows from where the hosts are, too.
    paths = ("vxlan", "vxlan.hosts") if action.path == "vxlan" else (action.path,)
    same = before is not None and (
        before == now if action.path == "" else all(before.get(path) == now.get(path) for path in paths)
    )
    if same or action.path in ("up", "vxlan.link"):
        return replace(action, origin=Origin.DRIFT, reason=Reason.DRIFTED)
    if action.path == "forwarding":  # it follows from what the manifests say, unless the host forwards anyway
        return replace(action, origin=Origin.POLICY, reason=Reason.SPEC_CHANGED)
    reason = Reason.NEW_MANIFEST if action.op is Operation.CREATE else Reason.SPEC_CHANGED
    return replace(action, origin=Origin.GIT, reason=reason)


def _created(network: NetworkSpec, tunnel: Tunnel | None) -> Action:
    return replace(_action(network.name, "", None, _describe(network), _make(network, tunnel)), op=Operation.CREATE)


def _removed(name: NetworkName, seen: HostNetworkObservation) -> Action:
    action = _action(name, "", name, None, (RemoveNetwork(network=name),))
    action = replace(
        action, op=Operation.DESTROY, origin=Origin.GIT, reason=Reason.MANIFEST_REMOVED, phase=Phase.HOST_REMOVE
    )
    return _with_host_risk(action) if seen.uplink else action


def _make(network: NetworkSpec, tunnel: Tunnel | None) -> tuple[Effect, ...]:
    gateways = tuple(AddGateway(network=network.name, address=a) for a in sorted(network.gateways, key=str))
    forwarding = (SetForwarding(network=network.name),) if needs_forwarding(network) else ()
    uplink = (SetUplink(network=network.name, uplink=network.uplink),) if network.uplink else ()
    # Before the bridge is up: what it says to find out whether its addresses are free is not for the other hosts.
    spanning = () if tunnel is None else (SetTunnel(network=network.name, tunnel=tunnel),)
    return (
        CreateNetwork(network=network),
        *gateways,
        *spanning,
        SetNetworkUp(network=network.name),
        *forwarding,
        *uplink,
    )


def _changes(network: NetworkSpec, tunnel: Tunnel | None, seen: HostNetworkObservation) -> Iterator[Action]:
    name = network.name
    if seen.mode is not network.mode:
        effects: tuple[Effect, ...] = (RemoveNetwork(network=name), *_make(network, tunnel))
        remade = _action(name, "mode", seen.mode.value, network.mode.value, effects)
        yield _with_host_risk(remade) if seen.uplink else replace(remade, impact=max(remade.impact, Impact.NETWORK))
        return
    if seen.mtu != network.mtu:
        yield _action(name, "mtu", seen.mtu, network.mtu, (SetNetworkMtu(network=name, mtu=network.mtu),))
    for change in vxlan.changes(name, tunnel, seen.tunnel):
        action = _action(name, change.path, change.before, change.after, change.effects)
        yield replace(action, impact=Impact.NETWORK) if change.cuts else action
    added = sorted(network.gateways - seen.addresses, key=str)
    removed = sorted(seen.addresses - network.gateways, key=str)
    if added or removed:
        adding = tuple(AddGateway(network=name, address=address) for address in added)
        removing = tuple(RemoveGateway(network=name, address=address) for address in removed)
        lost = tuple(effect for effect in adding if any(_goes_with(effect.address, address) for address in removed))
        effects = (*adding, *removing, *lost)
        yield _action(name, "gateway", to_json(seen.addresses), to_json(network.gateways), effects)
    if not seen.up:
        yield _action(name, "up", False, True, (SetNetworkUp(network=name),))
    if needs_forwarding(network) and not seen.forwarding:
        yield _action(name, "forwarding", False, True, (SetForwarding(network=name),))
    if seen.uplink != network.uplink:
        effect = SetUplink(network=name, uplink=network.uplink)
        yield _action(name, "uplink", seen.uplink, network.uplink, (effect,))


def _goes_with(added: Interface, removed: Interface) -> bool:
    """Say whether the kernel may delete an address with another one of its subnet that was there before it.

    Source: Linux Documentation/networking/ip-sysctl.rst, "promote_secondaries".
    """
    return added.version == 4 and added.network == removed.network


def restoring_effects(
    name: NetworkName, before: HostNetworkObservation, seen: HostNetworkObservation | None
) -> tuple[Effect, ...]:
    """Give what makes a network what it was seen to be before; where it is seen to be so, nothing."""
    spec = NetworkSpec(
        name=name,
        mode=before.mode,
        gateways=before.addresses,
        nat=before.forwarding,
        uplink=before.uplink,
        mtu=before.mtu,
    )
    tunnel = None if before.tunnel is None else before.tunnel.tunnel
    if seen is None:
        return _make(spec, tunnel)
    return tuple(effect for action in _changes(spec, tunnel, seen) for effect in action.effects)


def _action(network: NetworkName, path: str, before: Json, after: Json, effects: tuple[Effect, ...]) -> Action:
    """Build a change of a network that costs nothing; the caller replaces what is different."""
    action = Action(
        ve=network_target(network),
        uid=None,
        op=Operation.UPDATE,
        path=path,
        before=before,
        after=after,
        reason=Reason.DRIFTED,
        impact=Impact.LIVE,
        origin=Origin.DRIFT,
        phase=Phase.HOST,
        effects=effects,
    )
    return _with_host_risk(action) if any(isinstance(effect, SetUplink) for effect in effects) else action


def _with_host_risk(action: Action) -> Action:
    name = network_of(action.ve)
    danger = f"changes which link of the host is a port of {name}: it could cut off the host"
    return replace(action, impact=Impact.HOST_RISK, danger=danger)


def _describe(network: NetworkSpec) -> Json:
    values = record_values(network)
    return {path: values[path] for path in ("mode", "gateway", "mtu", "vxlan", *_of_filter(network)) if path in values}


def with_strangers(rules: FilterRules, observed: FilterRules | None) -> FilterRules:
    """Keep what is in force for links that these rules do not speak of: they belong to VEs that cannot be read."""
    if observed is None:
        return rules
    links, listened = {port.link for port in rules.ports}, {(f.protocol, f.listen) for f in rules.forwards}
    return FilterRules(
        ports=rules.ports | {port for port in observed.ports if port.link not in links},
        masquerades=rules.masquerades | observed.masquerades,
        forwards=rules.forwards | {f for f in observed.forwards if (f.protocol, f.listen) not in listened},
        tunnels=rules.tunnels | {t for t in observed.tunnels if t.link not in {own.link for own in rules.tunnels}},
    )


def with_undeclared(
    rules: FilterRules,
    observed: FilterRules | None,
    instance: str,
    *,
    on: frozenset[NetworkName],
    members: Iterable[Member],
) -> FilterRules:
    """Keep what is in force ``on`` networks that no manifest declares any more while VEs are still on them."""
    if observed is None or not on:
        return rules
    bridges = {bridge_name(instance, name) for name in on}
    tunnels = {tunnel_name(instance, name) for name in on}
    links = [i for member in members for i in member.network.interfaces.values() if i.network in on]
    ours = {address.ip for interface in links for address in interface.addresses}
    listened = {(forward.protocol, forward.listen) for forward in rules.forwards}
    forwards = {f for f in observed.forwards if f.to in ours and (f.protocol, f.listen) not in listened}
    return FilterRules(
        ports=rules.ports,
        masquerades=rules.masquerades | {m for m in observed.masquerades if m.bridge in bridges},
        forwards=rules.forwards | forwards,
        tunnels=rules.tunnels | {tunnel for tunnel in observed.tunnels if tunnel.link in tunnels},
    )


def filter_rules(
    instance: str,
    members: Iterable[Member],
    networks: Mapping[NetworkName, NetworkSpec],
    tunnels: Iterable[TunnelGuard] = (),
) -> FilterRules:
    """Give the whole content of our nftables tables for these VEs on these networks.

    ``tunnels``: of all networks that span hosts, also where no VE is on one: those of other networks leave with the
    host's address, too, which the other hosts believe.
    """
    present = list(members)
    return FilterRules(
        ports=frozenset(_ports(instance, present)),
        masquerades=frozenset(
            Masquerade(subnet=subnet, bridge=bridge_name(instance, network.name))
            for network in networks.values()
            if network.nat
            for subnet in network.subnets
        ),
        forwards=frozenset(_forwards(present, networks)),
        tunnels=frozenset(tunnels if present else ()),
    )


def _ports(instance: str, members: Iterable[Member]) -> Iterator[Port]:
    for member in members:
        for interface in member.network.interfaces.values():
            yield Port(
                link=host_link_name(instance, member.uid, interface.name),
                mac=interface.mac or derived_mac(member.uid, interface.name),
                addresses=frozenset(address.ip for address in interface.addresses),
                mode=interface.mode,
            )


def _forwards(members: Iterable[Member], networks: Mapping[NetworkName, NetworkSpec]) -> Iterator[PortForward]:
    by_name = {member.name: member for member in members}
    for network in networks.values():
        for forward in network.forwards:
            member = by_name.get(VeName(forward.ve))
            for address in _first_of_each_family(member, network.name) if member else ():
                yield PortForward(listen=forward.listen, protocol=forward.protocol, to=address, port=forward.port)


def _first_of_each_family(member: Member, network: NetworkName) -> Iterator[Address]:
    on_it = [i for _, i in sorted(member.network.interfaces.items()) if i.network == network]
    addresses = sorted((a.ip for i in on_it for a in i.addresses), key=str)
    for version in (4, 6):
        yield from [address for address in addresses if address.version == version][:1]


def plan_filter(wanted: FilterRules, observed: FilterObservation, *, changed: bool) -> Iterator[Action]:
    """Yield the one action that loads the filter, if the kernel does not hold exactly these rules."""
    if observed.rules == wanted:
        return
    yield Action(
        ve=FILTER_TARGET,
        uid=None,
        op=Operation.UPDATE,
        path="rules",
        before=_count(observed.rules),
        after=_count(wanted),
        reason=Reason.SPEC_CHANGED if changed else Reason.DRIFTED,
        impact=Impact.LIVE,
        origin=Origin.POLICY if changed else Origin.DRIFT,  # it follows from the VEs, who have their own actions
        phase=Phase.HOST,
        effects=(LoadFilter(rules=wanted),),
    )


def _count(rules: FilterRules | None) -> Json:
    if rules is None:
        return None
    return {"ports": len(rules.ports), "nat": len(rules.masquerades), "forwards": len(rules.forwards)}
