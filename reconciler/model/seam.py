"""The seam between deciding and doing: every change of a host goes through `Effects`, every look through `Observer`.

Two implementations stand behind it, the real host and the in-memory twin, and one contract test holds them together.
Counting, failpoints, journal and logging are wrappers of the one method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from reconciler.errors import VectlError
from reconciler.model.counters import Counted
from reconciler.model.effects import Effect
from reconciler.model.identity import Allocation, Uid, VeName
from reconciler.model.migration import Obstacle
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet, HostObservation, Scope


class Effects(Protocol):
    """Performs effects."""

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect; doing it twice is doing it once, "already so" is success.

        Returns nothing: what was made is observed.
        Raises: VectlError.
        """
        ...


class Observer(Protocol):
    """Looks at the host."""

    async def observe(self, scope: Scope = EVERYTHING, facets: frozenset[Facet] = ALL_FACETS) -> HostObservation:
        """Read the host's present state; a part that cannot be read is `Unknown`, never an exception, never absent."""
        ...


class Counting(Protocol):
    """Counts what VEs use of each resource."""

    async def count(self, uid: Uid, *, deep: bool, keep: bool = True) -> Counted:
        """Look at the counters of a VE. ``deep``: also at what no cgroup counts. ``keep``: remember peaks and failures.

        Raises: VectlError.
        """
        ...

    def write_down(self) -> None:
        """Write what is remembered to disk; it is written every now and then anyway."""
        ...


class Preflight(Protocol):
    """Looks at running VEs for what could not be saved and restored."""

    async def find_obstacles(self, uid: Uid) -> tuple[Obstacle, ...]:
        """Name what keeps a running VE from being suspended; empty, if nothing is known to.

        Raises: VectlError, if it does not run, or cannot be looked at as a whole.
        """
        ...


class Host(Effects, Observer, Protocol):
    """Both sides of the seam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A hint that something changed. ``uid`` None: at the host's own objects. ``lost``: events were missed, look at
    everything."""

    uid: Uid | None = None
    facet: Facet | None = None
    lost: bool = False


class Events(Protocol):
    """Tells when to look. It may tell too often; the full resync finds what it does not tell."""

    def follow(self, observed: HostObservation) -> None:
        """Watch what was observed: the VEs in it from now on, and no more those that are gone from a complete one."""
        ...

    async def wakes(self) -> frozenset[Wake]:
        """Wait for something to happen; give all that has happened since the last call."""
        ...


class Clock(Protocol):
    """Time, so that tests can turn it."""

    def now(self) -> float:
        """Give the time of day. Units: seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Give a time that never goes back. Units: seconds."""
        ...


class Coordinator(Protocol):
    """Decides who owns a VE and which ids it gets."""

    async def allocate(self, wanted: Mapping[VeName, Uid | None]) -> Mapping[VeName, Allocation | VectlError]:
        """Give VEs that are about to be created their allocations; the same ones until they exist or are released.

        ``wanted``: the identity that a VE's manifest pins, if any. One that gets none does not keep the others from
        theirs.

        Raises: StateError or CoordinatorAwayError, if nobody can be given any now.
        """
        ...

    async def release(self, name: VeName) -> None:
        """Take back an allocation that was not used."""
        ...
