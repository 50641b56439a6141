"""Hosts that own VEs in a store that they share, with keys that cost nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.fleet.keys import Keys
from reconciler.fleet.ledger import Ledger
from reconciler.fleet.owners import EtcdOwners
from reconciler.fleet.records import Seal
from reconciler.fleet.witness import Known, Witness
from reconciler.model.identity import HostName
from reconciler.model.kv import Store
from reconciler.model.public_key import PublicLine

A, B, C = HostName("a"), HostName("b"), HostName("c")
PINS: Mapping[HostName, tuple[PublicLine, ...]] = {host: (PublicLine(f"key-{host}"),) for host in (A, B, C)}


@dataclass(frozen=True, slots=True)
class CheapKey:
    """Implements `Signer`: a digest that everybody could make, which is enough where nobody means harm."""

    public: str

    def sign(self, data: bytes) -> bytes:
        """Sign bytes."""
        return _digest(self.public, data)


def verify(public: PublicLine, data: bytes, signature: bytes) -> bool:
    """Say whether the holder of a key signed."""
    return _digest(public, data) == signature


def _digest(public: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=public.encode(), digest_size=16).digest()


@dataclass(slots=True)
class HeldMemory:
    """Implements `Memory`, for as long as it lasts."""

    known: Known | None = None

    def read(self) -> Known | None:
        """Read what is known."""
        return self.known

    def write(self, known: Known) -> None:
        """Write it."""
        self.known = known


@dataclass(slots=True)
class TurnedClock:
    """Implements `Clock`: it stands still unless it is turned."""

    time: float = 1_700_000_000.0

    def now(self) -> float:
        """Give the time of day."""
        return self.time

    def monotonic(self) -> float:
        """Give a time that never goes back."""
        return self.time


@dataclass(slots=True)
class Ids:
    """Makes ids in a row."""

    prefix: str
    count: int = field(default=0)

    def __call__(self) -> str:
        """Make one."""
        self.count += 1
        return f"{self.prefix}{self.count}"


def seal_of(host: HostName, pins: Mapping[HostName, tuple[PublicLine, ...]] = PINS, *, key: str | None = None) -> Seal:
    """Give what a host signs with, and whom it believes."""
    return Seal(host=host, signer=CheapKey(key or f"key-{host}"), pins=lambda of: pins.get(of, ()), verify=verify)


def owners_of(host: HostName, store: Store, *, seal: Seal | None = None) -> EtcdOwners:
    """Give a host's owners on a store."""
    ledger = Ledger(store, Keys(), seal or seal_of(host), Witness(HeldMemory()))
    return EtcdOwners(ledger, clock=TurnedClock(), new_id=Ids(f"move-{host}-"))
