"""What is said to etcd, and what it says, as JSON.

Bytes are base64 and numbers of 64 bits text; what is false, 0 or the first of its kind is left out.

Source: etcd, api/etcdserverpb/rpc.proto; the JSON mapping of Protocol Buffers 3; grpc, codes.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reconciler.model.kv import Change, Delete, Listing, Pair, Unchanged, Write

Message: TypeAlias = Mapping[str, Any]

_NOT_DONE = frozenset({3, 5, 7, 8, 9, 11, 12, 16})
"""Codes of requests that were refused: INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED,
FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED. Any other may tell of one that goes on: what timed
out is the waiting for it."""
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError)
_NO_LEADER = "etcdserver: no leader"
_LOGIN_WANTED = (
    "auth: revision in header is old",
    "etcdserver: invalid auth token",
    "etcdserver: user name is empty",
)
_AUTH_OFF = "etcdserver: authentication is not enabled"
_COMMON_NAME = "CommonName of client"


class EtcdRefusalError(Exception):
    """A member answered with an error. ``code`` is that of grpc, 0 if the answer was none of etcd's own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def is_final(self) -> bool:
        """Tell whether it was surely not done, and no other member would do it."""
        return self.code in _NOT_DONE or _COMMON_NAME in self.message

    @property
    def is_without_effect(self) -> bool:
        """Tell whether it was surely not done. Without a leader a request is refused before it is looked at."""
        return self.is_final or self.message.endswith(_NO_LEADER)

    @property
    def wants_login(self) -> bool:
        """Tell whether the token has ended, or who holds it may do other things by now."""
        return self.message.endswith(_LOGIN_WANTED)

    @property
    def says_auth_is_off(self) -> bool:
        """Tell whether nobody can log in."""
        return self.message.endswith(_AUTH_OFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchNews:
    """One message of a watch. ``revision``: up to which everything was told, 0 where that is not said."""

    cluster: str
    revision: int
    changes: tuple[Change, ...]
    is_compacted: bool


def get_request(key: str) -> Message:
    """Ask for one key."""
    return {"key": _encode(key.encode())}


def list_request(prefix: str) -> Message:
    """Ask for all keys below a prefix."""
    return {"key": _encode(prefix.encode()), "range_end": _encode(_end(prefix.encode()))}


def txn_request(guards: Sequence[Unchanged], writes: Sequence[Write]) -> Message:
    """Ask for writes under guards."""
    return {"compare": [_guard(one) for one in guards], "success": [_write(one) for one in writes]}


def grant_request(ttl_s: float) -> Message:
    """Ask for a lease; etcd counts whole seconds."""
    return {"TTL": str(max(1, math.ceil(ttl_s)))}


def lease_request(lease: int) -> Message:
    """Ask for a lease to be kept."""
    return {"ID": str(lease)}


def watch_request(prefix: str, since: int) -> Message:
    """Ask what changes after a revision."""
    wanted = {**list_request(prefix), "start_revision": str(since + 1), "progress_notify": True}
    return {"create_request": wanted}


def login_request(username: str, password: str) -> Message:
    """Ask for a token."""
    return {"name": username, "password": password}


def encode(message: Message) -> bytes:
    """Give the bytes of a message."""
    return json.dumps(message, separators=(",", ":")).encode()


def parse_answer(status: int, data: bytes) -> Message:
    """Read an answer.

    Raises: EtcdRefusalError, if it is an error, or none of etcd's.
    """
    found = _parse(data)
    if status != 200 or found is None:
        raise _refusal(status, found, data)
    return _parse_streamed(found) if "result" in found or "error" in found else _expect_header(found)


def parse_line(line: bytes) -> Message:
    """Read one message of a stream.

    Raises: as `parse_answer`.
    """
    found = _parse(line)
    if found is None:
        raise _refusal(200, None, line)
    return _parse_streamed(found)


def _parse_streamed(found: Message) -> Message:
    result = found.get("result")
    if "error" in found or not isinstance(result, dict):
        raise _refusal(200, found.get("error"), encode(found))
    return _expect_header(result)


def _expect_header(found: Message) -> Message:
    """Expect what every answer of etcd has: another server's would say that there is no such key."""
    try:
        if int(found["header"]["cluster_id"]) > 0 and int(found["header"].get("revision", 0)) >= 0:
            return found
    except _MALFORMED:
        pass
    raise _refusal(200, None, encode(found))


def version_of(status: int, data: bytes) -> str:
    """Read the answer of ``/version``, which everybody may see.

    Raises: EtcdRefusalError, if it is none of etcd's.
    """
    found = _parse(data)
    if status != 200 or found is None or "etcdserver" not in found:
        raise _refusal(status, None, data)
    return str(found["etcdserver"])


def illness_of(status: int, data: bytes) -> str:
    """Read the answer of ``/health``, which everybody may see: what is wrong with a member, "" for nothing."""
    found = _parse(data) or {}
    return "" if found.get("health") == "true" else str(found.get("reason") or f"its health is HTTP {status}")


def time_of(date: str) -> float | None:
    """Read when an answer was given; None, if it does not say.

    Units: seconds since the epoch, of which an answer tells no fractions: in the mean it was half a second later.
    Source: RFC 9110, section 5.6.7.
    """
    from email.utils import parsedate_to_datetime  # only the doctor asks

    try:
        return parsedate_to_datetime(date).timestamp() + 0.5
    except ValueError:
        return None


def pairs_of(answer: Message) -> tuple[Pair, ...]:
    """Give the keys of an answer.

    Raises: EtcdRefusalError, if it is none of etcd's.
    """
    try:
        return tuple(_pair(one) for one in answer.get("kvs", ()))
    except _MALFORMED as err:
        raise _refusal(200, None, encode(answer)) from err


def listing_of(answer: Message) -> Listing:
    """Give all keys of an answer, as of its revision.

    Raises: as `pairs_of`.
    """
    return Listing(revision=revision_of(answer), cluster=cluster_of(answer), pairs=pairs_of(answer))


def lease_of(answer: Message) -> int:
    """Give the lease of an answer.

    Raises: as `pairs_of`.
    """
    try:
        return int(answer["ID"])
    except _MALFORMED as err:
        raise _refusal(200, None, encode(answer)) from err


def is_kept(answer: Message) -> bool:
    """Tell whether the lease of an answer goes on: one that has ended has no time."""
    return str(answer.get("TTL", "0")) != "0"


def revision_of(answer: Message) -> int:
    """Give the store's revision at the time of an answer."""
    return int(answer["header"].get("revision", 0))


def cluster_of(answer: Message) -> str:
    """Name the cluster that answered, as etcd itself prints it."""
    return f"{int(answer['header']['cluster_id']):x}"


def news_of(message: Message) -> WatchNews:
    """Read one message of a watch.

    Raises: EtcdRefusalError, if the watch was refused.
    """
    is_compacted = message.get("compact_revision", "0") != "0"
    if message.get("canceled") and not is_compacted:
        raise EtcdRefusalError(0, str(message.get("cancel_reason") or "the watch was cancelled"))
    try:
        events = message.get("events", ())
        return WatchNews(
            cluster=cluster_of(message),
            revision=max((int(one["kv"]["mod_revision"]) for one in events), default=0),
            changes=tuple(_change(one) for one in events),
            is_compacted=is_compacted,
        )
    except _MALFORMED as err:
        raise _refusal(200, None, encode(message)) from err


def _parse(data: bytes) -> Message | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refusal(status: int, found: Any, data: bytes) -> EtcdRefusalError:
    """Give the error of an answer. Source: ``code`` of an answer, ``grpc_code`` within a stream."""
    if isinstance(found, dict) and "message" in found:
        code = found.get("code") or found.get("grpc_code")
        return EtcdRefusalError(code if isinstance(code, int) else 0, str(found["message"]))
    text = data[:200].decode(errors="replace").strip()
    return EtcdRefusalError(0, f"expected an answer of etcd, got HTTP {status}: {text!r}")


def _guard(guard: Unchanged) -> Message:
    return {"key": _encode(guard.key.encode()), "target": "MOD", "mod_revision": str(guard.modified)}


def _write(write: Write) -> Message:
    key = _encode(write.key.encode())
    if isinstance(write, Delete):
        return {"request_delete_range": {"key": key}}
    return {"request_put": {"key": key, "value": _encode(write.value), "lease": str(write.lease or 0)}}


def _pair(found: Message) -> Pair:
    return Pair(
        key=_decode(found["key"]).decode(errors="surrogateescape"),
        value=_decode(found.get("value", "")),
        created=int(found["create_revision"]),
        modified=int(found["mod_revision"]),
    )


def _change(event: Message) -> Change:
    if event.get("type") == "DELETE":
        return Change(key=_decode(event["kv"]["key"]).decode(errors="surrogateescape"), pair=None)
    pair = _pair(event["kv"])
    return Change(key=pair.key, pair=pair)


def _end(prefix: bytes) -> bytes:
    """Give the first key after all of a prefix. Text in UTF-8 has no byte 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
