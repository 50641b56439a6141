"""Placing: hosts for VEs that have none, that are to leave theirs, or that are better off elsewhere.

What comes of it depends on nothing but what is passed in. What fits is decided by the arithmetic of admission; of hosts
that fit the one is taken where fewest VEs come together that are to be apart, and that is least full afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.model.facts import Json
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName, VeName
from reconciler.model.spread import group_text
from reconciler.plan import levelling, waves
from reconciler.plan.seating import Seating, Site, tie

LOOKS_MAX = 20_000
"""How often a host is judged for a VE to find room for all, once a way was found to place some. Where hosts are nearly
full, there are more ways than anybody can try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for, and of what.

    ``drained``: hosts that all VEs are to leave. ``only``: the VEs that it is about; empty for all. One that is named
    and neither without a host nor on one that is drained moves if that helps, as with ``levels``, which is to even out
    how full hosts are. ``sites``: what hosts told of themselves.
    """

    fleet: Fleet
    drained: frozenset[HostName] = frozenset()
    only: frozenset[VeName] = frozenset()
    levels: bool = False
    sites: Mapping[HostName, Site] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A host for a VE. ``before`` None: it has none yet. ``wave``: when it moves, from 1; those of one move at once."""

    ve: VeName
    before: HostName | None
    after: HostName
    reason: str
    wave: int = 1

    def to_json(self) -> Json:
        """Give the stable form."""
        return {"ve": self.ve, "from": self.before, "to": self.after, "wave": self.wave, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """A VE for which there is no host. ``reason``: what holds it, "" where ``hosts`` says it for each."""

    ve: VeName
    host: HostName | None
    reason: str = ""
    hosts: Mapping[HostName, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Give the stable form."""
        hosts: list[Json] = [{"host": host, "reason": reason} for host, reason in self.hosts.items()]
        return {"ve": self.ve, "host": self.host, "reason": self.reason, "hosts": hosts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """A host before and after. ``full``: the share that is promised of what most is promised of; None: not known."""

    host: HostName
    closed: str
    ves: tuple[int, int]
    full: tuple[float, float] | None

    def to_json(self) -> Json:
        """Give the stable form."""
        full = (None, None) if self.full is None else self.full
        return {
            "host": self.host,
            "closed": self.closed,
            "ves_before": self.ves[0],
            "ves_after": self.ves[1],
            "full_before": _number(full[0]),
            "full_after": _number(full[1]),
        }


def _number(value: float | None) -> Json:
    return None if value is None or value == float("inf") else round(value, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Who is to be where. ``notes``: what else one should know, in sentences."""

    seats: tuple[Seat, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    hosts: tuple[Filling, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl place -o json`."""
        return {
            "format": 1,
            "moves": [seat.to_json() for seat in self.seats],
            "unplaced": [one.to_json() for one in self.unplaced],
            "hosts": [host.to_json() for host in self.hosts],
            "notes": [*self.notes],
        }


def propose(wish: Wish) -> Proposal:
    """Find a host for every VE that needs another, with as few moves as that takes."""
    seating = Seating(wish.fleet, wish.sites, _closed(wish))
    before = {name: (host.count, host.fullness()) for name, host in seating.hosts.items()}
    if len(seating.hosts) < 2:  # there is nothing to choose: a VE without a host is on the only one
        return Proposal(hosts=tuple(_fillings(seating, before)))
    ties = {name: tie(guest.spec) for name, guest in seating.guests.items()}
    due = [name for name in seating.guests if _is_due(wish, seating, name)]
    free = [name for name in due if not ties[name]]
    for name in due:
        if name in seating.at and not ties[name]:
            seating.take(name)
    _Search(seating, free).run()
    levelling.level(seating, seating.guests.keys() - set(free))  # they move anyway
    if wish.levels or wish.only:
        held = {name for name in seating.guests if ties[name] or (wish.only and name not in wish.only)}
        levelling.level(seating, held)
    seats = tuple(_seats(wish, seating))
    left = [name for name in due if name not in seating.at or seating.at[name] in wish.drained]
    for name in left:
        if (host := wish.fleet.ves[name].host) is not None and name not in seating.at:
            seating.put(name, host)
    return Proposal(
        seats=_in_waves(wish, seats),
        unplaced=tuple(_unplaced(seating, name, ties[name]) for name in left),
        hosts=tuple(_fillings(seating, before)),
        notes=tuple(_notes(wish, seating, seats)),
    )


def _closed(wish: Wish) -> dict[HostName, str]:
    drained = {host: f"{host} is to be drained" for host in wish.drained}
    kept = {host.name: f"{host.name} is under maintenance" for host in wish.fleet.hosts.values() if host.maintenance}
    return {**kept, **drained}


def _is_due(wish: Wish, seating: Seating, name: VeName) -> bool:
    host = seating.at.get(name)
    return (not wish.only or name in wish.only) and (host is None or host in wish.drained)


class _Search:
    """The search for hosts for VEs that have none: depth first, of each VE the best host first.

    What it meets first is what choosing the best host for one after the other gives; it goes on only while that leaves
    somebody without a host, or together with whom it is to be apart from.
    """

    def __init__(self, seating: Seating, names: Sequence[VeName]) -> None:
        self._seating = seating
        self._names = sorted(names, key=lambda name: (-_weight(seating, name), name))
        self._best: tuple[int, int] | None = None
        self._chosen: list[HostName | None] = []
        self._looks = 0

    def run(self) -> None:
        """Put the VEs on the hosts that were found; those for which there is none stay without."""
        trail: list[HostName | None] = []
        costs = [(0, 0)]
        open_ways = [self._ways(0, (0, 0))]
        while open_ways and (self._best is None or (self._looks < LOOKS_MAX and self._best > (0, 0))):
            if len(trail) == len(open_ways):
                self._undo(trail, costs)
            way = next(open_ways[-1], None)
            if way is None:
                open_ways.pop()
                continue
            host, cost = way
            self._do(trail, costs, host, cost)
            if len(trail) == len(self._names):
                self._best, self._chosen = cost, list(trail)
            else:
                open_ways.append(self._ways(len(trail), cost))
        while trail:
            self._undo(trail, costs)
        for name, host in zip(self._names, self._chosen, strict=False):
            if host is not None:
                self._seating.put(name, host)

    def _do(
        self, trail: list[HostName | None], costs: list[tuple[int, int]], host: HostName | None, cost: tuple[int, int]
    ) -> None:
        if host is not None:
            self._seating.put(self._names[len(trail)], host)
        trail.append(host)
        costs.append(cost)

    def _undo(self, trail: list[HostName | None], costs: list[tuple[int, int]]) -> None:
        costs.pop()
        if trail.pop() is not None:
            self._seating.take(self._names[len(trail)])

    def _ways(self, number: int, cost: tuple[int, int]) -> Iterator[tuple[HostName | None, tuple[int, int]]]:
        """Yield the hosts for a VE, best first, and none at all, as far as they may lead to something better."""
        if number == len(self._names):
            return
        name, seating = self._names[number], self._seating
        self._looks += len(seating.hosts)
        ranks = sorted(seating.rank(name, host) for host in seating.hosts if seating.takes(name, host))
        for rank in ranks:
            worse = (cost[0], cost[1] + rank[0])
            if self._best is None or worse < self._best:
                yield rank[-1], worse
        without = (cost[0] + 1, cost[1])
        if self._best is None or without < self._best:
            yield None, without


def _weight(seating: Seating, name: VeName) -> float:
    """Give how much of a host a VE takes, of the one that it takes least of."""
    claim = seating.guests[name]
    return min((host.share_of(claim) for host in seating.hosts.values() if host.is_known), default=0.0)


def _seats(wish: Wish, seating: Seating) -> Iterator[Seat]:
    original = Seating(wish.fleet, wish.sites, {})
    for name, host in sorted(seating.at.items()):
        before = wish.fleet.ves[name].host
        if before != host:
            yield Seat(ve=name, before=before, after=host, reason=_reason(wish, original, name, before))


def _reason(wish: Wish, original: Seating, name: VeName, before: HostName | None) -> str:
    if before is None:
        return "has no host"
    if before in wish.drained:
        return f"{before} is to be drained"
    others = original.clashing(name, before)
    return f"is to be apart from {', '.join(others)}" if others else f"evens out {before}"


def _in_waves(wish: Wish, seats: Sequence[Seat]) -> tuple[Seat, ...]:
    return tuple(waves.part(Seating(wish.fleet, wish.sites, {}), seats))


def _unplaced(seating: Seating, name: VeName, tied: str) -> Unplaced:
    host = seating.guests[name].spec.host
    if tied:
        rest = "move that by hand, then set its host" if host else "nobody but you knows which: set its host by hand"
        return Unplaced(ve=name, host=host, reason=f"{tied}; {rest}")
    reasons = {other: seating.refusal(name, other) for other in seating.hosts if other != host}
    return Unplaced(ve=name, host=host, hosts=reasons)


def _fillings(seating: Seating, before: Mapping[HostName, tuple[int, float]]) -> Iterator[Filling]:
    for name, host in seating.hosts.items():
        count, full = before[name]
        yield Filling(
            host=name,
            closed=host.closed,
            ves=(count, host.count),
            full=(full, host.fullness()) if host.is_known else None,
        )


def _notes(wish: Wish, seating: Seating, seats: Sequence[Seat]) -> Iterator[str]:
    for host in sorted(wish.drained):
        if host in wish.fleet.hosts and not wish.fleet.hosts[host].maintenance:
            yield f"{host} takes new VEs until its manifest says maintenance: true"
    for host in sorted({seat.after for seat in seats}):
        if not seating.hosts[host].is_known:
            yield f"{host} declares no capacity: nobody can tell from here how much fits on it"
    yield from _crowded(seating, {seat.ve for seat in seats})


def _crowded(seating: Seating, moved: set[VeName]) -> Iterator[str]:
    """Say which VEs stay together that are to be apart, of those that were given a host."""
    told: set[tuple[HostName, tuple[tuple[str, str], ...]]] = set()
    for name in sorted(moved):
        host, guest = seating.at[name], seating.guests[name]
        for group in guest.groups:
            there = seating.members(group, host)
            if len(there) > 1 and seating.clashes(name, host) and (host, group) not in told:
                told.add((host, group))
                yield f"{', '.join(there)} come together on {host}: no more hosts take any of {group_text(group)}"
