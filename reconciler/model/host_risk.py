"""Host risk: changes that could cut the host off from whoever looks after it, and how they are taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.model.identity import HostName, NetworkName
from reconciler.model.network import Address, HostNetworkObservation
from reconciler.model.reach import ReachObservation


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpCheck:
    """Something answers at a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Give it as the configuration has it."""
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PingCheck:
    """An address answers an echo request. Source: RFC 792; RFC 4443."""

    address: Address

    def __str__(self) -> str:
        """Give it as the configuration has it."""
        return f"ping {self.address}"


Check: TypeAlias = TcpCheck | PingCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskSettings:
    """How risky changes are made. ``management``: the addresses by which the host is looked after; empty: those of its
    default routes and of the ssh sessions that there are. ``checks``: what confirms a change by itself, if all answer.

    Units: seconds. ``confirm_s``: until a change that nobody confirms is taken back; ``hold_s``: for how long all
    checks have to answer.
    """

    management: frozenset[Address] = frozenset()
    confirm_s: float = 60.0
    hold_s: float = 10.0
    checks: tuple[Check, ...] = ()


DEFAULT_RISK = RiskSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskyChange:
    """A change that is taken back unless it is confirmed.

    ``before``: each network that it touches, as it was seen, None for one that was not there. ``reach``: what the links
    that it touches had. ``hashes``: of the objects' plans, by their names, and ``whole`` of all of it. ``boot``: which
    boot of the machine it was made in.

    Units: ``at`` seconds since the epoch; ``confirm_s``, ``hold_s`` seconds.
    """

    id: str
    host: HostName
    revision: str
    before: Mapping[NetworkName, HostNetworkObservation | None]
    reach: ReachObservation
    hashes: Mapping[str, str]
    whole: str
    at: float
    boot: str
    confirm_s: float
    hold_s: float
    checks: tuple[Check, ...] = ()


class Verdict(StrEnum):
    """What becomes of a risky change."""

    CONFIRMED = "confirmed"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """Who decided what becomes of a change, once and for all. Units: ``at`` seconds since the epoch."""

    verdict: Verdict
    by: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """How taking back ended. ``problem`` "": all is seen to be as before. Units: ``at`` seconds since the epoch."""

    problem: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a change stands. ``deadline``: None until it was carried out whole and read back.

    Units: ``deadline`` seconds of the machine's clock that never goes back.
    """

    change: RiskyChange
    deadline: float | None = None
    ruling: Ruling | None = None
    undone: Undone | None = None

    @property
    def is_pending(self) -> bool:
        """Whether it is neither confirmed nor taken back."""
        is_confirmed = self.ruling is not None and self.ruling.verdict is Verdict.CONFIRMED
        return not is_confirmed and self.undone is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """A change that was made and taken back. ``hash``: of the object's plan. ``renewed``: hashes that were consented to
    after that."""

    hash: str
    message: str
    renewed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskState:
    """How risky changes stand. ``pending``: why to wait, by the name of each object that has one that is not confirmed.
    ``reverted``: what was taken back, by object.
    """

    pending: Mapping[str, str] = field(default_factory=dict)
    reverted: Mapping[str, tuple[Reverted, ...]] = field(default_factory=dict)


NO_RISKS = RiskState()
