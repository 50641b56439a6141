"""The filter: our two nftables tables, rendered from data, loaded in one transaction, and recognised by fingerprint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from reconciler.host.site import Site
from reconciler.kernel import files, nft
from reconciler.model.identity import filter_table
from reconciler.model.network import (
    FilterObservation,
    FilterRules,
    LoadFilter,
    Masquerade,
    NetworkMode,
    Port,
    PortForward,
    TunnelGuard,
)

_FAMILIES = ("bridge", "inet")


def observe(site: Site) -> FilterObservation:
    """Tell which rules the kernel holds, if they are bit by bit what was loaded.

    Raises: KernelError.
    """
    loaded = site.parsed.read(_file(site), _parse)
    seen = _fingerprints(site)
    if loaded is None:
        return FilterObservation(rules=FilterRules() if not any(seen.values()) else None)
    return FilterObservation(rules=loaded.rules if loaded.fingerprints == seen else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What was loaded last, and the fingerprints of what the kernel made of it."""

    rules: FilterRules | None
    fingerprints: Mapping[str, str | None]


def _parse(data: bytes, *, where: str) -> _Loaded:
    """Parse what was written at the last load; damaged, it is like no table that the kernel has."""
    del where
    try:
        document = json.loads(data)
        return _Loaded(rules=_decode(document["rules"]), fingerprints=dict(document["fingerprints"]))
    except (ValueError, KeyError, TypeError):
        return _Loaded(rules=None, fingerprints={})


def _fingerprints(site: Site) -> dict[str, str | None]:
    name = filter_table(site.instance.name)
    digests = site.nft_digests(tuple((family, name) for family in _FAMILIES))
    return {family: digests[family, name] for family in _FAMILIES}


async def load(site: Site, effect: LoadFilter) -> None:
    """Replace the tables, and remember what the kernel made of them.

    Raises: CommandError, with nft's complaint; nothing is changed then.
    """
    await nft.apply(render(site.instance.name, effect.rules))
    if effect.rules == FilterRules():
        with suppress(FileNotFoundError):
            os.unlink(_file(site))
        return
    document = {"rules": _encode(effect.rules), "fingerprints": _fingerprints(site)}
    files.write_volatile(_file(site), json.dumps(document).encode())


def _file(site: Site) -> str:
    return f"{site.instance.run_dir}/filter.json"


def render(instance: str, rules: FilterRules) -> str:
    """Render the ruleset that replaces both tables in one transaction.

    Source: nft(8).
    """
    name = filter_table(instance)
    text = "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family in _FAMILIES)
    if rules == FilterRules():
        return text
    bridged = [port for port in rules.ports if port.mode is NetworkMode.BRIDGED]
    routed = [port for port in rules.ports if port.mode is NetworkMode.ROUTED]
    return text + _bridge_table(name, bridged, rules.tunnels) + _inet_table(name, routed, rules)


def _bridge_table(name: str, ports: Iterable[Port], tunnels: Iterable[TunnelGuard]) -> str:
    """Hold bridged VEs to their own hardware and network addresses.

    Neighbour discovery is looked into, since an advertisement for somebody else's address is how IPv6 traffic is
    stolen: the target stands 8 bytes into the ICMPv6 message, and the set of it is ``typeof`` the raw bytes, as nft
    before 1.0.7 has no word for it.
    """
    found = list(ports)
    sets = [
        _set("ports", "type ifname", (_quoted(port) for port in found)),
        _set("macs", "type ifname . ether_addr", (f"{_quoted(port)} . {port.mac}" for port in found)),
        _set("v4", "type ifname . ipv4_addr", _elements(found, 4)),
        _set("v6", "type ifname . ipv6_addr", _elements(found, 6)),
        _set("nd", "typeof iifname . @th,64,128", _targets(found)),
    ]
    return f"table bridge {name} {{\n{''.join(sets)}{_BRIDGE_CHAINS}{_own_frames(tunnels)}}}\n"


