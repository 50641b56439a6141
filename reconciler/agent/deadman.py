"""The dead man's switch: a process of its own that takes a risky change back unless somebody confirms it in time.

It is started before the change is made and holds a lock for as long as it lives. It needs nobody: neither the process
that makes the change, nor the network that this may cost, nor a file of ours that is read later than at its start.

Shape: one argument, a JSON object of ``instance``, the fields of `Instance`, and ``change``, the id.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

from reconciler.agent.clock import SystemClock
from reconciler.errors import KernelError, StateError, VectlError
from reconciler.host.host import RealHost
from reconciler.host.keeper.records import boot_id
from reconciler.host.site import Site
from reconciler.kernel import answering, daemon
from reconciler.model import exchange
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.host_risk import Check, PingCheck, RiskyChange, Standing, TcpCheck, Undone, Verdict
from reconciler.model.identity import Uid
from reconciler.model.instance import Instance
from reconciler.model.observation import Facet, Scope
from reconciler.model.seam import Clock, Host
from reconciler.plan import host_risk
from reconciler.state.host_risks import LOCK, LOG, HostRisks

BY_DEADLINE, BY_CHECKS, BY_BOOT = "nobody confirmed it in time", "all checks answered", "the host was booted meanwhile"

_LOOK_S = 0.1
_ATTEMPTS = 10
_PAUSE_S = 1.0
_ANSWER_S = 2.0
_OF_NETWORK = frozenset({Facet.NETWORK})
_NO_VES: frozenset[Uid] = frozenset()


@dataclass(slots=True, kw_only=True)
class DeadMan:
    """Watches one change. ``boot``: which boot of the machine this is."""

    risks: HostRisks
    host: Host
    clock: Clock
    boot: str
    _began: float = math.inf
    _good_since: float | None = None

    async def watch(self, id_: str) -> None:
        """Wait until it is decided what becomes of the change, and take it back if it is that.

        Raises: VectlError.
        """
        standing: Standing | None = None
        self._began = self.clock.monotonic()
        while True:
            with suppress(StateError, KernelError):  # what was read before is enough to take the change back by
                standing = self.risks.read(id_)
            if standing is None or standing.undone is not None:
                return
            verdict = await self._verdict(standing)
            if verdict is Verdict.CONFIRMED:
                return
            if verdict is Verdict.UNDO:
                problem = await take_back(self.host, standing.change)
                self.risks.conclude(id_, Undone(problem=problem, at=self.clock.now()))
                return
            await asyncio.sleep(_LOOK_S)

    async def _verdict(self, standing: Standing) -> Verdict | None:
        if standing.ruling is not None:
            return standing.ruling.verdict
        change = standing.change
        if change.boot != self.boot:
            return self._rule(change, Verdict.UNDO, BY_BOOT)
        # One that is not done by now never will be: who made it is gone, or stuck.
        deadline = self._began + change.confirm_s if standing.deadline is None else standing.deadline
        if self.clock.monotonic() >= deadline:
            return self._rule(change, Verdict.UNDO, BY_DEADLINE)
        if standing.deadline is not None and change.checks and await self._holds(change):
            return self._rule(change, Verdict.CONFIRMED, BY_CHECKS)
        return None

    def _rule(self, change: RiskyChange, verdict: Verdict, by: str) -> Verdict | None:
        """Decide, unless somebody has; what cannot be written down is no confirmation, and taken back all the same."""
        try:
            return self.risks.rule(change.id, verdict, by=by, at=self.clock.now()).verdict
        except VectlError:
            return Verdict.UNDO if verdict is Verdict.UNDO else None

    async def _holds(self, change: RiskyChange) -> bool:
        """Ask all checks once; say whether they have answered for long enough, without one that did not."""
        asked = self.clock.monotonic()
        answers = await asyncio.gather(*(asyncio.to_thread(is_answered, check) for check in change.checks))
        if not all(answers):
            self._good_since = None
            return False
        self._good_since = asked if self._good_since is None else self._good_since
        return self.clock.monotonic() - self._good_since >= change.hold_s


def is_answered(check: Check) -> bool:
    """Say whether a check is answered now. Blocks."""
    match check:
        case TcpCheck():
            return answering.accepts_connections(check.host, check.port, timeout_s=_ANSWER_S)
        case PingCheck():
            return answering.answers_echo(check.address, timeout_s=_ANSWER_S)
        case _:
            assert_never(check)


async def take_back(host: Host, change: RiskyChange) -> str:
    """Make all that a change touched as it was before, and look that it is; say what is not, or "".

    What fails is tried again, beginning with a new look.
    """
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(_PAUSE_S)
        try:
            effects = await _missing(host, change)
            if not effects:
                return ""
            for effect in effects:
                await host.perform(effect)
            problem = "not as before: " + ", ".join(type(effect).__name__ for effect in effects)
        except VectlError as err:
            problem = str(err)
    return problem


async def _missing(host: Host, change: RiskyChange) -> tuple[Effect, ...]:
    seen = await host.observe(Scope(uids=_NO_VES, use=False), _OF_NETWORK)
    if isinstance(seen.networks, Unknown):
        raise KernelError(f"look at the host's networks: {seen.networks.reason}")
    if isinstance(seen.reach, Unknown):
        raise KernelError(f"look at the host's addresses: {seen.reach.reason}")
    return host_risk.plan_undo(change, seen.networks, seen.reach)


def main(argument: str) -> None:
    """Lock, open all that is needed, detach, and watch; already watched is success."""
    given = json.loads(argument)
    instance = exchange.from_json(Instance, given["instance"], "instance")
    risks, id_ = HostRisks(instance.state_dir), str(given["change"])
    directory = risks.directory(id_)
    if daemon.try_lock(f"{directory}/{LOCK}") is None:
        return
    site = Site(instance)
    host = RealHost(site)
    asyncio.run(host.observe(Scope(uids=_NO_VES, use=False), _OF_NETWORK))  # opens, and imports, all that it takes
    ready = daemon.detach(f"{directory}/{LOG}")
    daemon.set_name("vectl-deadman")
    daemon.protect_from_oom()
    daemon.report_ready(ready)
    asyncio.run(DeadMan(risks=risks, host=host, clock=SystemClock(), boot=boot_id()).watch(id_))
    os._exit(0)  # threads that still wait for an answer are of no use any more


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except VectlError as error:
        sys.exit(f"vectl: {error}")
