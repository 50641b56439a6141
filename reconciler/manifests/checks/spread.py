"""Checks of spread: VEs that are to be apart and could be are not given one host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.manifests.document import Complaint, Document, complain
from reconciler.model import spread
from reconciler.model.fleet import Fleet


def crowds(fleet: Fleet, documents: Mapping[str, Document]) -> Iterator[Complaint]:
    """Complain about VEs that are together, where the last of them is written. ``documents``: those of VEs, by name."""
    for crowd in spread.crowds(fleet):
        hint = "give one of them another host; `vectl place --rebalance` proposes one"
        yield complain(documents[crowd.ves[-1]], ("spec", "host"), str(crowd), hint)
