"""Suites: which Debian or Ubuntu a template of another system held."""

from __future__ import annotations

import re

_DEBIAN = {"8": "jessie", "9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie"}
_UBUNTU = {"16.04": "xenial", "18.04": "bionic", "20.04": "focal", "22.04": "jammy", "24.04": "noble"}
_NAMES = frozenset({*_DEBIAN.values(), *_UBUNTU.values()})
_VERSION = re.compile(r"(debian|ubuntu)[-_ /]?v?([0-9]{1,2}(?:\.[0-9]{2})?)(?![0-9])", re.IGNORECASE)


def suite_of(text: str) -> str | None:
    """Give the suite that a text such as ``debian-12-x86_64`` names; None, if it is another distribution's."""
    text = text[:256].lower()
    match = _VERSION.search(text)
    if match is not None:
        return {"debian": _DEBIAN, "ubuntu": _UBUNTU}[match[1].lower()].get(match[2])
    return next((word for word in re.split(r"[^a-z0-9]+", text) if word in _NAMES), None)
