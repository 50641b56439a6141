"""Waves: in what order VEs move, so that each finds room before those have left that move with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.model.spread import Group
from reconciler.plan.seating import Seating

if TYPE_CHECKING:
    from reconciler.model.identity import HostName
    from reconciler.plan.placing import Seat

AT_ONCE = 2
"""How many VEs come to or leave one host at once: more of them share its network, and each takes the longer."""


def part(seating: Seating, seats: Sequence[Seat]) -> Iterator[Seat]:
    """Give moves in their order, with their waves. ``seating``: as it is before; it is not the same afterwards."""
    left = sorted(seats, key=lambda seat: (seating.guests[seat.ve].spec.power.order, seat.ve))
    wave = 0
    while left:
        wave += 1
        now = _next(seating, left) or left  # each waits for another's place: as things are, nobody can begin
        for seat in now:
            if seat.ve in seating.at:
                seating.take(seat.ve)
            seating.put(seat.ve, seat.after)
            yield replace(seat, wave=wave)
        left = [seat for seat in left if seat not in now]


def _next(seating: Seating, left: Sequence[Seat]) -> list[Seat]:
    """Choose who moves next: who finds room beside all that are there, no two of a group that is to be apart."""
    busy: Counter[HostName] = Counter()
    groups: set[Group] = set()
    coming: list[Seat] = []
    for seat in left:
        guest = seating.guests[seat.ve]
        ends = [host for host in (seat.before, seat.after) if seat.before is not None and host is not None]
        is_free = all(busy[host] < AT_ONCE for host in ends) and (
            seat.before is None or groups.isdisjoint(guest.groups)
        )
        if is_free and seating.takes(seat.ve, seat.after):
            seating.hosts[seat.after].put(guest)
            busy.update(ends)
            groups.update(guest.groups if seat.before is not None else ())
            coming.append(seat)
    for seat in coming:
        seating.hosts[seat.after].take(seating.guests[seat.ve])
    return coming
