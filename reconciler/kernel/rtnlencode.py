"""Changes for rtnetlink, encoded by pyroute2's message classes and sent through our own bounded sockets.

pyroute2's synchronous IPRoute runs an event loop of its own and so fails inside the agent's; its encoders do not.
The import costs 0.2 s and is paid at the first change: a converged host never pays it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    return _encode(ifinfmsg(), {"index": index, "flags": flags, "change": change}, attributes)


def address(attributes: Attributes, *, family: int, prefix: int, index: int, scope: int = 0) -> bytes:
    """Encode the payload of RTM_NEWADDR or RTM_DELADDR."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    fields = {"family": family, "prefixlen": prefix, "flags": 0, "scope": scope, "index": index}
    return _encode(ifaddrmsg(), fields, attributes)


def route(attributes: Attributes, fields: Mapping[str, int]) -> bytes:
    """Encode the payload of RTM_NEWROUTE or RTM_DELROUTE; the fields are those of ``struct rtmsg``."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    return _encode(rtmsg(), fields, attributes)


def neighbour(attributes: Attributes, *, family: int, index: int, state: int, flags: int) -> bytes:
    """Encode the payload of RTM_NEWNEIGH or RTM_DELNEIGH."""
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    fields = {"family": family, "ifindex": index, "state": state, "flags": flags, "ndm_type": 0}
    return _encode(ndmsg(), fields, attributes)


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
