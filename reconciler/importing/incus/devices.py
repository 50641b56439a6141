"""Devices of an instance: disks, interfaces, device files and proxies."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.importing.draft import Draft, Job
from reconciler.importing.incus.read import Item, text
from reconciler.importing.incus.units import bits_of, bytes_of, is_true
from reconciler.importing.report import Setting
from reconciler.importing.result import Import
from reconciler.importing.words import bit_rate, count, name_of, shown, size, whole
from reconciler.model.facts import Json

_IO_LEAST = 64 << 10
_LISTEN = re.compile(r"(tcp|udp):(?:\[[0-9a-fA-F:]*\]|[0-9.]*):([0-9]{1,5})\Z", re.ASCII)
_CONNECT = re.compile(r"(tcp|udp):(?:\[[0-9a-fA-F:]+\]|[0-9.]+):([0-9]{1,5})\Z", re.ASCII)
_GUESSED_PREFIX = {4: 24, 6: 64}
_SAID: Mapping[str, frozenset[str]] = {
    "disk": frozenset({"path", "source", "pool", "size", "readonly", "limits.read", "limits.write", "limits.max"}),
    "nic": frozenset(
        {"nictype", "network", "parent", "name", "hwaddr", "mtu", "vlan", "ipv4.address", "ipv6.address"}
        | {"ipv4.gateway", "ipv6.gateway", "limits.ingress", "limits.egress", "limits.max"}
    ),
    "unix-char": frozenset({"path", "source"}),
    "unix-block": frozenset({"path", "source"}),
    "proxy": frozenset({"listen", "connect", "bind", "nat"}),
}
_NEEDLESS = frozenset(
    {"host_name", "boot.priority", "required", "shift", "io.bus", "io.cache", "queue.tx.length"}
    | {"security.mac_filtering", "security.ipv4_filtering", "security.ipv6_filtering", "propagation", "attached"}
)
_WHY = {
    "gpu": "devices are declared by their paths on the host, below devices",
    "usb": "devices are declared by their paths on the host, below devices",
    "unix-hotplug": "devices are declared by their paths on the host, below devices",
    "pci": "devices are declared by their files, and network interfaces by their names",
    "infiniband": "devices are declared by their files, and network interfaces by their names",
    "tpm": "there is no field for it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of an instance. ``item``: what declares it, the instance or a profile, below ``key``."""

    name: str
    values: Mapping[str, str]
    item: Item
    key: str

    def setting(self, *path: str) -> Setting:
        """Give it, or a key of it, with where it stands."""
        return self.item.setting(self.key, self.name, *path)


def convert(devices: list[Device], job: Job, run: Import, instance: Item) -> None:
    """Set what devices say."""
    for device in devices:
        kind = device.values.get("type", "")
        match kind:
            case "disk":
                _disk(device, job)
            case "nic":
                _nic(device, job, run, instance)
            case "unix-char" | "unix-block":
                _node(device, job)
            case "none":
                job.ignore(device.setting(), "it takes away what a profile gives")
            case "proxy":
                pass  # once the interfaces are there
            case _:
                job.drop(device.setting(), _WHY.get(kind, f"{shown(kind)}: no such device is known"))
        _rest(device, job, kind)
    for device in devices:
        if device.values.get("type") == "proxy":
            _proxy(device, job, run)


def _rest(device: Device, job: Job, kind: str) -> None:
    for key, value in device.values.items():
        if kind not in _SAID or key in _SAID[kind] or key == "type" or value == "":
            continue
        if key in _NEEDLESS:
            job.ignore(device.setting(key), "nothing is lost without it")
        else:
            job.drop(device.setting(key), "there is no field for it")


def _disk(device: Device, job: Job) -> None:
    values, here = device.values, device.setting()
    if values.get("path") == "/":
        _root(device, job)
    elif values.get("pool") or not values.get("source", "").startswith("/"):
        job.drop(here, "a volume of a pool of Incus: mount it on the host, and declare that directory below mounts")
    else:
        entry: dict[str, Json] = {"source": values["source"], "target": values.get("path", "")}
        if is_true(values.get("readonly", "")):
            entry["readOnly"] = True
        job.draft.append("mounts", entry, here)
        job.mapped(here, "mounts")
    if values.get("path") == "/":
        for key, paths in (("limits.read", "read"), ("limits.write", "write"), ("limits.max", "read write")):
            for word in values.get(key, "").split(","):
                if word:
                    _limit(device, job, key, word.strip(), paths.split())


def _root(device: Device, job: Job) -> None:
    here = device.setting("size")
    if not device.values.get("size"):
        job.guess(device.setting(), "disk.size", "unlimited", "no size of the root disk is said")
        return
    try:
        job.put(here, "disk.size", size(bytes_of(device.values["size"])))
    except ValueError as err:
        job.drop(here, str(err))


def _limit(device: Device, job: Job, key: str, word: str, ways: list[str]) -> None:
    here = device.setting(key)
    try:
        for way in ways:
            if word.endswith("iops"):
                job.put(here, f"io.{way}Ops", count(max(whole(word.removesuffix("iops")), 1)))
            else:
                job.put(here, f"io.{way}", size(max(bytes_of(word), _IO_LEAST)))
    except ValueError as err:
        job.drop(here, str(err))


def _node(device: Device, job: Job) -> None:
    here = device.setting()
    source, path = device.values.get("source", ""), device.values.get("path", "")
    if (source or path) == "/dev/fuse":
        job.put(here, "features.fuse", True)
        return
    job.draft.append("devices", {"path": source or path, "access": "rw"}, here)
    if source and path and source != path:
        job.changed(here, "devices", f"a device has its path on the host inside as well, and not {shown(path)}")
    else:
        job.mapped(here, "devices")


