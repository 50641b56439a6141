"""Changes for rtnetlink, encoded by pyroute2's message classes and sent through our own bounded sockets.

pyroute2's synchronous IPRoute runs an event loop of its own and so fails inside the agent's; its encoders do not.
They are imported at the first change, and alone: the package as a whole brings a database and a file server, 9 MB and
0.15 s of them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Protocol

from reconciler.errors import KernelError
from reconciler.kernel.netlink import HEADER

Attributes = Sequence[tuple[str, object]]


class _Encoder(Protocol):
    data: bytearray

    def __setitem__(self, field: str, value: object) -> None: ...
    def valid_nla(self, nla: str) -> bool: ...
    def encode(self) -> None: ...


def nested(*attributes: tuple[str, object]) -> Mapping[str, object]:
    """Wrap attributes as the value of another one."""
    return {"attrs": list(attributes)}


def link(attributes: Attributes = (), *, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Encode the payload of RTM_NEWLINK, RTM_SETLINK or RTM_DELLINK; ``change`` masks the bits of ``flags``."""
    return _encode(_message("ifinfmsg"), {"index": index, "flags": flags, "change": change}, attributes)


def address(attributes: Attributes, *, family: int, prefix: int, index: int, scope: int = 0) -> bytes:
    """Encode the payload of RTM_NEWADDR or RTM_DELADDR."""
    fields = {"family": family, "prefixlen": prefix, "flags": 0, "scope": scope, "index": index}
    return _encode(_message("ifaddrmsg"), fields, attributes)


def route(attributes: Attributes, fields: Mapping[str, int]) -> bytes:
    """Encode the payload of RTM_NEWROUTE or RTM_DELROUTE; the fields are those of ``struct rtmsg``."""
    return _encode(_message("rtmsg"), fields, attributes)


def neighbour(attributes: Attributes, *, family: int, index: int, state: int, flags: int) -> bytes:
    """Encode the payload of RTM_NEWNEIGH or RTM_DELNEIGH."""
    fields = {"family": family, "ifindex": index, "state": state, "flags": flags, "ndm_type": 0}
    return _encode(_message("ndmsg"), fields, attributes)


def _message(name: str) -> _Encoder:
    return _class_of(name)()


@cache
def _class_of(name: str) -> Callable[[], _Encoder]:
    with _package_unread("pyroute2"):
        found: Callable[[], _Encoder] = getattr(importlib.import_module(f"pyroute2.netlink.rtnl.{name}"), name)
        return found


@contextmanager
def _package_unread(name: str) -> Iterator[None]:
    """Let modules of a package be imported without its own; whoever imports the package later gets all of it."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def _encode(message: _Encoder, fields: Mapping[str, int], attributes: Attributes) -> bytes:
    for name, value in fields.items():
        message[name] = value
    # pyroute2 leaves out an attribute that it does not know, without a word.
    unknown = [name for name, _ in attributes if not message.valid_nla(name)]
    if unknown:
        raise KernelError(f"encode netlink message: this pyroute2 does not know {', '.join(unknown)}")
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data[HEADER.size :])
