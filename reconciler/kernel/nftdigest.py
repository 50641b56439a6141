"""What of an nftables object decides about packets: the rest of what the kernel shows is left out.

Left out are handles, use counts, packet counters and consumed quotas, which differ between two loads of one text or
change with every packet. All else stays, also attributes that this module has never heard of: a difference too many
costs one needless load, a difference missed would hide drift.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.kernel.netlink import attribute_list, attributes, encode_attribute, text

_NFGENMSG_BYTES = 4
_SET_FLAG_EVAL = 0x20
_OBJECT_COUNTER, _OBJECT_QUOTA = 1, 2
_QUOTA_CONSUMED = 4

_Rewrite = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableListing:
    """The payloads of everything in one table, as the kernel listed them; elements by the name of their set."""

    table: bytes
    chains: tuple[bytes, ...]
    rules: tuple[bytes, ...]
    sets: tuple[bytes, ...]
    elements: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    objects: tuple[bytes, ...] = ()
    flowtables: tuple[bytes, ...] = ()


def digest(listing: TableListing) -> str:
    """Hash one table so that the same text, loaded twice, gives the same value.

    Rules count in their order within a chain; chains, sets, elements and objects have none that matters, and the
    kernel lists hashed sets in an order of its own.
    Shape: SHA-256 in hexadecimal.
    """
    hashed = hashlib.sha256()
    for section in _sections(listing):
        hashed.update(len(section).to_bytes(4, "big"))
        for record in section:
            hashed.update(len(record).to_bytes(4, "big") + record)
    return hashed.hexdigest()


def name_of(payload: bytes, kind: int) -> str:
    """Read a name from an object: its table's is of kind 1, its own of another."""
    return text(attributes(payload, _NFGENMSG_BYTES).get(kind, b""))


def has_lasting_elements(payload: bytes) -> bool:
    """Tell whether a set's elements are part of the ruleset: those of a dynamic set are added by packets."""
    flags = int.from_bytes(attributes(payload, _NFGENMSG_BYTES).get(3, bytes(4)), "big")
    return not flags & _SET_FLAG_EVAL


def _sections(listing: TableListing) -> Iterable[list[bytes]]:
    yield [_table(listing.table)]
    yield sorted(map(_chain, listing.chains))
    yield [_rule(rule) for rule in sorted(listing.rules, key=lambda rule: name_of(rule, 2))]
    yield sorted(map(_set, listing.sets))
    yield sorted(map(_object, listing.objects))
    yield sorted(map(_flowtable, listing.flowtables))
    for name, messages in sorted(listing.elements.items()):
        yield [name.encode(errors="surrogateescape")]
        yield sorted(element for message in messages for element in _elements(message))


def _table(payload: bytes) -> bytes:
    return _rewrite(payload, drop={3, 4}, offset=_NFGENMSG_BYTES)  # USE, HANDLE


def _chain(payload: bytes) -> bytes:
    return _rewrite(payload, drop={2, 6, 8}, offset=_NFGENMSG_BYTES)  # HANDLE, USE, COUNTERS


def _rule(payload: bytes) -> bytes:
    # HANDLE; POSITION is the handle of the rule before.
    return _rewrite(payload, drop={3, 6}, change={4: _expressions}, offset=_NFGENMSG_BYTES)


def _set(payload: bytes) -> bytes:
    # ID, HANDLE, and COUNT, which the elements show where they matter.
    change = {17: _expression, 18: _expressions}
    return _rewrite(payload, drop={10, 16, 20}, change=change, offset=_NFGENMSG_BYTES)


def _object(payload: bytes) -> bytes:
    kind = int.from_bytes(attributes(payload, _NFGENMSG_BYTES).get(3, bytes(4)), "big")
    name = {_OBJECT_COUNTER: "counter", _OBJECT_QUOTA: "quota"}.get(kind, "")
    return _rewrite(payload, drop={5, 6}, change={4: _state_of(name)}, offset=_NFGENMSG_BYTES)  # USE, HANDLE


def _flowtable(payload: bytes) -> bytes:
    return _rewrite(payload, drop={4, 5}, offset=_NFGENMSG_BYTES)  # USE, HANDLE


def _elements(payload: bytes) -> Iterable[bytes]:
    listed = attributes(payload, _NFGENMSG_BYTES).get(3, b"")
    change = {7: _expression, 11: _expressions}
    return (_rewrite(element, drop={5}, change=change) for _, element in attribute_list(listed))  # EXPIRATION


def _expressions(data: bytes) -> bytes:
    return b"".join(encode_attribute(kind, _expression(value)) for kind, value in attribute_list(data))


def _expression(data: bytes) -> bytes:
    return _rewrite(data, change={2: _state_of(text(attributes(data).get(1, b"")))})


def _state_of(expression: str) -> _Rewrite:
    """Give what takes the changing state out of the data of an expression or object of this name."""
    match expression:
        case "counter" | "last":
            return lambda _: b""
        case "quota":
            return lambda data: _rewrite(data, drop={_QUOTA_CONSUMED})
        case _:
            return lambda data: data


def _rewrite(
    data: bytes, *, drop: Iterable[int] = (), change: Mapping[int, _Rewrite] | None = None, offset: int = 0
) -> bytes:
    changes = change or {}
    return b"".join(
        encode_attribute(kind, changes[kind](value) if kind in changes else value)
        for kind, value in attribute_list(data, offset)
        if kind not in drop
    )
