"""Keeping out: a host under maintenance takes no VE that is not there yet, and what a plan says of who is together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.model.action import Refusal
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import HostName, VeName
from reconciler.model.spread import crowds

RULE = "HostMaintenance"


def is_shut(fleet: Fleet, host: HostName) -> bool:
    """Say whether a host takes no VE that is not there yet."""
    declared = fleet.hosts.get(host)
    return declared is not None and declared.maintenance


def refuse(fleet: Fleet, host: HostName, coming: Iterable[VeSpec]) -> dict[VeName, Refusal]:
    """Refuse VEs that are to come to a host, where it is under maintenance."""
    if not is_shut(fleet, host):
        return {}
    message = f"{host} is under maintenance and takes no VE that is not there yet"
    remedy = f"give it another host, such as `vectl place` proposes, or remove maintenance from the manifest of {host}"
    return {
        spec.name: Refusal(ve=spec.name, uid=spec.uid, rule=RULE, message=message, remedy=remedy) for spec in coming
    }


def notes(fleet: Fleet, host: HostName) -> Iterator[str]:
    """Say what a reader of a host's plan should know of the host itself."""
    if is_shut(fleet, host):
        yield f"{host} is under maintenance: it takes no new VE"
    yield from (str(crowd) for crowd in crowds(fleet) if crowd.host == host)
