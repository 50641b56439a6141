"""Values of fields as people write them in a manifest, safe to print whatever a VE put into them."""

from __future__ import annotations

from reconciler.model.compute import CPU_PERIOD_US
from reconciler.model.facts import Json
from reconciler.model.units import format_bit_rate, format_duration, format_size
from reconciler.plan.hashes import canonical

_WIDTH = 100
_SIZES = ("memory.", "disk.size", "disk.snapshots", "io.read", "io.write", "ipc.")
_RATE = ".rate."
_COUNTS = ("io.readOps", "io.writeOps", "ipc.shmmni", "ipc.msgmni", "ipc.semmsl", "ipc.semmni")
_CPUS = ("cpu.limit", "cpu.guarantee")
_SETS = ("cpu.cpus", "cpu.nodes")
_LIMITS = ("cpu.", "memory.", "disk.", "processes", "io.", "ipc.", "rlimits.", "beancounters.")


def value_text(path: str, value: Json, *, width: int = _WIDTH) -> str:
    """Give a canonical value of a field in words, on one line. Units: ``width`` characters."""
    text = printable(_words(path, value))
    return text if len(text) <= width else f"{text[: width - 1]}…"


def printable(text: str) -> str:
    """Replace what would move the cursor, colour a terminal, hide other text or begin a line."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _words(path: str, value: Json) -> str:
    match value:
        case None if path in _SETS:
            return "all"
        case None:
            return "unlimited" if path.startswith(_LIMITS) or _RATE in path else "none"
        case bool():
            return str(value).lower()
        case int() | float():
            return _number(path, value)
        case str():
            return value or "none"
        case list():
            return ", ".join(_words("", item) for item in value) or "none"
        case dict() if not path:  # an entry of a list, such as a route
            return " ".join(f"{key} {_words('', item)}" for key, item in value.items() if item not in (None, ""))
        case dict():
            return ", ".join(f"{key}={_inner(item)}" for key, item in value.items()) or "none"


def _inner(value: Json) -> str:
    if isinstance(value, list | dict):
        return canonical(value).decode() if value else "none"
    return _words("", value)


def _number(path: str, value: int | float) -> str:
    if path in _CPUS:
        return f"{value / CPU_PERIOD_US:g}"
    if path.startswith(_SIZES) and path not in _COUNTS:
        return format_size(int(value))
    if _RATE in path:
        return format_bit_rate(int(value))
    if path.endswith("Timeout"):
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