def _own_frames(tunnels: Iterable[TunnelGuard]) -> str:
    """Keep what a host itself says on a spanning network on that host.

    Every host has the same addresses there: each answers its own VEs, and would else answer those of the others.
    """
    found = sorted((f'"{tunnel.link}"', tunnel.mac) for tunnel in tunnels)
    if not found:
        return ""
    leaving = "".join(f"        oifname {link} ether saddr {mac} drop\n" for link, mac in found)
    coming = "".join(f"        iifname {link} ether saddr {mac} drop\n" for link, mac in found)
    return (
        "    chain to_hosts {\n        type filter hook postrouting priority -300; policy accept;\n"
        f"{leaving}    }}\n"
        "    chain from_hosts {\n        type filter hook prerouting priority -300; policy accept;\n"
        f"{coming}    }}\n"
    )


def _strangers(tunnels: Iterable[TunnelGuard]) -> str:
    """Take packets of a spanning network from the hosts that are on it, and from nobody else.

    The kernel takes them from everywhere, and learns where VEs are from whatever it takes. What a VE sends out has the
    address of its host where that hides it, so none is let go towards those hosts. The network's number stands four
    bytes behind the UDP header: other networks by the same port are not ours to judge.
    """
    found = sorted(tunnels, key=lambda tunnel: tunnel.link)
    if not found:
        return ""
    coming = "".join(f"        {_packet(one)}{_hosts('saddr != ', one)}drop\n" for one in found)
    forged = "".join(f"        {_packet(one)}{_hosts('daddr ', one)}drop\n" for one in found if one.remotes)
    return (
        f"    chain tunnels {{\n        type filter hook input priority 0; policy accept;\n{coming}    }}\n"
        f"    chain forged {{\n        type filter hook forward priority 0; policy accept;\n{forged}    }}\n"
    )


def _packet(tunnel: TunnelGuard) -> str:
    return f"udp dport {tunnel.port} @th,96,24 {tunnel.id} "


def _hosts(match: str, tunnel: TunnelGuard) -> str:
    """Render a match of the other hosts' addresses, which are all of one IP version; of none, nothing."""
    hosts = sorted(map(str, tunnel.remotes))
    word = "ip6" if any(":" in host for host in hosts) else "ip"
    return f"{word} {match}{{ {', '.join(hosts)} }} " if hosts else ""


def _inet_table(name: str, ports: Iterable[Port], rules: FilterRules) -> str:
    """Hold routed VEs to their own addresses, hide private subnets, and lead forwarded ports in."""
    found = list(ports)
    sets = [
        _set("ports", "type ifname", (_quoted(port) for port in found)),
        _set("v4", "type ifname . ipv4_addr", _elements(found, 4)),
        _set("v6", "type ifname . ipv6_addr", _elements(found, 6)),
        *(_forward_map(protocol, version, rules.forwards) for protocol in ("tcp", "udp") for version in (4, 6)),
    ]
    hidden = "".join(_masquerade(entry) for entry in sorted(rules.masquerades, key=str))
    nat = _NAT_CHAINS.replace("HIDDEN", hidden)
    return f"table inet {name} {{\n{''.join(sets)}{_INET_CHAINS}{_strangers(rules.tunnels)}{nat}}}\n"


def _quoted(port: Port) -> str:
    return f'"{port.link}"'


def _elements(ports: Iterable[Port], version: int) -> Iterator[str]:
    for port in ports:
        yield from (f"{_quoted(port)} . {address}" for address in port.addresses if address.version == version)


def _targets(ports: Iterable[Port]) -> Iterator[str]:
    for port in ports:
        for address in port.addresses:
            if isinstance(address, IPv6Address):
                yield f"{_quoted(port)} . 0x{address.packed.hex()}"


def _set(name: str, kind: str, elements: Iterable[str], *, word: str = "set") -> str:
    listed = ", ".join(sorted(elements))
    content = f" elements = {{ {listed} }};" if listed else ""
    return f"    {word} {name} {{ {kind};{content} }}\n"


def _forward_map(protocol: str, version: int, forwards: Iterable[PortForward]) -> str:
    elements = (
        f"{forward.listen} : {forward.to} . {forward.port}"
        for forward in forwards
        if forward.protocol == protocol and forward.to.version == version
    )
    kind = f"type inet_service : ipv{version}_addr . inet_service"
    return _set(f"{protocol}{version}", kind, elements, word="map")


