"""Parsers of what people write for a field: each takes a plain value and gives the canonical one.

A refusal is a ValueError whose text is told as it stands; a `RefusalError` knows the remedy too.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable

from reconciler.manifests.problem import quoted
from reconciler.model import compute, units
from reconciler.model.network import Address, Interface, Subnet
from reconciler.model.public_key import parse_public_key
from reconciler.model.snapshots import OWN_SNAPSHOT

UNLIMITED = "unlimited"

_INT64_MAX = 2**63 - 1
_SMALLEST_IO_RATE = 64 << 10
_SMALLEST_BIT_RATE = 8000
_CPU_LIMIT_MIN_US = 1000
"""Source: Linux kernel/sched/core.c, min_cfs_quota_period: 1 ms."""
_RESERVED_INTERFACES = frozenset({"lo", "all", "default"})
"""The loopback, and the two names that /proc/sys/net keeps for itself."""

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")
_PREFIX_LENGTH = re.compile(r"/[0-9]{1,3}\Z")
_NEARLY_A_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?([kmgt])(?:i?b|)\Z", re.IGNORECASE | re.ASCII)

_PORT_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})\Z", re.ASCII)
_TARGET = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):(\d{1,5})\Z", re.ASCII)
_PORT_MAX = 65535

_SIZE = "a size such as 512Mi, 2Gi or 1G"
_COUNT = "a whole number of at least 1"
_CPU = "a number of CPUs such as 0.5 or 2"
_NUMBERS = 'numbers of CPUs or nodes in quotes, such as "0-1,3"'
_DURATION = "a duration such as 30s, 5m, 12h or 7d"
_RATE = "a rate such as 100Mbit or 1Gbit"
_ADDRESS = "an IP address such as 10.20.0.1 or fd00:20::1"
_INTERFACE = "an address with its prefix length, such as 10.20.0.11/24 or fd00:20::11/64"
_SUBNET = "a subnet such as 10.20.0.0/24 or fd00:20::/64"
_PORTS = "a port, or a range of ports such as 8000-8010"
_TARGET_TEXT = "a VE and its port, such as web1:80"
_MAC_TEXT = "a MAC address such as 02:00:5e:10:00:01, or auto"
_UUID = "a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7"
_INIT = "a path such as /sbin/init, or a list of words"


class RefusalError(ValueError):
    """A value that is not taken, and what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def described(value: object) -> str:
    """Say what a value of a manifest is, for the end of a message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return quoted(value)
        case list() | tuple():
            return "a list"
        case _:
            return "a map"


def _expected(what: str, value: object) -> ValueError:
    return ValueError(f"expected {what}, got {described(value)}")


def _text(value: object, expected: str) -> str:
    if isinstance(value, str):
        return value
    raise _expected(expected, value)


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def or_unlimited(parse: Callable[[object], int]) -> Callable[[object], int | None]:
    """Let a parser take the word ``unlimited`` too, which gives None."""

    def parse_limit(value: object) -> int | None:
        if value == UNLIMITED:
            return None
        try:
            return parse(value)
        except RefusalError:
            raise
        except ValueError as err:
            raise ValueError(str(err).replace(", got ", f", or {UNLIMITED}, got ", 1)) from None

    return parse_limit


def size(value: object) -> int:
    """Parse a size. Units: bytes. Raises: ValueError."""
    found = _whole_number(value)
    if isinstance(value, str):
        try:
            found = units.parse_size(value)
        except ValueError:
            raise _misspelt_size(value) from None
    if found is None or found < 0:
        raise _expected(_SIZE, value)
    if found > _INT64_MAX:
        raise _expected("a size below 8388608Ti", value)
    return found


def _misspelt_size(text: str) -> ValueError:
    match = _NEARLY_A_SIZE.match(text)
    error = _expected(_SIZE, text)
    return error if match is None else RefusalError(str(error), f"did you mean '{match[1]}{match[2].upper()}i'?")


def io_rate(value: object) -> int:
    """Parse an amount of I/O in a second. Units: bytes. Raises: ValueError.

    Whoever is throttled waits in the kernel, where nothing can interrupt him: a request may have some MiB.
    """
    found = size(value)
    if found < _SMALLEST_IO_RATE:
        raise _expected("at least 64Ki", value)
    return found


def count(value: object) -> int:
    """Parse a number of things, at least one. Raises: ValueError."""
    found = _whole_number(value)
    if found is None or not 1 <= found <= _INT64_MAX:
        raise _expected(_COUNT, value)
    return found


def cpus(value: object) -> int:
    """Parse an amount of CPU. Units: microseconds per `compute.CPU_PERIOD_US`. Raises: ValueError."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= units.NUMBER_MAX:
        raise _expected(_CPU, value)
    return round(value * compute.CPU_PERIOD_US)


