"""Networks: venet as a routed network, veth as a port of a bridge, names and name servers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from reconciler.importing.draft import Job
from reconciler.importing.openvz.config import Config
from reconciler.importing.openvz.values import truth
from reconciler.importing.report import Setting
from reconciler.importing.result import Import
from reconciler.importing.words import bit_rate, shown, whole
from reconciler.model.facts import Json

KEYS = frozenset(
    {"IP_ADDRESS", "NETIF", "NETDEV", "NAMESERVER", "SEARCHDOMAIN", "RATE", "RATEBOUND", "TRAFFIC_SHAPING"}
)

VENET = "venet"
_ENTRIES_MAX = 256
_SERVERS_MAX = 3
_NONE = frozenset({"0.0.0.0", "::", "::0"})  # noqa: S104  # that is how the files say that there is no address
_DIGITS = re.compile(r"[0-9a-f]{12}\Z")
_NOT_MOVED = ("venet", "tun", "tap", "lo")

_SILENT = frozenset({"ifname", "bridge", "network", "type", "mac", "ip", "ip6", "gw", "gw6"})
_LOST: Mapping[str, str] = {
    "host_ifname": "vectl names the host's end",
    "host_mac": "the host's end has an address of its own",
    "mac_filter": "a VE never sends with another's hardware address",
    "ip_filter": "a VE never sends with another's address",
    "dhcp": "vectl gives addresses itself: write addresses",
    "dhcp6": "vectl gives addresses itself: write addresses",
    "vport": "there are bridges of Linux, and none of Open vSwitch",
    "ifaceid": "there are bridges of Linux, and none of Open vSwitch",
    "configure": "vectl gives the addresses, whatever is inside",
}
_HARMLESS = frozenset({"host_ifname", "host_mac", "configure"})


def convert(config: Config, job: Job, run: Import) -> None:
    """Set interfaces, with the networks that they are on, and name servers."""
    if (addresses := config.get("IP_ADDRESS")) is not None:
        _venet(job, run, addresses)
    if (links := config.get("NETIF")) is not None:
        for text in links.value.split(";")[:_ENTRIES_MAX]:
            if text.strip():
                _veth(job, run, links, text)
    if (moved := config.get("NETDEV")) is not None:
        _moved(job, moved)
    _resolver(config, job)
    _rates(config, job)


def _venet(job: Job, run: Import, setting: Setting) -> None:
    addresses: list[Json] = []
    for word in setting.value.split()[:_ENTRIES_MAX]:
        if word.split("/")[0] in _NONE:
            continue
        try:
            found = ipaddress.ip_interface(word)
        except ValueError:
            job.drop(setting, f"{shown(word)} is no address")
            continue
        text = f"{found.ip}/{found.max_prefixlen}"
        if text not in addresses:
            addresses.append(text)
    if not addresses:
        return
    why = "venet: each of its VEs has a link of its own, and the host a route for each address"
    network = run.network(VENET, setting, why, mode="routed")
    job.draft.append("interfaces", {"name": "venet0", "network": network, "addresses": addresses}, setting)
    job.mapped(setting, "interfaces")


def _veth(job: Job, run: Import, setting: Setting, text: str) -> None:
    parts = [_assignment(word) for word in text.split(",")[:_ENTRIES_MAX] if word.strip()]
    said = dict(parts)
    name = said.get("ifname", "")
    if not name:
        job.drop(setting, f"{shown(text)}: expected ifname=NAME")
        return
    is_routed = said.get("type", "").lower() == "routed"
    wanted = said.get("bridge") or said.get("network") or (VENET if is_routed else "veth")
    mode = "routed" if is_routed else "bridged"
    why = (
        "each of its VEs has a link of its own, and the host a route for each address"
        if is_routed
        else f"for {shown(wanted)}, as a bridge that vectl makes: set subnets, and uplink where it is to reach a wire"
    )
    entry: dict[str, Json] = {"name": name, "network": run.network(wanted, setting, why, mode=mode)}
    if said.get("mac"):
        entry["mac"] = _mac(said["mac"])
    entry |= _addressing(job, setting, parts, said)
    job.draft.append("interfaces", entry, setting)
    job.mapped(setting, "interfaces")
    for key, value in parts:
        _lost(job, setting, name, key, value)


def _mac(text: str) -> str:
    """Give a hardware address with colons: Virtuozzo 7 writes it without."""
    digits = text.lower()
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2)) if _DIGITS.match(digits) else digits


def _addressing(
    job: Job, setting: Setting, parts: list[tuple[str, str]], said: Mapping[str, str]
) -> Iterator[tuple[str, Json]]:
    addresses: list[Json] = []
    for word in (word for key, value in parts if key in ("ip", "ip6") for word in _addresses(key, value)):
        try:
            addresses.append(str(ipaddress.ip_interface(word)))
        except ValueError:
            job.drop(setting, f"{shown(word)} is no address")
    if addresses:
        yield "addresses", addresses
    gateways: list[Json] = [said[key] for key in ("gw", "gw6") if said.get(key, "").lower() not in ("", "no", "remove")]
    if gateways:
        yield "gateway", gateways


def _addresses(key: str, value: str) -> list[str]:
    """Give the addresses of ``ip=a:b``; those of IPv6 hold colons themselves, and come with blanks between."""
    return [word for word in (value.split(":") if key == "ip" else value.split()) if word][:_ENTRIES_MAX]


def _assignment(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.strip().lower(), value.strip()


def _lost(job: Job, setting: Setting, name: str, key: str, value: str) -> None:
    if key in _SILENT:
        return
    why = _LOST.get(key, "there is no field for it")
    is_off = truth(value) is False or value in ("", "none")
    is_loss = (key not in _HARMLESS and key not in ("mac_filter", "ip_filter", "dhcp", "dhcp6")) or (
        is_off if key in ("mac_filter", "ip_filter") else key in ("dhcp", "dhcp6") and not is_off
    )
    (job.drop if is_loss else job.ignore)(setting, f"{shown(name)}: {shown(key)}={shown(value)}: {why}")


def _moved(job: Job, setting: Setting) -> None:
    for name in setting.value.replace(",", " ").split()[:_ENTRIES_MAX]:
        if name.startswith(_NOT_MOVED):
            job.drop(setting, f"{shown(name)} cannot be moved into a VE")
        else:
            job.draft.append("devices", {"nic": name}, setting)
            job.mapped(setting, "devices")


def _resolver(config: Config, job: Job) -> None:
    for key, path, most in (("NAMESERVER", "dns.servers", _SERVERS_MAX), ("SEARCHDOMAIN", "dns.search", 32)):
        setting = config.get(key)
        if setting is None or not (words := setting.value.split()):
            continue
        if words == ["inherit"]:
            job.drop(setting, f"it was the host's own, which the configuration does not say: write {path}")
            continue
        if len(words) > most:
            job.change(setting, path, [*words[:most]], f"only the first {most}")
        else:
            job.put(setting, path, [*words])


def _rates(config: Config, job: Job) -> None:
    """Set the limit of what leaves a VE: a rate is one only if it is bound, else it is a guarantee."""
    rate, bound, shaping = config.get("RATE"), config.get("RATEBOUND"), config.get("TRAFFIC_SHAPING")
    if bound is not None:
        job.ignore(bound, "it says what RATE means, which was followed")
    if shaping is not None:
        job.ignore(shaping, "it says whether RATE counts, which was followed")
    if rate is None:
        return
    if shaping is not None and truth(shaping.value) is False:
        job.ignore(rate, "TRAFFIC_SHAPING is off")
        return
    links = job.draft.entries("interfaces")
    kbit = [parts[2] for word in rate.value.split()[:_ENTRIES_MAX] if len(parts := word.split(":")) == 3]
    if bound is None or truth(bound.value) is not True or not links or not kbit:
        job.drop(rate, "without RATEBOUND it is a guarantee of traffic, which there is not")
        return
    try:
        egress = max(whole(kbit[0]) * 1000, 8000)
    except ValueError as err:
        job.drop(rate, str(err))
        return
    why = "the rate of the first class, for each interface by itself and all that leaves it"
    for position, link in enumerate(links):
        link["rate"] = {"egress": bit_rate(egress)}
        job.draft.remark(("interfaces", position), f"RATE: {why}")
    job.changed(rate, "interfaces", why)
