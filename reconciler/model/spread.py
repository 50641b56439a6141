"""Spread: VEs that are to be on different hosts, as one of them names labels of which they have equal values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import HostName, VeName

Group: TypeAlias = tuple[tuple[str, str], ...]
"""Labels with their values: whoever has all of them is in it."""


def group_of(spec: VeSpec) -> Group | None:
    """Give the group that a VE is to be kept apart from; None, if it names none, or has not got one of the labels."""
    if not spec.spread or not all(label in spec.labels for label in spec.spread):
        return None
    return tuple((label, spec.labels[label]) for label in spec.spread)


def group_text(group: Group) -> str:
    """Give a group as people read it, e.g. ``tier=web``."""
    return ", ".join(f"{label}={value}" for label, value in group)


class Groups:
    """The groups that VEs of a fleet ask for, and who is in them."""

    def __init__(self, specs: Iterable[VeSpec]) -> None:
        asking = [spec for spec in specs if spec.spread]
        self._asked = {group for spec in asking if (group := group_of(spec)) is not None}
        self._labels = sorted({tuple(label for label, _ in group) for group in self._asked})

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._asked)

    def of(self, spec: VeSpec) -> Iterator[Group]:
        """Yield the groups that a VE is in, whether it asks for that or not."""
        for labels in self._labels:
            if all(label in spec.labels for label in labels):
                group = tuple((label, spec.labels[label]) for label in labels)
                if group in self._asked:
                    yield group


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """More of a group on one host than need be. ``most``: how many, if it were spread evenly."""

    host: HostName
    group: Group
    ves: tuple[VeName, ...]
    most: int

    def __str__(self) -> str:
        """Give it in words."""
        names = ", ".join(self.ves)
        return f"spread: {names} are on {self.host} together ({group_text(self.group)}), expected {self.most} at most"


def crowds(fleet: Fleet) -> tuple[Crowd, ...]:
    """Name where VEs are together that ask to be apart and could be: hosts under maintenance do not count as free."""
    groups = Groups(fleet.ves.values())
    return tuple(_crowds(fleet, groups)) if groups else ()


def _crowds(fleet: Fleet, groups: Groups) -> Iterator[Crowd]:
    free = len([host for host in fleet.hosts.values() if not host.maintenance])
    for group, members in sorted(_members(fleet, groups).items()):
        by_host: dict[HostName, list[VeSpec]] = {}
        for spec in members:
            if spec.host is not None:
                by_host.setdefault(spec.host, []).append(spec)
        most = -(-len(members) // max(1, free))
        for host, there in sorted(by_host.items()):
            if len(there) > most and any(group_of(spec) == group for spec in there):
                yield Crowd(host=host, group=group, ves=tuple(sorted(spec.name for spec in there)), most=most)


def _members(fleet: Fleet, groups: Groups) -> Mapping[Group, list[VeSpec]]:
    members: dict[Group, list[VeSpec]] = {}
    for spec in fleet.ves.values():
        for group in groups.of(spec):
            members.setdefault(group, []).append(spec)
    return members
