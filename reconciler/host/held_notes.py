"""What is written down of VEs that stand still on behalf of a move, each note about one init; who wrote it may be dead.

Light: every look at a VE that runs asks whether there is one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from reconciler.errors import StateError
from reconciler.host import runtime
from reconciler.host.site import Site
from reconciler.kernel import files
from reconciler.kernel.dumping import Note
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.identity import Uid
from reconciler.model.placement import Held

_LEAVING, _ARRIVED = "held.json", "arrived.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    init: ProcessId
    move: str


def note(site: Site, uid: Uid, init: ProcessId, move: str) -> Note:
    """Give the note that says that a VE is held to leave."""
    text = json.dumps({"init": [init.pid, init.start_time], "move": move})
    return Note(path=runtime.file(site, uid, _LEAVING), text=text)


def arrived_file(site: Site, uid: Uid) -> str:
    """Give the file that names an init that has arrived, as long as nothing of it runs."""
    return runtime.file(site, uid, _ARRIVED)


def held_as(site: Site, uid: Uid, init: ProcessId, *, waits: bool) -> Held | None:
    """Say as what an init stands still that is alive; ``waits``: it was never let go.

    Raises: StateError; KernelError.
    """
    if waits:
        return Held.ARRIVED if runtime.names(site, uid, _ARRIVED, init) else None
    found = _read(site, uid)
    return Held.LEAVING if found is not None and found.init == init else None


def move_of(site: Site, uid: Uid) -> str | None:
    """Give the move that a VE is held to leave with; None, if it is not.

    Raises: StateError; KernelError.
    """
    found = _read(site, uid)
    if found is None or found.init != runtime.read_init(site, uid) or not site.inits.is_alive(found.init):
        return None
    return found.move


def forget(site: Site, uid: Uid) -> None:
    """Forget that a VE was held.

    Raises: KernelError.
    """
    files.remove_tree(runtime.file(site, uid, _LEAVING))


def _read(site: Site, uid: Uid) -> _Leaving | None:
    return site.parsed.read(runtime.file(site, uid, _LEAVING), _parse)


def _parse(data: bytes, *, where: str) -> _Leaving:
    """Parse a note; one that is damaged may be of a VE that must not go on."""
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(data)
        pid, start_time = found["init"]
        return _Leaving(init=ProcessId(pid=int(pid), start_time=int(start_time)), move=str(found["move"]))
    raise StateError(f"read {where}: expected who is held; delete it if nothing is")
