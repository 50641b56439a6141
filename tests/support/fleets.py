"""Random fleets, and random changes of them, as hypothesis draws them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

from hypothesis import strategies as st

from reconciler.manifests.canonical import BUSYBOX
from reconciler.model.compute import ComputeSpec
from reconciler.model.fleet import DriftPolicy, DriftSpec, Fleet, VeSpec
from reconciler.model.identity import NetworkName, VeName
from reconciler.model.network import InterfaceSpec, NetworkMode, NetworkSpec, Resolver, Route, VeNetworkSpec
from reconciler.model.power import Power, PowerSpec, RestartPolicy
from reconciler.model.volume import VolumeSpec

_MIB = 1 << 20
NAMES = tuple(VeName(name) for name in ("a", "b", "c", "d"))
_NETWORKS = (NetworkName("one"), NetworkName("two"))


def _sizes(*mebibytes: int) -> st.SearchStrategy[int | None]:
    return st.sampled_from([None, *(size * _MIB for size in mebibytes)])


computes = st.builds(
    ComputeSpec,
    cpu_weight=st.sampled_from([1, 100, 10_000]),
    cpu_limit_us=st.sampled_from([None, 50_000, 150_000]),
    cpu_guarantee_us=st.sampled_from([0, 25_000, 300_000]),
    cpus=st.sampled_from([None, frozenset({0}), frozenset({0, 1, 2, 3})]),
    memory_limit=_sizes(64, 512),
    memory_barrier=_sizes(48),
    memory_guarantee=st.sampled_from([0, 16 * _MIB]),
    swap=_sizes(0, 64),
    processes=st.sampled_from([None, 10, 4096]),
)
powers = st.builds(
    PowerSpec,
    state=st.sampled_from([Power.RUNNING, Power.RUNNING, Power.STOPPED]),
    restart=st.sampled_from(RestartPolicy),
    order=st.sampled_from([0, 1]),
)
drifts = st.builds(
    DriftSpec,
    default=st.sampled_from(DriftPolicy),
    fields=st.dictionaries(st.sampled_from(["memory", "interfaces"]), st.sampled_from(DriftPolicy)),
)


@st.composite
def networks(draw: st.DrawFn) -> dict[NetworkName, NetworkSpec]:
    """Draw two networks, each on a subnet of its own."""
    return {name: draw(_network(name, number)) for number, name in enumerate(_NETWORKS)}


def _network(name: NetworkName, number: int) -> st.SearchStrategy[NetworkSpec]:
    gateways = [ip_interface(f"10.{number}.0.{host}/24") for host in (1, 2)]
    return st.builds(
        NetworkSpec,
        name=st.just(name),
        mode=st.sampled_from([NetworkMode.BRIDGED, NetworkMode.BRIDGED, NetworkMode.ROUTED]),
        subnets=st.just((ip_network(f"10.{number}.0.0/24"),)),
        gateways=st.frozensets(st.sampled_from(gateways)),
        nat=st.booleans(),
        mtu=st.sampled_from([1400, 1500]),
        isolated=st.booleans(),
    )


@st.composite
def _interface(draw: st.DrawFn, link: str, number: int, specs: dict[NetworkName, NetworkSpec]) -> InterfaceSpec:
    """Draw an interface of the VE of a number; nobody else has its addresses."""
    name = draw(st.sampled_from(_NETWORKS))
    network, which = specs[name], _NETWORKS.index(name)
    own = 10 + 10 * number + (5 if link == "eth1" else 0)
    addresses = draw(st.frozensets(st.sampled_from([ip_interface(f"10.{which}.0.{own + n}/24") for n in range(3)])))
    route = Route(to=f"10.9{which}.0.0/16", via=f"10.{which}.0.250")
    leads_on: bool = draw(st.booleans())  # a VE has one table: no two of its links lead to the same subnet
    routes = frozenset({route} if addresses and leads_on and link == "eth0" else ())
    return InterfaceSpec(
        name=link,
        network=name,
        mode=network.mode,
        addresses=addresses,
        routes=routes,
        mtu=network.mtu,
        isolated=network.isolated,
    )


@st.composite
def ve_specs(draw: st.DrawFn, name: VeName, specs: dict[NetworkName, NetworkSpec]) -> VeSpec:
    """Draw a VE."""
    links = draw(st.sampled_from([(), ("eth0",), ("eth0", "eth1")]))
    number = NAMES.index(name)
    return VeSpec(
        name=name,
        labels=draw(st.sampled_from([{}, {"tier": "web"}])),
        description=draw(st.sampled_from(["", "shop"])),
        power=draw(powers),
        compute=draw(computes),
        volume=VolumeSpec(
            template=BUSYBOX.name, size=draw(_sizes(64, 8192)), snapshots=draw(st.sampled_from([None, 1 << 30]))
        ),
        network=VeNetworkSpec(
            hostname=draw(st.sampled_from([str(name), "other"])),
            resolver=draw(st.sampled_from([None, Resolver(servers=("10.0.0.1",))])),
            interfaces={link: draw(_interface(link, number, specs)) for link in links},
        ),
        rlimits=draw(st.sampled_from([{}, {"nofile": 100}])),
        nesting=draw(st.booleans()),
        protect=draw(st.sampled_from([None, None, False, True])),
        drift=draw(drifts),
    )


@st.composite
def fleets(draw: st.DrawFn, *, revision: str = "r1") -> Fleet:
    """Draw a fleet of some VEs on two networks."""
    specs = draw(networks())
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return Fleet(
        revision=revision,
        ves={name: draw(ve_specs(name, specs)) for name in names},
        networks=specs,
        templates={BUSYBOX.name: BUSYBOX},
    )


@st.composite
def changed(draw: st.DrawFn, fleet: Fleet) -> Fleet:
    """Draw a fleet that differs from another one in a VE or two, or in a network."""
    specs = draw(st.sampled_from([dict(fleet.networks), draw(networks())]))
    ves = {name: _follow(spec, specs) for name, spec in fleet.ves.items()}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True)):
        if name in ves and draw(st.booleans()):
            del ves[name]
        else:
            ves[name] = draw(ve_specs(name, specs))
    return replace(fleet, revision="r2", ves=ves, networks=specs)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Fleet, Fleet]:
    """Draw a fleet and one that differs from it: both before anything is tried with them.

    Were the second drawn after the first was tried, a trial that fails only once, say for want of time, would look to
    hypothesis like a strategy that depends on chance.
    """
    fleet = draw(fleets())
    return fleet, draw(changed(fleet))


def _follow(spec: VeSpec, specs: dict[NetworkName, NetworkSpec]) -> VeSpec:
    """Give a VE what its networks give it."""
    links = {
        link: replace(
            interface,
            mode=specs[interface.network].mode,
            mtu=specs[interface.network].mtu,
            isolated=specs[interface.network].isolated,
        )
        for link, interface in spec.network.interfaces.items()
    }
    return replace(spec, network=replace(spec.network, interfaces=links))
