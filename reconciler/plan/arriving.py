"""Bringing up a VE that arrived with its processes: what is done before it is this host's, and what after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler.model.effects import Effect
from reconciler.model.network import AddHostRoute, AnnounceAddress, AttachInterface
from reconciler.model.placement import OpenRuntime
from reconciler.model.power import StartRuntime

_OUTWARD = (AttachInterface, AddHostRoute, AnnounceAddress)
"""What leads others to a VE, who may still be talking to it where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """``closed``: brings a VE to where its processes are made, unseen by others; it may be thrown away from there.
    ``opened``: lets others reach it, and it run."""

    closed: tuple[Effect, ...]
    opened: tuple[Effect, ...]


def stages(resumed: Sequence[Effect]) -> Stages:
    """Part the effects that let a VE go on from its memory, in their order, at the instant when it changes hosts.

    It is connected before it runs, as whoever it talks to is waiting, and announced once it can answer.
    """
    at = next(index for index, effect in enumerate(resumed) if isinstance(effect, StartRuntime))
    before, start, after = resumed[:at], resumed[at], resumed[at + 1 :]
    assert isinstance(start, StartRuntime)
    leading = [effect for effect in resumed if isinstance(effect, AttachInterface | AddHostRoute)]
    return Stages(
        closed=(*(effect for effect in before if not isinstance(effect, _OUTWARD)), replace(start, closed=True)),
        opened=(
            *leading,
            OpenRuntime(uid=start.uid, serves=start.serves),
            *(effect for effect in resumed[:at] if isinstance(effect, AnnounceAddress)),
            *(effect for effect in after if not isinstance(effect, AttachInterface | AddHostRoute)),
        ),
    )