def _masquerade(entry: Masquerade) -> str:
    word = "ip" if entry.subnet.version == 4 else "ip6"
    subnet = f"{word} saddr {entry.subnet} {word} daddr"
    return f"        {subnet} {entry.subnet} ct status dnat masquerade\n        {subnet} != {entry.subnet} masquerade\n"


_BRIDGE_CHAINS = """
    chain prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @ports jump from_ve
    }
    chain from_ve {
        iifname . ether saddr != @macs drop
        ether type vmap { arp : goto arp_from_ve, ip : goto ip_from_ve, ip6 : goto ip6_from_ve }
        drop
    }
    chain arp_from_ve {
        iifname . arp saddr ether != @macs drop
        arp operation != { request, reply } drop
        arp saddr ip 0.0.0.0 accept
        iifname . arp saddr ip @v4 accept
        drop
    }
    chain ip_from_ve {
        udp sport 67 drop
        iifname . ip saddr @v4 accept
        drop
    }
    chain ip6_from_ve {
        icmpv6 type { nd-router-advert, nd-redirect } drop
        udp sport 547 drop
        icmpv6 type nd-neighbor-advert goto nd_from_ve
        icmpv6 type nd-neighbor-solicit ip6 saddr :: goto nd_from_ve
        ip6 saddr fe80::/10 accept
        icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } ip6 saddr :: accept
        iifname . ip6 saddr @v6 accept
        drop
    }
    chain nd_from_ve {
        @th,64,10 0x3fa accept
        iifname . @th,64,128 @nd accept
        drop
    }
"""

_INET_CHAINS = """
    chain guard {
        type filter hook prerouting priority -300; policy accept;
        iifname @ports jump from_ve
    }
    chain from_ve {
        ip6 saddr fe80::/10 accept
        ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept
        iifname . ip saddr @v4 accept
        iifname . ip6 saddr @v6 accept
        drop
    }
"""

# A forward must be seen from the uplink, from the host itself and from the VEs, whose answers would else go straight
# back under an address that nobody asked.
_NAT_CHAINS = """
    chain forwards {
        fib daddr type local dnat ip to tcp dport map @tcp4
        fib daddr type local dnat ip to udp dport map @udp4
        fib daddr type local dnat ip6 to tcp dport map @tcp6
        fib daddr type local dnat ip6 to udp dport map @udp6
    }
    chain dstnat {
        type nat hook prerouting priority -100; policy accept;
        jump forwards
    }
    chain dstnat_local {
        type nat hook output priority -100; policy accept;
        jump forwards
    }
    chain srcnat {
        type nat hook postrouting priority 100; policy accept;
HIDDEN    }
"""


def _encode(rules: FilterRules) -> dict[str, list[list[object]]]:
    return {
        "ports": sorted([p.link, p.mac, p.mode.value, sorted(map(str, p.addresses))] for p in rules.ports),
        "masquerades": sorted([str(m.subnet), m.bridge] for m in rules.masquerades),
        "forwards": sorted([f.listen, f.protocol, str(f.to), f.port] for f in rules.forwards),
        "tunnels": sorted([t.link, t.mac, t.id, t.port, sorted(map(str, t.remotes))] for t in rules.tunnels),
    }


def _decode(document: dict[str, list[list[str]]]) -> FilterRules:
    return FilterRules(
        ports=frozenset(
            Port(link=link, mac=mac, mode=NetworkMode(mode), addresses=frozenset(ip_address(a) for a in addresses))
            for link, mac, mode, addresses in document["ports"]
        ),
        masquerades=frozenset(
            Masquerade(subnet=ip_network(subnet), bridge=bridge) for subnet, bridge in document["masquerades"]
        ),
        forwards=frozenset(
            PortForward(listen=int(listen), protocol=protocol, to=ip_address(to), port=int(port))
            for listen, protocol, to, port in document["forwards"]
        ),
        tunnels=frozenset(
            TunnelGuard(
                link=link, mac=mac, id=int(number), port=int(port), remotes=frozenset(ip_address(a) for a in remotes)
            )
            for link, mac, number, port, remotes in document.get("tunnels", ())
        ),
    )