def cpu_limit(value: object) -> int:
    """Parse an amount of CPU that the kernel takes as a limit.

    Units: microseconds per `compute.CPU_PERIOD_US`. Raises: ValueError.
    """
    quota = cpus(value)
    if quota < _CPU_LIMIT_MIN_US:
        raise _expected(f"{_CPU}, at least 0.01", value)
    return quota


def number_set(value: object) -> frozenset[int]:
    """Parse CPU or node numbers. Raises: ValueError."""
    return units.parse_number_set(_text(value, _NUMBERS))


def duration(value: object) -> float:
    """Parse a duration. Units: seconds. Raises: ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise RefusalError(f"expected {_DURATION}, got the number {value}", f"did you mean '{value}s'?")
    return units.parse_duration(_text(value, _DURATION))


def bit_rate(value: object) -> int:
    """Parse a network rate that a packet can pass in some seconds. Units: bit/s. Raises: ValueError."""
    found = units.parse_bit_rate(_text(value, _RATE))
    if found < _SMALLEST_BIT_RATE:
        raise _expected("at least 8Kbit", value)
    return found


def address(value: object) -> Address:
    """Parse an IP address. Raises: ValueError."""
    text = _text(value, _ADDRESS)
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise _expected(_ADDRESS, text) from None
    if "%" in text:
        raise _expected("an address without a zone", text)
    return found


def public_key(value: object) -> str:
    """Parse the public key of a host; its comment is left out. Raises: ValueError."""
    return parse_public_key(_text(value, "a line such as 'ssh-ed25519 AAAA...'"))


def interface(value: object) -> Interface:
    """Parse an IP address with its prefix length. Raises: ValueError."""
    text = _text(value, _INTERFACE)
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise _expected(_INTERFACE, text) from None
    if "%" in text or _PREFIX_LENGTH.search(text) is None:
        raise _expected(_INTERFACE, text)
    return found


def subnet(value: object) -> Subnet:
    """Parse a subnet, which has no bits set beyond its prefix. Raises: ValueError."""
    text = _text(value, _SUBNET)
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _expected(_SUBNET, text) from None
    if "%" in text or _PREFIX_LENGTH.search(text) is None:
        raise _expected(_SUBNET, text)
    if ipaddress.ip_interface(text).ip != found.network_address:
        raise RefusalError(
            f"expected {_SUBNET}, got {text!r}, which has bits set beyond its prefix", f"did you mean '{found}'?"
        )
    return found


def port_range(value: object) -> tuple[int, int]:
    """Parse a port, or a range of ports as text. Shape: first and last. Raises: ValueError."""
    single = _whole_number(value)
    match = _PORT_RANGE.match(value) if isinstance(value, str) else None
    first, last = (single, single) if single is not None else (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last <= _PORT_MAX:
        raise _expected(_PORTS, value)
    return first, last


def target(value: object) -> tuple[str, int]:
    """Parse a VE's name and one of its ports. Raises: ValueError."""
    match = _TARGET.match(_text(value, _TARGET_TEXT))
    if match is None or not 1 <= int(match[2]) <= _PORT_MAX:
        raise _expected(_TARGET_TEXT, value)
    return match[1], int(match[2])


def mac(value: object) -> str | None:
    """Parse a MAC address; ``auto`` gives None. Raises: ValueError."""
    if value == "auto":
        return None
    text = _text(value, _MAC_TEXT).lower()
    if _MAC.match(text) is None:
        raise _expected(_MAC_TEXT, value)
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise _expected("the MAC address of a single station", value)
    return text


def uid(value: object) -> str:
    """Parse a UUID. Shape: in lower case. Raises: ValueError."""
    text = _text(value, _UUID).lower()
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text:
        raise _expected(_UUID, value)
    return text


def init(value: object) -> tuple[str, ...]:
    """Parse a command: the path of a program, or a list of words that begins with one. Raises: ValueError."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise _expected(_INIT, value)
    if not words[0].startswith("/"):
        raise _expected("an absolute path such as /sbin/init", words[0])
    return tuple(words)


def interface_name(name: str) -> str:
    """Check that an interface may have this name. Raises: ValueError."""
    if name in _RESERVED_INTERFACES or name.strip(".") == "":
        raise ValueError(f"expected an interface name such as eth0, got {name!r}, which the kernel keeps for itself")
    return name


def new_snapshot(name: str) -> str:
    """Check that a name is none of those that vectl gives to snapshots of its own. Raises: ValueError."""
    if OWN_SNAPSHOT.fullmatch(name) is not None:
        raise RefusalError(
            f"expected a name that vectl gives to no snapshot of its own, got {name!r}", "leave out the time"
        )
    return name


def without_dots(path: str) -> str:
    """Check that a path leads where it seems to lead. Raises: ValueError."""
    if {".", ".."} & set(path.split("/")):
        raise ValueError(f"expected a path without '.' and '..', got {quoted(path)}")
    return path
