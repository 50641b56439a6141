"""Host risk: which actions could cut the host off from whoever looks after it, decided from what was observed.

Whether a change is a risk rests on what the host is reached by at the moment, which a review elsewhere cannot know: the
hash of a plan counts the impact that an action has by its kind. Only a link that is to become a port is a risk
wherever it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Impact, Operation, Origin, Reason, Refusal
from reconciler.model.devices import AddNic
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.host_risk import RiskState, RiskyChange
from reconciler.model.identity import NetworkName, Uid, bridge_name
from reconciler.model.network import (
    AddGateway,
    Address,
    HostNetworkObservation,
    RemoveGateway,
    RemoveNetwork,
    SetNetworkMtu,
    SetUplink,
)
from reconciler.model.reach import HeldAddress, HostRoute, ReachObservation, RestoreAddress, RestoreRoute
from reconciler.plan import host_network
from reconciler.plan.inputs import Inputs

RULE = "HostRisk"

_BY_ADVERTISEMENT = 9
"""Routes that routers announce come back by themselves. Source: rtnetlink(7), RTPROT_RA."""

_STOPPING = frozenset({Operation.RESTART, Operation.RECREATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the host is reached by. ``addresses``: the management addresses that it has, each with its link. ``ways``:
    its default routes. ``within``: the VE that the reconciler is a process of."""

    instance: str
    addresses: frozenset[HeldAddress] = frozenset()
    ways: frozenset[HostRoute] = frozenset()
    within: Uid | None = None

    def on(self, link: str) -> list[HeldAddress]:
        """Give the management addresses that a link holds."""
        return sorted((held for held in self.addresses if held.link == link), key=lambda held: str(held.address))

    def bridge(self, network: NetworkName) -> str:
        """Give the link of a network."""
        return bridge_name(self.instance, network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is left of the actions, and what is refused."""

    actions: list[Action]
    refused: tuple[Refusal, ...] = ()


def facts_of(inputs: Inputs) -> Facts:
    """Give what the host is reached by; nothing, where nobody could look."""
    seen = inputs.observed.reach
    within = inputs.observed.within
    if isinstance(seen, Unknown):
        return Facts(instance=inputs.instance, within=within)
    ways = frozenset(route for route in seen.routes if route.to.prefixlen == 0)
    return Facts(
        instance=inputs.instance,
        addresses=management_addresses(seen, inputs.management),
        ways=ways,
        within=within,
    )


def management_addresses(seen: ReachObservation, configured: frozenset[Address]) -> frozenset[HeldAddress]:
    """Give the addresses by which the host is looked after: the configured ones, or those of its ways out and of the
    sessions that there are."""
    wanted = configured or seen.sessions | frozenset(_sources(seen))
    return frozenset(held for held in seen.addresses if held.address.ip in wanted)


def _sources(seen: ReachObservation) -> Iterator[Address]:
    """Give the source addresses of the default routes.

    Source: Linux net/ipv4/devinet.c, "inet_select_addr".
    """
    for way in seen.routes:
        if way.to.prefixlen:
            continue
        held = sorted((h.address for h in seen.addresses if h.link == way.link), key=str)
        near = [a.ip for a in held if way.via is not None and way.via in a.network]
        any_of_family = [a.ip for a in held if a.version == way.to.version]
        yield from [way.source] if way.source is not None else (near or any_of_family)


def judge(actions: Iterable[Action], facts: Facts) -> Judged:
    """Raise the impact of what could cut the host off, and refuse what would do so by itself.

    What somebody changed by hand is not put right where the host is reached by it now. An interface that the host is
    reached by goes into no VE.
    """
    allowed: list[Action] = []
    refused: dict[str, Refusal] = {}
    for action in actions:
        danger = _danger(action, facts)
        if not danger:
            allowed.append(action)
        elif _moves_nic(action) or (action.origin is Origin.DRIFT and _undoes(action)):
            refused[action.ve] = _refusal(action, danger)
        else:
            allowed.append(action if action.origin is Origin.DRIFT else _raised(action, danger))
    held = {ve for ve, refusal in refused.items() if refusal.uid is not None}
    left = [action for action in allowed if action.ve not in held or _is_upkeep(action)]
    return Judged(actions=left, refused=tuple(refused.values()))


def _undoes(action: Action) -> bool:
    """Say whether an action takes something away that is there, and does not only bring back what is missing."""
    takes = any(isinstance(effect, RemoveGateway | RemoveNetwork) for effect in action.effects)
    moves = any(isinstance(effect, SetUplink) for effect in action.effects) and action.before is not None
    return takes or moves or action.uid is not None


def _raised(action: Action, danger: str) -> Action:
    base = action.impact if action.base is None else action.base
    return replace(action, impact=Impact.HOST_RISK, base=base, danger=danger)


def _refusal(action: Action, danger: str) -> Refusal:
    if _moves_nic(action):
        remedy = "give the host another way in first, or another interface to the VE"
    else:
        remedy = "say so in its manifest, or undo by hand what was done by hand"
    return Refusal(ve=action.ve, uid=action.uid, rule=RULE, message=danger, remedy=remedy)


def _is_upkeep(action: Action) -> bool:
    return action.origin is not Origin.GIT and action.reason is not Reason.BOOKKEEPING


def _moves_nic(action: Action) -> bool:
    return any(isinstance(effect, AddNic) for effect in action.effects)


def _danger(action: Action, facts: Facts) -> str:
    """Say how an action could cut the host off; "" if it could not."""
    if action.uid is not None and action.uid == facts.within and _ends(action):
        return f"{action.ve}: vectl itself is a process of this VE, and ends with it"
    found = next((text for effect in action.effects if (text := _danger_of(effect, facts))), "")
    return f"{action.ve}: {found}" if found else ""


def _ends(action: Action) -> bool:
    """Say whether an action ends the processes of a VE, for good or for a while."""
    is_stop = action.path == "power" and action.after != "running"
    return is_stop or action.op in _STOPPING or (action.op is Operation.DESTROY and not action.path)


def _danger_of(effect: Effect, facts: Facts) -> str:
    match effect:
        case RemoveGateway():
            return _lost_address(effect, facts)
        case AddGateway():
            return _taken_way(effect, facts)
        case RemoveNetwork():
            return _cut(facts.bridge(effect.network), facts, "removing it")
        case SetNetworkMtu():
            return _cut(facts.bridge(effect.network), facts, "another mtu")
        case SetUplink():
            return _changed_uplink(effect, facts)
        case AddNic():
            return _cut(effect.nic, facts, "moving it into a VE")
        case _:
            return ""


def _lost_address(effect: RemoveGateway, facts: Facts) -> str:
    bridge = facts.bridge(effect.network)
    if any(held.address == effect.address for held in facts.on(bridge)):
        return f"{effect.address.ip} on {bridge}, by which the host is reached, goes away"
    lost = [
        way for way in facts.ways if way.link == bridge and way.via is not None and way.via in effect.address.network
    ]
    return f"the host's way out by {lost[0].via} goes away with {effect.address}" if lost else ""


def _taken_way(effect: AddGateway, facts: Facts) -> str:
    """Name a next hop that would be looked for on the network from now on, where it is not."""
    bridge, network = facts.bridge(effect.network), effect.address.network
    hops = sorted((way.via for way in facts.ways if way.via is not None and way.link != bridge), key=str)
    taken = [hop for hop in hops if hop.version == effect.address.version and hop in network]
    return f"{effect.address} on {bridge} covers {taken[0]}, the host's way out on another link" if taken else ""


def _cut(link: str, facts: Facts, doing: str) -> str:
    held = facts.on(link)
    if held:
        return f"{link} holds {held[0].address.ip}, by which the host is reached: {doing} could cut off the host"
    is_way = any(way.link == link for way in facts.ways)
    return f"{link} is the host's way out: {doing} could cut off the host" if is_way else ""


def _changed_uplink(effect: SetUplink, facts: Facts) -> str:
    """Name what rests on a link that becomes a port, or on the bridge whose port is another one from now on."""
    if effect.uplink is not None and facts.on(effect.uplink):
        held = facts.on(effect.uplink)[0].address.ip
        return (
            f"{effect.uplink} holds {held}, by which the host is reached, and answers for it no more as a port of "
            f"{effect.network}: it could cut off the host; list the address under `gateway`"
        )
    return _cut(facts.bridge(effect.network), facts, "another uplink")


def wait_for_pending(actions: Iterable[Action], risks: RiskState) -> tuple[list[Action], dict[str, str]]:
    """Leave out what has to wait for a change that is not confirmed yet: all of its objects, and every other risk."""
    found = list(actions)
    if not risks.pending:
        return found, {}
    other = next(iter(risks.pending.values()))
    waiting = {a.ve: risks.pending.get(a.ve, other) for a in found if a.ve in risks.pending or guarded((a,))}
    return [action for action in found if action.ve not in waiting], waiting


def guarded(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Give the actions that are taken back unless they are confirmed: those of networks that the manifests want."""
    return tuple(
        action
        for action in actions
        if action.impact is Impact.HOST_RISK and action.uid is None and action.origin is Origin.GIT
    )


def touched_links(before: Mapping[NetworkName, object], actions: Iterable[Action], facts: Facts) -> frozenset[str]:
    """Name the links that actions concern: those of their networks, and those that become ports."""
    ports = (e.uplink for action in actions for e in action.effects if isinstance(e, SetUplink) and e.uplink)
    return frozenset(facts.bridge(name) for name in before) | frozenset(ports)


def before_of(
    actions: Iterable[Action], observed: Mapping[NetworkName, HostNetworkObservation]
) -> dict[NetworkName, HostNetworkObservation | None]:
    """Give the networks that actions change, as they are before that."""
    return {(name := host_network.network_of(action.ve)): observed.get(name) for action in actions}


def reach_of(seen: ReachObservation, links: frozenset[str]) -> ReachObservation:
    """Give what some links hold."""
    return ReachObservation(
        addresses=frozenset(held for held in seen.addresses if held.link in links),
        routes=frozenset(route for route in seen.routes if route.link in links and route.protocol != _BY_ADVERTISEMENT),
    )


def plan_undo(
    change: RiskyChange, observed: Mapping[NetworkName, HostNetworkObservation], reach: ReachObservation
) -> tuple[Effect, ...]:
    """Plan what makes all that a change touched as it was before; nothing, if it is so.

    It is planned from what is there, not from what the change was to do: that may have been cut short, or the host may
    have been booted since. Links are let go before they are taken, as two networks may have exchanged theirs.
    """
    effects: list[Effect] = []
    for name, before in sorted(change.before.items()):
        seen = observed.get(name)
        if seen is not None and seen.uplink is not None and (before is None or before.uplink != seen.uplink):
            effects.append(SetUplink(network=name, uplink=None))
    for name, before in sorted(change.before.items()):
        seen = observed.get(name)
        if before is not None:
            effects += host_network.restoring_effects(name, before, seen)
        elif seen is not None:
            effects.append(RemoveNetwork(network=name))
    effects += [RestoreAddress(held=held) for held in sorted(change.reach.addresses - reach.addresses, key=_link_first)]
    missing = sorted(change.reach.routes - reach.routes, key=lambda route: (route.via is not None, str(route.to)))
    return (*effects, *(RestoreRoute(route=route) for route in missing))


def _link_first(held: HeldAddress) -> tuple[str, str]:
    return held.link, str(held.address)
