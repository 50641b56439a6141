"""Views: what the ``/proc`` and ``/sys`` of a VE say of memory, CPUs, load and uptime: the VE's, or the host's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.identity import Uid

PATH = "views"
"""How plans, conditions and what a host can do call it."""


class Views(StrEnum):
    """`OWN`: the VE's own, by lxcfs. `HOST`: the host's. `BROKEN`: whoever reads them gets an error, as the lxcfs that
    served them is gone."""

    OWN = "own"
    HOST = "host"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowViews:
    """Let a VE that has an init see its own or the host's; it starts the instance's lxcfs if there is none."""

    uid: Uid
    views: Views
    serves: str = field(default="", compare=False)
