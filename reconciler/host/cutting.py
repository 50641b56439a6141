"""Cutting: the host's ends of a VE's links, taken off whatever they are connected to, and put back.

They stay up: whether a VE goes on here or elsewhere, it never saw its carrier go. What they were connected to is
written down before, and stays so until they are put back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address

from reconciler.errors import StateError
from reconciler.host import attachment, proxies, runtime
from reconciler.host.site import Site
from reconciler.kernel import files, link, route, rtnl, sysctl
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.identity import Uid, link_alias
from reconciler.model.network import Address

_FILE = "cut.json"
_ANSWER_NOBODY = "8"  # Source: Linux Documentation/networking/ip-sysctl.rst, arp_ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """What a host's end was connected to: the bridge of that name, and the addresses that are led to it."""

    name: str
    bridge: str | None
    isolated: bool
    led: tuple[Address, ...]


def begin(site: Site, uid: Uid) -> None:
    """Forget what an earlier cut has written down.

    Raises: KernelError.
    """
    files.remove_tree(runtime.file(site, uid, _FILE))


def cut(site: Site, uid: Uid, init: ProcessId) -> None:
    """Take the ends off what they are connected to; done is success.

    Raises: KernelError; StateError.
    """
    if _read(site, uid, init) is None:
        _write(site, uid, init, _look(site, uid))
    for near in _ends(site, uid):
        sysctl.write(sysctl.of_interface("ipv4", near.name, "arp_ignore"), _ANSWER_NOBODY)
        if near.master is not None:
            link.set_master(site.rtnl, near.index, None)
        for address in attachment.AskedSide(site.rtnl).led_to(near.index):
            route.delete_route(site.rtnl, attachment.host_route(near.index, address))
    proxies.stop_answering_for_strays(site.rtnl)


def connect(site: Site, uid: Uid, init: ProcessId) -> None:
    """Put the ends back to what they were connected to, as far as that is there; never cut is success.

    Raises: KernelError; StateError.
    """
    before = {end.name: end for end in _read(site, uid, init) or ()}
    for near in _ends(site, uid):
        sysctl.write(sysctl.of_interface("ipv4", near.name, "arp_ignore"), "0")
        if near.name in before:
            _connect(site, near, before[near.name])


def close(site: Site, uid: Uid) -> None:
    """Let nothing pass any more, of whatever may still come.

    Raises: KernelError.
    """
    for near in _ends(site, uid):
        link.set_down(site.rtnl, near.index)


def _connect(site: Site, near: rtnl.Link, before: _End) -> None:
    bridge = None if before.bridge is None else site.rtnl.link(before.bridge)
    if bridge is not None and bridge.bridge is not None:
        attachment.make_port(site, near, bridge, isolated=before.isolated)
    for address in before.led:
        route.replace_route(site.rtnl, attachment.host_route(near.index, address))
        proxies.answer_for(site.rtnl, address)


def _ends(site: Site, uid: Uid) -> list[rtnl.Link]:
    alias = link_alias(site.instance.name, uid)
    return [entry for entry in site.rtnl.dump_links() if entry.alias == alias and entry.kind == "veth"]


def _look(site: Site, uid: Uid) -> list[_End]:
    side = attachment.AskedSide(site.rtnl)
    return [
        _End(
            name=near.name,
            bridge=None if near.master is None else side.name_of(near.master),
            isolated=near.port is not None and near.port.isolated,
            led=tuple(side.led_to(near.index)),
        )
        for near in _ends(site, uid)
    ]


def _write(site: Site, uid: Uid, init: ProcessId, ends: list[_End]) -> None:
    text = json.dumps(
        {
            "init": [init.pid, init.start_time],
            "ends": [[end.name, end.bridge, end.isolated, [*map(str, end.led)]] for end in ends],
        }
    )
    files.write_volatile(runtime.file(site, uid, _FILE), text.encode())


def _read(site: Site, uid: Uid, init: ProcessId) -> list[_End] | None:
    path = runtime.file(site, uid, _FILE)
    data = files.read_bytes_if_exists(path)
    if data is None:
        return None
    try:
        found = json.loads(data)
        if found["init"] != [init.pid, init.start_time]:
            return None
        return [
            _End(name=name, bridge=bridge, isolated=isolated, led=tuple(map(ip_address, led)))
            for name, bridge, isolated, led in found["ends"]
        ]
    except (ValueError, KeyError, TypeError) as err:
        raise StateError(f"read {path}: expected what the links were connected to") from err
