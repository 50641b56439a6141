"""Cheap readings of the nftables ruleset over a kept socket: its generation, and a fingerprint of each table.

Starting ``nft`` costs 10 ms, too much for a pass that finds nothing to do.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from reconciler.errors import KernelError
from reconciler.kernel import netlink, netns, nftdigest, nlsocket
from reconciler.kernel.netlink import encode_attribute

NETLINK_NETFILTER = 12
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}

_SUBSYSTEM = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN, _GETOBJ, _GETFLOWTABLE = 1, 4, 7, 10, 13, 16, 19, 23
_NFGENMSG_BYTES = 4
_TABLE, _SET_NAME, _GEN_ID = 1, 2, 1  # the table is the first attribute of every kind of object
_TRIES = 3

TableName = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """The digests of some tables, by (family, name), None for one that is not there, at one generation."""

    generation: int
    digests: Mapping[TableName, str | None]


class NftSocket(nlsocket.NetlinkSocket):
    """A netfilter netlink socket of one network namespace; `open_here` or `open_in` makes one."""

    @classmethod
    def open_here(cls) -> Self:
        """Open one in the namespace of the calling thread.

        Raises: KernelError.
        """
        return cls(nlsocket.open_here(NETLINK_NETFILTER))

    @classmethod
    def open_in(cls, namespace: int) -> Self:
        """Open one in a namespace given by its descriptor.

        Raises: KernelError.
        """
        return cls(netns.open_socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))

    def generation(self) -> int:
        """Read the number that grows with every transaction: the same one means that no ruleset here has changed.

        Raises: KernelError.
        """
        answer = self.ask(_SUBSYSTEM | _GETGEN, _header(0), doing="read nftables generation")
        return int.from_bytes(netlink.attributes(answer, _NFGENMSG_BYTES).get(_GEN_ID, b""), "big")

    def count_rules(self) -> int:
        """Count the rules of all tables.

        Raises: InterruptedDumpError, if they change meanwhile; KernelError.
        """
        return len(self.dump(_SUBSYSTEM | _GETRULE, _header(0), doing="count nftables rules"))

    def fingerprints(self, tables: Iterable[TableName]) -> Fingerprints:
        """Read the fingerprints of tables, all at one generation.

        Raises: InterruptedDumpError, if the ruleset keeps changing meanwhile; KernelError.
        """
        wanted = tuple(tables)
        for _ in range(_TRIES):
            before = self.generation()
            digests = {table: self._digest(*table) for table in wanted}
            if self.generation() == before:
                return Fingerprints(generation=before, digests=digests)
        what = "read nftables fingerprints: the ruleset kept changing while it was read"
        raise netlink.InterruptedDumpError(what, errno=errno.EINTR)

    def _digest(self, family: str, name: str) -> str | None:
        number = FAMILIES[family]
        named = encode_attribute(_TABLE, name.encode() + b"\0")
        doing = f"read nftables table {family} {name}"
        try:
            table = self.ask(_SUBSYSTEM | _GETTABLE, _header(number) + named, doing=doing)
            listing = self._listing(number, name, table, doing=doing)
        except KernelError as err:
            if err.errno == errno.ENOENT:
                return None
            raise
        return nftdigest.digest(listing)

    def _listing(self, family: int, name: str, table: bytes, *, doing: str) -> nftdigest.TableListing:
        def listed(kind: int, *more: tuple[int, str]) -> tuple[bytes, ...]:
            named = b"".join(encode_attribute(key, value.encode() + b"\0") for key, value in ((_TABLE, name), *more))
            found = self.dump(_SUBSYSTEM | kind, _header(family) + named, doing=doing)
            # Not every kind is picked by table in every kernel.
            return tuple(entry for entry in found if nftdigest.name_of(entry, _TABLE) == name)

        sets = listed(_GETSET)
        lasting = [nftdigest.name_of(entry, _SET_NAME) for entry in sets if nftdigest.has_lasting_elements(entry)]
        return nftdigest.TableListing(
            table=table,
            chains=listed(_GETCHAIN),
            rules=listed(_GETRULE),
            sets=sets,
            elements={one: listed(_GETSETELEM, (_SET_NAME, one)) for one in lasting},
            objects=listed(_GETOBJ),
            flowtables=listed(_GETFLOWTABLE),
        )


def _header(family: int) -> bytes:
    """Encode ``struct nfgenmsg``."""
    return bytes((family, 0, 0, 0))
