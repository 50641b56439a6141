"""Levelling: moves of VEs between hosts, one at a time, each of which helps.

A move helps if VEs come apart that are to be apart, or if the fuller of its two hosts becomes less full and nobody
comes together. The hosts, by how full they are, get less by each in the order of words, so that there is an end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from reconciler.model.identity import HostName, VeName
from reconciler.plan.seating import Seating

UNEVEN = 0.1
"""How much fuller a host has to be than another for a move to be worth its while. Units: shares of a host."""

UNEVEN_COUNT = 1.0
"""The same where nobody said how much hosts have. Units: VEs."""

_LEAST_GAIN = 1e-9


def level(seating: Seating, held: AbstractSet[VeName]) -> None:
    """Move VEs until no single move helps. ``held``: those that stay where they are."""
    while (move := _parting(seating, held) or _evening(seating, held)) is not None:
        seating.move(*move)


def _parting(seating: Seating, held: AbstractSet[VeName]) -> tuple[VeName, HostName] | None:
    """Find the move that brings most VEs apart."""
    best: tuple[int, tuple[float, ...], VeName, HostName] | None = None
    for name, host in sorted(seating.at.items()):
        clashes = 0 if name in held else seating.clashes(name, host)
        for other in seating.hosts if clashes else ():
            gain = clashes - seating.clashes(name, other)
            if other == host or gain <= 0 or not seating.takes(name, other):
                continue
            rank = seating.rank(name, other)
            found = (-gain, (float(rank[1]), rank[2], float(rank[3])), name, other)
            best = found if best is None else min(best, found)
    return None if best is None else best[2:]


def _evening(seating: Seating, held: AbstractSet[VeName]) -> tuple[VeName, HostName] | None:
    """Find the move that helps the fullest host most that any helps."""
    levels = _levels(seating)
    emptiest = sorted(levels, key=lambda one: (levels[one], one))
    by_host: dict[HostName, dict[object, VeName]] = {host: {} for host in levels}
    for name, host in sorted(seating.at.items()):
        if host in by_host and name not in held:
            by_host[host].setdefault(seating.guests[name].likeness, name)  # for each kind of VE the first speaks
    for host in sorted(levels, key=lambda one: (-levels[one], one)):
        moves = (_best(seating, name, emptiest, levels) for name in by_host[host].values())
        best = min((move for move in moves if move is not None), default=None)
        if best is not None:
            return best[1:]
    return None


def _best(
    seating: Seating, name: VeName, emptiest: Sequence[HostName], levels: Mapping[HostName, float]
) -> tuple[float, VeName, HostName] | None:
    """Give the best move of a VE that helps, with how full the fuller of its two hosts is then."""
    host = seating.at[name]
    found: tuple[float, VeName, HostName] | None = None
    for other in emptiest:
        if not _is_worth_while(seating, host, other, levels):
            break
        if seating.clashes(name, other) > seating.clashes(name, host) or not seating.takes(name, other):
            continue
        seating.move(name, other)
        left, after = _level(seating, host), _level(seating, other)
        seating.move(name, host)
        if max(left, after) < min(levels[host], found[0] if found else levels[host]) - _LEAST_GAIN:
            found = max(left, after), name, other
        if after <= left:
            break
    return found


def _is_worth_while(seating: Seating, host: HostName, other: HostName, levels: Mapping[HostName, float]) -> bool:
    least = UNEVEN if seating.is_measured else UNEVEN_COUNT
    return levels[host] - levels[other] > least or (seating.hosts[host].is_over() and levels[other] < 1)


def _levels(seating: Seating) -> dict[HostName, float]:
    """Give how full each host is of which that can be told."""
    known = (name for name, host in seating.hosts.items() if host.is_known or not seating.is_measured)
    return {name: _level(seating, name) for name in known}


def _level(seating: Seating, host: HostName) -> float:
    seats = seating.hosts[host]
    return seats.fullness() if seating.is_measured else float(seats.count)
