"""Checks of capacity: what the VEs of a host are promised together is no more than its manifest says it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.manifests.document import Complaint, Document, complain
from reconciler.model.capacity import Books, Promise, claim, supplies
from reconciler.model.fleet import Fleet, HostSpec, VeSpec


def shortages(fleet: Fleet, documents: Mapping[str, Document]) -> Iterator[Complaint]:
    """Complain about hosts that declare what they have and of which more is asked for.

    ``documents``: those of the hosts, by name.
    """
    for name, host in fleet.hosts.items():
        if host.capacity:
            for shortage in _books(fleet, host).shortages():
                hint = f"lower {shortage.field} of one of them, or give one another host"
                yield complain(documents[name], ("spec", "capacity", shortage.resource.value), str(shortage), hint)


def _books(fleet: Fleet, host: HostSpec) -> Books:
    books = Books(host.name, supplies(host, {}))
    for spec in fleet.ves.values():
        if spec.host == host.name or (spec.host is None and len(fleet.hosts) == 1):
            books.promise(Promise(name=spec.name, claim=claim(spec), place=_place(spec)))
    return books


def _place(spec: VeSpec) -> str:
    return f"{spec.place.file}:{spec.place.line}" if spec.place else ""
