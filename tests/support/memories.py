"""The promises about the memory of suspended VEs: kept until it is spent, and spent once."""

from __future__ import annotations

from reconciler.twin.machine import Machine, Memory


def memories_of(machine: Machine) -> list[Memory]:
    """Give every memory that a host keeps, wherever it is."""
    everywhere = [*machine.snapshots.values(), *(entry.snapshots for entry in machine.trash.values())]
    kept = [snapshot.memory for snapshots in everywhere for snapshot in snapshots.values()]
    trashed = [entry.memory for entry in machine.trash.values()]
    found = [*machine.memories.values(), *kept, *trashed]
    return [memory for memory in found if memory is not None]


def assert_memories_kept(before: Machine, now: Machine) -> None:
    """I4, I5: what was kept is kept or was let go, and nothing was let go twice."""
    there = {id(memory) for memory in (*memories_of(now), *now.spent)}
    assert [memory for memory in memories_of(before) if id(memory) not in there] == []
    assert len({id(memory) for memory in now.spent}) == len(now.spent), "a memory was let go twice"
