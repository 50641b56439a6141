"""The dumps and restores that a keeper has under way; each comes to an end, whatever becomes of its client."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import NoReturn

from reconciler.errors import KeeperError, VectlError
from reconciler.host.keeper import protocol
from reconciler.host.keeper.children import Dumping, Restoring, Starting
from reconciler.host.keeper.protocol import Answer, Done, Failed, Launched
from reconciler.kernel import child, dumping, pidfd, restoring
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.kernel.syscalls import translated

_GRACE_S = 20.0  # beyond the child's own deadline, to clear up in
_WELL = Exit(kind="exited", value=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What the keeper does for these: hears a child, answers a client, becomes the parent of an init or forgets it."""

    listen: Callable[[Starting], None]
    send: Callable[[int, int, Answer], None]
    adopt: Callable[[str, ProcessId], None]
    bury: Callable[[int], None]


class Memories:
    """Dumps and restores, by the pid of the child that carries them out."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._dumps: dict[int, Dumping] = {}
        self._restores: dict[int, Restoring] = {}

    def under_way(self) -> Iterator[Dumping | Restoring]:
        """Give what has not ended."""
        return chain(list(self._dumps.values()), list(self._restores.values()))

    def dump(self, client: int, number: int, request: protocol.Dump | protocol.Hold) -> None:
        """Begin a dump, which ends or holds the VE; a second one of the same VE is refused.

        Raises: KeeperError.
        """
        self.refuse_busy(request.uid)
        pid, report = child.fork(lambda report: dumping.dump(request.spec, report))
        self._dumps[pid] = Dumping(
            child=pid,
            report=report,
            client=client,
            request=number,
            deadline=time.monotonic() + request.spec.timeout_s + _GRACE_S,
            uid=request.uid,
            spec=request.spec,
        )
        self._parent.listen(self._dumps[pid])

    def restore(self, client: int, number: int, request: protocol.Restore) -> None:
        """Begin a restore, which is answered once it is held back.

        Raises: KeeperError.
        """
        self.refuse_busy(request.uid)
        pid, report = child.fork(lambda report: restoring.restore(request.spec, report))
        self._restores[pid] = Restoring(
            child=pid,
            report=report,
            client=client,
            request=number,
            deadline=time.monotonic() + request.spec.timeout_s + _GRACE_S,
            uid=request.uid,
            spec=request.spec,
        )
        self._parent.listen(self._restores[pid])

    def refuse_busy(self, uid: str) -> None:
        """Refuse whatever cannot be done to a VE meanwhile.

        Raises: KeeperError.
        """
        for each in self.under_way():
            if each.uid == uid:
                what = "dumped" if isinstance(each, Dumping) else "restored"
                raise KeeperError(f"reach VE {uid}: it is being {what}; wait for the end of that")

    def refuse_inside(self, init: int) -> None:
        """Refuse whatever is to be done in a VE by its init's pid while it stands still or is half made.

        Raises: KeeperError.
        """
        for each in self.under_way():
            if init == (each.spec.criu.pid if isinstance(each, Dumping) else each.program):
                self.refuse_busy(each.uid)

    def release(self, client: int, number: int, uid: str, *, closed: bool) -> bool:
        """Let a restore go on that is held back; asked again, the newest client is told how it ends.

        ``closed``: until all is made. False: there is none.
        Raises: KeeperError, if it stands closed, and is to run.
        """
        found = next((each for each in self._restores.values() if each.uid == uid and each.held), None)
        if found is None:
            return False
        if found.closed:
            if not closed:
                raise KeeperError(f"release VE {uid}: it stands closed; open it instead")
            self._parent.send(client, number, Done())
            return True
        if not found.released:
            self._tell(found, restoring.GO_CLOSED if closed else restoring.GO)
            found.released = True
        found.client, found.request, found.answered = client, number, False
        return True

    def open(self, client: int, number: int, uid: str) -> bool:
        """Let a VE run that stands closed; False, if it is not being restored.

        Raises: KeeperError, if it does not stand closed.
        """
        found = next((each for each in self._restores.values() if each.uid == uid), None)
        if found is None:
            return False
        if not found.closed:
            raise KeeperError(f"open VE {uid}: it was not started closed")
        if not found.opened:
            self._tell(found, restoring.GO)
            found.opened = True
        found.client, found.request, found.answered = client, number, False
        return True

    def decide(self, client: int, number: int, request: protocol.Decide) -> None:
        """End a VE that is held, or let it go on; the first word holds.

        Raises: KeeperError, if nobody of ours holds it.
        """
        uid = request.uid
        found = next((each for each in self._dumps.values() if each.uid == uid and each.held), None)
        if found is None:
            raise KeeperError(f"decide about VE {uid}: nobody holds it")
        if not found.decided:
            self._tell(found, dumping.RESUME if request.resume else dumping.END)
            found.decided = True
        found.client, found.request, found.answered = client, number, False

    def _tell(self, child_: Dumping | Restoring, word: bytes) -> None:
        with translated("tell", f"who leads VE {child_.uid}"):
            child_.report.send(word)
        child_.deadline = time.monotonic() + child_.spec.timeout_s + _GRACE_S

    def heard(self, starting: Dumping | Restoring) -> None:
        """Take note of what has got as far as to stand still."""
        if isinstance(starting, Restoring):
            self._adopt(starting)
        if not starting.stands:
            return
        if isinstance(starting, Dumping) and not starting.held:
            starting.held = True
        elif isinstance(starting, Restoring) and not starting.closed:
            starting.closed = True
        else:
            return
        starting.deadline = None
        self._answer(starting, Done())
        starting.answered = True

    def _adopt(self, starting: Restoring) -> None:
        """Take over the init of a restore that has got as far as to be held back."""
        if starting.held or starting.program is None:
            return
        starting.held, starting.deadline = True, None
        try:
            init = pidfd.identify(starting.program)
            if init is None:
                return  # and who leads it will say so
            self._parent.adopt(starting.uid, init)
        except VectlError as err:
            starting.failure = Failed(kind="failed", message=str(err))
            starting.kill()
            self._mend(starting)
            return
        self._answer(starting, Launched(init=init))
        starting.answered = True

    def reaped(self, pid: int, exit_: Exit) -> bool:
        """Finish what a child was doing that has ended; False, if it is none of these."""
        if pid in self._dumps:
            self._finish(self._dumps.pop(pid), exit_)
        elif pid in self._restores:
            self._finish(self._restores.pop(pid), exit_)
        else:
            return False
        return True

    def _finish(self, ended: Dumping | Restoring, exit_: Exit) -> None:
        if exit_ == _WELL:
            self._answer(ended, Done())
            return
        if ended.failure is None:
            ended.kill()
            self._mend(ended)
            ended.failure = Failed(kind="failed", message="run criu: who ran it was killed, and what it did is undone")
        failure = replace(ended.failure, status=1)
        if isinstance(ended, Restoring) and ended.program is not None:
            self._parent.bury(ended.program)
        self._answer(ended, failure)

    def _answer(self, ended: Dumping | Restoring, answer: Answer) -> None:
        if not ended.answered:
            self._parent.send(ended.client, ended.request, answer)

    def _mend(self, ended: Dumping | Restoring) -> None:
        with suppress(VectlError):
            _, report = child.fork(lambda _report: _mend(ended))
            report.close()


def _mend(ended: Dumping | Restoring) -> NoReturn:
    try:
        if isinstance(ended, Dumping):
            dumping.mend(ended.spec)
        else:
            restoring.mend(ended.spec, ended.program)
    except VectlError as err:
        sys.stderr.write(f"{err}\n")
    sys.exit(0)