# Interfaces


def _nic(device: Device, job: Job, run: Import, instance: Item) -> None:
    values, here = device.values, device.setting()
    kind = values.get("nictype") or ("bridged" if values.get("network") else "")
    if kind == "physical" and values.get("parent"):
        job.draft.append("devices", {"nic": values["parent"]}, here)
        job.mapped(here, "devices")
        return
    if kind not in ("bridged", "routed"):
        job.drop(here, f"{shown(kind)}: an interface is bridged or routed, or one of the host's own")
        return
    wanted = "routed" if kind == "routed" else values.get("network") or values.get("parent") or "lan"
    if values.get("vlan"):
        wanted = f"{wanted}-vlan{values['vlan']}"
    why = (
        "each of its VEs has a link of its own, and the host a route for each address"
        if kind == "routed"
        else f"for {shown(wanted)}, as a bridge that vectl makes: set subnets, and uplink where it is to reach a wire"
    )
    network = run.network(wanted, here, why, mode=kind)
    entry: dict[str, Json] = {"name": values.get("name") or device.name, "network": network}
    if mac := values.get("hwaddr") or text(instance.below("config").get(f"volatile.{device.name}.hwaddr")):
        entry["mac"] = mac.lower()
    _addresses(device, job, instance, run.drafts["Network", network], entry)
    _numbers(device, job, run.drafts["Network", network], entry)
    job.draft.append("interfaces", entry, here)
    job.mapped(here, "interfaces")


def _addresses(device: Device, job: Job, instance: Item, network: Draft, entry: dict[str, Json]) -> None:
    found: list[Json] = []
    for version in (4, 6):
        here = device.setting(f"ipv{version}.address")
        for word in device.values.get(f"ipv{version}.address", "").split(","):
            address = _address(word.strip(), network) if word.strip() not in ("", "none", "auto") else None
            if address:
                found.append(address)
            elif word.strip() not in ("", "none", "auto"):
                job.drop(here, f"{shown(word)} is no address")
    if not found:
        found = [*_seen(instance, str(entry["name"]))]
        if found:
            job.guessed(device.setting(), "interfaces", "the addresses that it had when this was written, by DHCP")
        else:
            job.drop(device.setting(), "it had its addresses by DHCP, and vectl gives them itself: write addresses")
    if found:
        entry["addresses"] = found
    gateways: list[Json] = [
        word
        for version in (4, 6)
        if (word := device.values.get(f"ipv{version}.gateway", "")) not in ("", "auto", "none")
    ]
    if gateways and network.spec.get("mode") == "bridged":
        entry["gateway"] = gateways


def _address(word: str, network: Draft) -> str:
    """Give an address the prefix length of its network, or the usual one; empty, if it is none."""
    try:
        found = ipaddress.ip_interface(word)
    except ValueError:
        return ""
    if "/" in word:
        return str(found)
    subnets = network.spec.get("subnets")
    for subnet in subnets if isinstance(subnets, list) else ():
        within = ipaddress.ip_network(str(subnet), strict=False)
        if within.version == found.version and found.ip in within:
            return f"{found.ip}/{within.prefixlen}"
    is_routed = network.spec.get("mode") == "routed"
    return f"{found.ip}/{found.max_prefixlen if is_routed else _GUESSED_PREFIX[found.version]}"


def _seen(instance: Item, name: str) -> list[str]:
    """Give the global addresses that an interface had, of what `incus list` prints."""
    found: Json = dict(instance.values)
    for part in ("state", "network", name, "addresses"):
        found = found.get(part) if isinstance(found, dict) else None
    addresses = []
    for entry in found if isinstance(found, list) else ():
        if isinstance(entry, dict) and entry.get("scope") == "global":
            try:
                addresses.append(
                    str(ipaddress.ip_interface(f"{text(entry.get('address'))}/{text(entry.get('netmask'))}"))
                )
            except ValueError:
                continue
    return addresses


def _numbers(device: Device, job: Job, network: Draft, entry: dict[str, Json]) -> None:
    """Set the MTU, with that of the network as large, and the rates."""
    try:
        if device.values.get("mtu"):
            mtu = whole(device.values["mtu"], most=65535)
            before = network.spec.get("mtu", 1500)
            if isinstance(before, int) and mtu > before:
                network.put("mtu", mtu, device.setting("mtu"))
            entry["mtu"] = mtu
        rate: dict[str, Json] = {}
        for way in ("egress", "ingress"):
            if value := device.values.get(f"limits.{way}") or device.values.get("limits.max"):
                rate[way] = bit_rate(max(bits_of(value), 8000))
        if rate:
            entry["rate"] = rate
    except ValueError as err:
        job.drop(device.setting(), str(err))


def _proxy(device: Device, job: Job, run: Import) -> None:
    """Make a port that leads to an instance a forward of the first network that gives it an address."""
    here = device.setting()
    listen, connect = _LISTEN.match(device.values.get("listen", "")), _CONNECT.match(device.values.get("connect", ""))
    link = next((one for one in job.draft.entries("interfaces") if one.get("addresses")), None)
    if listen is None or connect is None or link is None or listen[1] != connect[1]:
        job.drop(
            here, "a port of the host leads to one port of a VE that has an address: declare forwards of its network"
        )
        return
    if device.values.get("bind", "host") not in ("host", ""):
        job.drop(here, "a port inside does not lead out")
        return
    network = run.drafts["Network", name_of(str(link["network"]), otherwise="lan")]
    entry: dict[str, Json] = {"listen": int(listen[2]), "to": f"{job.draft.name}:{int(connect[2])}"}
    network.append("forwards", {**entry, "protocol": listen[1]}, here)
    job.changed(here, "forwards", f"a forward of {network.title}, on all addresses of the host")
