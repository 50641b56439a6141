"""Counters: OpenVZ's user beancounters, counted on a mainline kernel.

Units here: bytes, also of what OpenVZ counts in pages; numbers of things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.model.identity import Uid

PAGE = 4096
"""What OpenVZ calls a page on every architecture that is supported. Units: bytes."""

LEDGER_FORMAT = 1


class Resource(StrEnum):
    """A counted resource, in the order of ``/proc/bc/resources``; those after `SWAPPAGES` came with Virtuozzo 7."""

    KMEMSIZE = "kmemsize"
    LOCKEDPAGES = "lockedpages"
    PRIVVMPAGES = "privvmpages"
    SHMPAGES = "shmpages"
    NUMPROC = "numproc"
    PHYSPAGES = "physpages"
    VMGUARPAGES = "vmguarpages"
    OOMGUARPAGES = "oomguarpages"
    NUMTCPSOCK = "numtcpsock"
    NUMFLOCK = "numflock"
    NUMPTY = "numpty"
    NUMSIGINFO = "numsiginfo"
    TCPSNDBUF = "tcpsndbuf"
    TCPRCVBUF = "tcprcvbuf"
    OTHERSOCKBUF = "othersockbuf"
    DGRAMRCVBUF = "dgramrcvbuf"
    NUMOTHERSOCK = "numothersock"
    DCACHESIZE = "dcachesize"
    NUMFILE = "numfile"
    NUMIPTENT = "numiptent"
    SWAPPAGES = "swappages"
    NUMNETIF = "numnetif"
    NUMMEMORYSUBGROUPS = "nummemorysubgroups"

    @property
    def is_pages(self) -> bool:
        """Whether OpenVZ counts it in pages."""
        return self.value.endswith("pages")

    @property
    def is_bytes(self) -> bool:
        """Whether it is counted in bytes here."""
        return not self.value.startswith("num")


class Enforcement(StrEnum):
    """How a limit holds: the kernel keeps the VE below it, it does so for a part, or somebody is told."""

    ENFORCED = "enforced"
    PARTLY = "partly"
    OBSERVED = "observed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Barrier and limit of a resource; None is unlimited. ``by``: what holds it, in one word or two."""

    barrier: int | None = None
    limit: int | None = None
    enforcement: Enforcement = Enforcement.OBSERVED
    by: str = ""

    @property
    def alert(self) -> int | None:
        """Above what a resource that is only observed is told of: the barrier, and without one the limit."""
        return self.limit if self.barrier is None else self.barrier


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one look says of a resource. ``held`` None: this host does not count it.

    ``peak`` and ``failures``: what the kernel itself has counted since the cgroup was made; None where it does not.
    """

    held: int | None = None
    peak: int | None = None
    failures: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the counters of a VE. ``epoch`` names the cgroup: another one counts from zero."""

    epoch: str
    readings: Mapping[Resource, Reading]


NOTHING_READ = Look(epoch="", readings={})
"""The look at a VE that has no cgroup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is remembered of a resource over the VE's life.

    ``settled``: failures of earlier cgroups, and looks that found an observed resource above its alert;
    ``counted``: failures that the kernel counted in this cgroup; ``above``: the last look found it above.
    """

    peak: int = 0
    settled: int = 0
    counted: int = 0
    above: bool = False

    @property
    def failures(self) -> int:
        """All failures; never falls."""
        return self.settled + self.counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What is remembered of a VE's counters over restarts of the VE, of the agent and of the host."""

    epoch: str = ""
    tallies: Mapping[Resource, Tally] = field(default_factory=dict)

    def failures(self, resource: Resource) -> int:
        """Give the failures of a resource."""
        return self.tallies[resource].failures if resource in self.tallies else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of beancounters."""

    resource: Resource
    held: int | None
    maxheld: int
    barrier: int | None
    limit: int | None
    failcnt: int
    enforcement: Enforcement
    by: str

    @property
    def is_tight(self) -> bool:
        """Whether it deserves a look: held above half of the limit, once above 80 % of it, or refused ever.

        Source: vzubc(8).
        """
        limit = self.barrier if self.limit is None else self.limit
        is_near = bool(limit) and (2 * (self.held or 0) > (limit or 0) or 10 * self.maxheld > 8 * (limit or 0))
        return is_near or self.failcnt > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The counters of a VE. ``grown``: by how much failures grew since they were remembered last."""

    uid: Uid
    rows: tuple[Row, ...]
    grown: Mapping[Resource, int] = field(default_factory=dict)


