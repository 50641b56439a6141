"""Networks: interfaces on bridges, and name servers."""

from __future__ import annotations

import ipaddress
from decimal import Decimal, InvalidOperation

from reconciler.importing.draft import Job
from reconciler.importing.proxmox.config import Config, options
from reconciler.importing.report import Setting
from reconciler.importing.result import Import
from reconciler.importing.words import bit_rate, shown, whole
from reconciler.model.facts import Json

_SERVERS_MAX = 3
_SEARCH_MAX = 32
_SAID = frozenset({"name", "bridge", "hwaddr", "ip", "ip6", "gw", "gw6", "mtu", "rate", "tag", "type"})
_LOST = {
    "firewall": "rules are those of Proxmox's own firewall: declare firewall of the interface",
    "trunks": "a network carries frames without tags",
    "link_down": "an interface is up as long as it is declared",
}
_WITHOUT = frozenset({"0", ""})


def convert(config: Config, job: Job, run: Import) -> None:
    """Set interfaces, with the networks that they are on, and name servers."""
    for number, link in config.numbered("net"):
        _interface(job, run, link, number)
    for key, path, most in (("nameserver", "dns.servers", _SERVERS_MAX), ("searchdomain", "dns.search", _SEARCH_MAX)):
        setting = config.get(key)
        words = [] if setting is None else setting.value.replace(",", " ").split()
        if setting is None or not words:
            continue
        if len(words) > most:
            job.change(setting, path, [*words[:most]], f"only the first {most}")
        else:
            job.put(setting, path, [*words])


def _interface(job: Job, run: Import, setting: Setting, number: int) -> None:
    said = options(setting.value)
    bridge, tag = said.get("bridge", ""), said.get("tag", "")
    wanted = f"{bridge or 'lan'}-vlan{tag}" if tag else bridge or "lan"
    below = f"; its uplink is a VLAN of the host, such as eno1.{shown(tag)}" if tag else ""
    why = f"for {shown(wanted)}, as a bridge that vectl makes: set subnets, and uplink where it is to reach a wire"
    network = run.network(wanted, setting, f"{why}{below}", mode="bridged")
    entry: dict[str, Json] = {"name": said.get("name") or f"eth{number}", "network": network}
    if said.get("hwaddr"):
        entry["mac"] = said["hwaddr"].lower()
    _addresses(job, setting, said, entry)
    _mtu(job, run, setting, said, entry)
    _rate(job, setting, said, entry)
    job.draft.append("interfaces", entry, setting)
    job.mapped(setting, "interfaces")
    for key, value in said.items():
        if key not in _SAID and value not in _WITHOUT:
            job.drop(setting, f"{shown(key)}={shown(value)}: {_LOST.get(key, 'there is no field for it')}")


def _addresses(job: Job, setting: Setting, said: dict[str, str], entry: dict[str, Json]) -> None:
    addresses: list[Json] = []
    for key in ("ip", "ip6"):
        value = said.get(key, "")
        if value in ("dhcp", "auto"):
            job.drop(setting, f"{key}={value}: vectl gives addresses itself: write addresses")
        elif value not in ("", "manual"):
            try:
                addresses.append(str(ipaddress.ip_interface(value)))
            except ValueError:
                job.drop(setting, f"{key}={shown(value)} is no address")
    if addresses:
        entry["addresses"] = addresses
    gateways: list[Json] = [said[key] for key in ("gw", "gw6") if said.get(key)]
    if gateways:
        entry["gateway"] = gateways


def _mtu(job: Job, run: Import, setting: Setting, said: dict[str, str], entry: dict[str, Json]) -> None:
    """Set an MTU; the network gets one as large."""
    if not said.get("mtu"):
        return
    try:
        mtu = whole(said["mtu"], most=65535)
    except ValueError as err:
        job.drop(setting, f"mtu: {err}")
        return
    entry["mtu"] = mtu
    draft = run.drafts["Network", str(entry["network"])]
    before = draft.spec.get("mtu", 1500)
    if isinstance(before, int) and mtu > before:
        draft.put("mtu", mtu, setting)


def _rate(job: Job, setting: Setting, said: dict[str, str], entry: dict[str, Json]) -> None:
    """Set a rate, which Proxmox has in MB/s, of what enters and of what leaves alike."""
    if not said.get("rate"):
        return
    try:
        rate = int(Decimal(said["rate"][:20]) * 8_000_000) // 1000 * 1000
    except (InvalidOperation, ValueError, OverflowError):
        job.drop(setting, f"rate={shown(said['rate'])}: expected a number")
        return
    if rate >= 8000:
        entry["rate"] = {"egress": bit_rate(rate), "ingress": bit_rate(rate)}
