"""How changes are made that could cut the host off, as the configuration says it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from reconciler.model.host_risk import Check, PingCheck, RiskSettings, TcpCheck
from reconciler.model.network import Address
from reconciler.state import scalars
from reconciler.state.settings import Section

_TCP = re.compile(r"tcp://(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})\Z")
_PING = "ping "
_EXPECTED = "expected a check such as tcp://192.0.2.1:22 or 'ping 192.0.2.1'"


def parse_risk(top: Section) -> RiskSettings:
    """Take ``hostRisk`` from the configuration."""
    default, section = RiskSettings(), top.section("hostRisk")
    found = replace(
        default,
        management=frozenset(section.values("management", _address) or ()),
        confirm_s=section.value("confirm", scalars.interval) or default.confirm_s,
        hold_s=section.value("hold", scalars.interval) or default.hold_s,
        checks=section.values("check", parse_check) or (),
    )
    if found.checks and found.hold_s >= found.confirm_s:
        key = "hold" if section.setting("hold") is not None else "confirm"
        section.refuse(key, "expected 'hold' to be shorter than 'confirm', or no check can hold for so long")
    section.end()
    return found


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as err:
        raise ValueError(f"expected an IP address such as 192.0.2.11, got {text!r}") from err


def parse_check(text: str) -> Check:
    """Parse what has to answer.

    Raises: ValueError.
    """
    if text.startswith(_PING):
        return PingCheck(address=_address(text.removeprefix(_PING).strip()))
    match = _TCP.match(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ValueError(f"{_EXPECTED}, got {text!r}")
    return TcpCheck(host=match["six"] or match["host"], port=int(match["port"]))
