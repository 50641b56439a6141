"""What the coordinator keeps of a VE and of its move: signed, so that a store that is open to others proves nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from reconciler.errors import StateError, UnprovenError
from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import IDS_PER_VE, HostName, Uid, VeName
from reconciler.model.kv import Pair
from reconciler.model.ownership import Move, Ownership, move_from_fields, move_to_json
from reconciler.model.public_key import PublicLine

FORMAT = 1

_RECORD_MAX = 4 << 10
"""More than any record of ours has. Units: bytes."""


class How(StrEnum):
    """What a record of ownership was written for. The owner writes all of them but `HANDED_OVER` and `HANDED_BACK`,
    which the one before him writes. `SIGNED`: anew, with the key of a host that stays."""

    CLAIMED = "claimed"
    RENAMED = "renamed"
    SIGNED = "signed"
    HANDED_OVER = "handed-over"
    HANDED_BACK = "handed-back"
    SEIZED = "seized"


_BY_FORMER = frozenset({How.HANDED_OVER, How.HANDED_BACK})


class Signer(Protocol):
    """Signs with this host's key."""

    def sign(self, data: bytes) -> bytes:
        """Sign bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """How this host, ``host``, signs what it writes, and knows what others wrote.

    ``pins``: the public keys of a host that are to be believed, none where no manifest says one. ``verify``: whether
    the holder of a public key signed some bytes.
    """

    host: HostName
    signer: Signer
    pins: Callable[[HostName], tuple[PublicLine, ...]]
    verify: Callable[[PublicLine, bytes, bytes], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """A record of ownership as it is kept. ``by``: who wrote it; ``after``: the revision of the record before it, 0 if
    there was none; ``move``: the id of the move that it was written for, or ""; ``pin``: the key that signed it.
    """

    owned: Ownership
    how: How
    by: HostName
    after: int
    move: str = ""
    pin: PublicLine | None = None


def seal_deed(deed: Deed, key: str, seal: Seal) -> bytes:
    """Give the signed text of a record of ownership; its revision is the store's to give."""
    owned = deed.owned
    content: dict[str, Json] = {
        "uid": owned.uid,
        "name": owned.name,
        "host": owned.host,
        "id_base": owned.id_base,
        "how": deed.how.value,
        "by": deed.by,
        "after": deed.after,
        "move": deed.move,
    }
    return _seal(content, key, seal)


def open_deed(pair: Pair, seal: Seal) -> Deed:
    """Take apart a record of ownership.

    Raises: UnprovenError, if it is damaged, or not signed by the one who may write it.
    """
    fields, by, pin = _open(pair, seal)
    try:
        owned, how = _ownership(fields, pair), fields.word("how", How)
        after, move = fields.integer("after"), fields.text("move")
        fields.end()
    except StateError as err:
        raise UnprovenError(str(err)) from err
    if (how in _BY_FORMER) == (by == owned.host):
        raise UnprovenError(f"read {pair.key}: {by} wrote that {owned.host} owns it ({how.value})")
    return Deed(owned=owned, how=how, by=by, after=after, move=move, pin=pin)


def seal_move(move: Move, key: str, seal: Seal) -> bytes:
    """Give the signed text of a move."""
    content = move_to_json(move) | {"by": seal.host}
    del content["revision"]  # the store gives that
    return _seal(content, key, seal)


def open_move(pair: Pair, seal: Seal) -> Move:
    """Take apart a move.

    Raises: UnprovenError, if it is damaged, or not signed by its source.
    """
    fields, by, _ = _open(pair, seal)
    try:
        move = move_from_fields(fields, revision=pair.modified)
    except StateError as err:
        raise UnprovenError(str(err)) from err
    if by != move.source or not pair.key.endswith(f"/{move.uid}"):
        raise UnprovenError(f"read {pair.key}: {by} wrote of a move of {move.uid} from {move.source}")
    return move


def _ownership(fields: Fields, pair: Pair) -> Ownership:
    owned = Ownership(
        uid=Uid(fields.text("uid")),
        name=VeName(fields.text("name")),
        host=HostName(fields.text("host")),
        id_base=fields.integer("id_base"),
        revision=pair.modified,
    )
    if not pair.key.endswith(f"/{owned.uid}"):
        raise fields.error(f"expected the record of its key, got that of {owned.uid!r}")
    if owned.id_base % IDS_PER_VE or owned.id_base <= 0:
        raise fields.error(f"expected the first of a range of ids, got {owned.id_base}")
    return owned


def _seal(content: Mapping[str, Json], key: str, seal: Seal) -> bytes:
    signature = seal.signer.sign(_signed(content, key))
    return render_object({**content, "signature": base64.b64encode(signature).decode()}, format=FORMAT)


def _signed(content: Mapping[str, Json], key: str) -> bytes:
    """Give what is signed: the key is a part of it, so that no record passes for that of another VE or fleet."""
    return key.encode() + b"\0" + render_object(content, format=FORMAT)


def _open(pair: Pair, seal: Seal) -> tuple[Fields, HostName, PublicLine]:
    """Give a record's fields, all but those of the signature, who wrote it, and with which key."""
    if len(pair.value) > _RECORD_MAX:
        raise UnprovenError(f"read {pair.key}: expected at most {_RECORD_MAX} bytes, got {len(pair.value)}")
    try:
        fields = parse_object(pair.value, format=FORMAT, where=pair.key)
        by, signature = HostName(fields.text("by")), _signature(fields)
    except StateError as err:
        raise UnprovenError(str(err)) from err
    content = {name: fields.json(name) for name in fields.names() if name not in ("format", "signature")}
    pin = _pin_of(_signed(content, pair.key), signature, by, pair.key, seal)
    opened = Fields({name: value for name, value in content.items() if name != "by"}, where=pair.key)
    return opened, by, pin


def _signature(fields: Fields) -> bytes:
    try:
        return base64.b64decode(fields.text("signature"), validate=True)
    except binascii.Error as err:
        raise fields.error("expected a signature in base64") from err


def _pin_of(signed: bytes, signature: bytes, by: HostName, key: str, seal: Seal) -> PublicLine:
    pins = seal.pins(by)
    for pin in pins:
        if seal.verify(pin, signed, signature):
            return pin
    if not pins:
        raise UnprovenError(
            f"read {key}: it is signed by {by}, whose key is not known; write the line that `vectl host key` prints "
            f"there into the manifest of Host {by}, as `publicKey`"
        )
    raise UnprovenError(f"read {key}: it says that {by} wrote it, and is not signed with the key of {by}")