def settled(ledger: Ledger, look: Look, bounds: Mapping[Resource, Bound]) -> Ledger:
    """Enter a look into the ledger. Failures that the kernel counts begin anew with each cgroup; here they go on.

    A resource whose refusals nobody counts has a failure each time that a look finds it above its alert and the look
    before did not.
    """
    tallies = dict(ledger.tallies)
    if ledger.epoch != look.epoch:
        tallies = {
            resource: replace(tally, settled=tally.failures, counted=0, above=False)
            for resource, tally in tallies.items()
        }
    for resource, reading in look.readings.items():
        tallies[resource] = _entered(tallies.get(resource, Tally()), reading, bounds.get(resource, Bound()))
    return Ledger(epoch=look.epoch, tallies=tallies)


def _entered(tally: Tally, reading: Reading, bound: Bound) -> Tally:
    peak = max(tally.peak, reading.peak or 0, reading.held or 0)
    if reading.failures is not None:
        return replace(tally, peak=peak, counted=max(tally.counted, reading.failures))
    above = bound.alert is not None and (reading.held or 0) > bound.alert
    return replace(tally, peak=peak, settled=tally.settled + (above and not tally.above), above=above)


def rows(ledger: Ledger, look: Look, bounds: Mapping[Resource, Bound]) -> tuple[Row, ...]:
    """Give the table: every resource has its line, in OpenVZ's order."""
    return tuple(
        _row(resource, look.readings.get(resource), ledger.tallies.get(resource, Tally()), bounds.get(resource))
        for resource in Resource
    )


def _row(resource: Resource, reading: Reading | None, tally: Tally, bound: Bound | None) -> Row:
    holds = bound or Bound()
    return Row(
        resource=resource,
        held=None if reading is None else reading.held,
        maxheld=tally.peak,
        barrier=holds.barrier,
        limit=holds.limit,
        failcnt=tally.failures,
        enforcement=holds.enforcement,
        by=holds.by,
    )


def growth(before: Ledger, after: Ledger) -> dict[Resource, int]:
    """Give by how much failures grew, by resource."""
    grown = {resource: after.failures(resource) - before.failures(resource) for resource in after.tallies}
    return {resource: number for resource, number in grown.items() if number > 0}


def encode_ledger(ledger: Ledger) -> bytes:
    """Give the text of a ledger's file, the same for the same ledger."""
    tallies: dict[str, Json] = {
        resource.value: {
            "peak": tally.peak,
            "settled": tally.settled,
            "counted": tally.counted,
            "above": tally.above,
        }
        for resource, tally in ledger.tallies.items()
    }
    return render_object({"epoch": ledger.epoch, "tallies": tallies}, format=LEDGER_FORMAT)


def decode_ledger(data: bytes, *, where: str) -> Ledger:
    """Parse the text of a ledger's file; ``where`` is its path, for the error.

    Raises: StateError.
    """
    fields = parse_object(data, format=LEDGER_FORMAT, where=where, remedy="remove it: then peaks are counted anew")
    tallies = fields.fields("tallies")
    ledger = Ledger(epoch=fields.text("epoch"), tallies=dict(_tallies(tallies, known=fields.mapping("tallies"))))
    fields.end()
    return ledger


def _tallies(fields: Fields, *, known: Iterable[str]) -> Iterable[tuple[Resource, Tally]]:
    for name in known:
        if name not in set(Resource):
            continue
        inner = fields.fields(name)
        tally = Tally(
            peak=inner.integer("peak"),
            settled=inner.integer("settled"),
            counted=inner.integer("counted"),
            above=inner.flag("above"),
        )
        inner.end()
        yield Resource(name), tally
