"""Where the coordinator is, as the configuration says it."""

from __future__ import annotations

import re

from reconciler.model.etcd import DEFAULT_FLEET, EtcdAddress
from reconciler.state import scalars
from reconciler.state.settings import Section

_ENDPOINT = re.compile(
    r"(?:https://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])|http://(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]))(?::(?P<port>\d{1,5}))?/?\Z",
    re.ASCII,
)
_FLEET = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_TOGETHER = (("cert", "key"), ("username", "passwordFile"))


def parse_coordinator(top: Section) -> EtcdAddress | None:
    """Take ``coordinator`` from the configuration: `local`, which is None, or ``etcd``."""
    found = top.setting("coordinator")
    if found is None or isinstance(found.content, str):
        top.value("coordinator", scalars.local)
        return None
    section = top.section("coordinator")
    section.require("etcd")
    address = _parse_etcd(section.section("etcd")) if section.setting("etcd") else None
    section.end()
    return address


def _parse_etcd(etcd: Section) -> EtcdAddress:
    etcd.require("endpoints")
    endpoints = etcd.values("endpoints", _endpoint)
    if endpoints is not None and len(set(endpoints)) < max(1, len(endpoints)):
        etcd.refuse("endpoints", "expected one address or more, each once; list every member's client address")
    for pair in _TOGETHER:
        if any(etcd.setting(key) for key in pair):
            for key in pair:
                etcd.require(key)
    address = EtcdAddress(
        endpoints=endpoints or (),
        ca=etcd.value("ca", scalars.absolute_path),
        cert=etcd.value("cert", scalars.absolute_path),
        key=etcd.value("key", scalars.absolute_path),
        username=etcd.value("username", _username),
        password_file=etcd.value("passwordFile", scalars.absolute_path),
        fleet=etcd.value("fleet", _fleet) or DEFAULT_FLEET,
    )
    etcd.end()
    return address


def _endpoint(text: str) -> str:
    match = _ENDPOINT.match(text)
    if match is None or not 1 <= int(match["port"] or 1) <= 65535:
        raise ValueError(
            "expected https://NAME:PORT, or http:// and an address of this machine, without user and path; "
            f"write user and password as 'username' and 'passwordFile', got {text.rpartition('@')[2]!r}"
        )
    return text.rstrip("/")


def _username(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"expected the name of a user of etcd, got {text!r}")
    return text


def _fleet(text: str) -> str:
    if _FLEET.match(text) is None:
        raise ValueError(f"expected a name such as default, of a-z, 0-9 and '-', 63 at most, got {text!r}")
    return text
