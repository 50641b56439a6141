"""Counters: what a VE of the in-memory host holds, as a test puts it there, and what is remembered of it."""

from __future__ import annotations

from reconciler.model.counters import NOTHING_READ, Counted, Ledger, growth, rows, settled
from reconciler.model.identity import Uid
from reconciler.model.volume import Record
from reconciler.plan import counters as plan
from reconciler.twin import compute, volume
from reconciler.twin.machine import Machine


def count(machine: Machine, uid: Uid, *, keep: bool) -> Counted:
    """Look at the counters of a VE.

    Raises: StateError, if there is no such VE.
    """
    volume.require_record(machine, uid, f"count VE {uid}")
    record, observed = machine.records[uid], compute.observe(machine, uid)
    applied = record.applied if isinstance(record, Record) else {}
    bounds = plan.bounds(applied, observed.limits if observed is not None else {}, machine.capabilities.why_not)
    before = machine.ledgers.get(uid, Ledger())
    look = machine.looks.get(uid)
    if look is None:
        return Counted(uid=uid, rows=rows(before, NOTHING_READ, bounds))
    after = settled(before, look, bounds)
    if keep:
        machine.ledgers[uid] = after
    return Counted(uid=uid, rows=rows(after, look, bounds), grown=growth(before, after))
