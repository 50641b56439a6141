"""Changes that could cut the host off: made only while somebody stands by who takes them back."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import reconciler
from reconciler.agent.deadman import take_back
from reconciler.agent.desk import Desk
from reconciler.apply.applier import Outcome
from reconciler.errors import KernelError, VectlError
from reconciler.kernel import command, daemon
from reconciler.kernel.syscalls import file_errors
from reconciler.model import exchange
from reconciler.model.action import Action, Phase, Plan
from reconciler.model.facts import Unknown
from reconciler.model.host_risk import Reverted, RiskSettings, RiskState, RiskyChange, Standing, Undone, Verdict
from reconciler.model.seam import Host
from reconciler.plan import host_network, host_risk
from reconciler.plan.inputs import Inputs
from reconciler.state.approvals import VALID_S
from reconciler.state.host_risks import LOCK

Apply = Callable[[Plan, Inputs], Awaitable[list[Outcome]]]
Start = Callable[[str], Awaitable[None]]

BY_FAILURE, BY_END = "it could not be carried out whole", "the instance is taken down"
_START_S = 30.0
_LOOK_S = 0.3
_HASH_DIGITS = 12


def state_of(desk: Desk) -> RiskState:
    """Give how the changes of this instance stand, for a plan.

    Raises: StateError, KernelError.
    """
    standings = desk.risks.all()
    if not standings:
        return RiskState()
    consents = desk.approvals.in_force(desk.clock.now())
    pending: dict[str, str] = {}
    reverted: dict[str, tuple[Reverted, ...]] = {}
    for standing in standings:
        change, undone = standing.change, standing.undone
        if standing.is_pending:
            pending |= dict.fromkeys(change.hashes, waits_for(standing))
        elif undone is not None:
            renewed = frozenset(consent.hash for consent in consents if consent.at > undone.at)
            for target, hash_ in change.hashes.items():
                mark = Reverted(hash=hash_, message=_why(standing), renewed=renewed)
                reverted[target] = (mark, *reverted.get(target, ()))
    return RiskState(pending=pending, reverted=reverted)


def waits_for(standing: Standing) -> str:
    """Say in words what a change waits for."""
    change = standing.change
    if standing.ruling is not None:
        return f"its change is being taken back: {standing.ruling.by}"
    return f"its change is taken back unless it is confirmed in time: `vectl confirm {change.whole[:_HASH_DIGITS]}`"


def _why(standing: Standing) -> str:
    by = "" if standing.ruling is None else f": {standing.ruling.by}"
    problem = standing.undone.problem if standing.undone is not None else ""
    return f"its change was taken back{by}" + (f"; that did not succeed: {problem}" if problem else "")


@dataclass(slots=True, kw_only=True)
class Guard:
    """Has risky changes made one at a time. ``start``: starts the process that takes one back, and returns once it
    stands by. ``boot``: which boot of the machine this is."""

    desk: Desk
    host: Host
    settings: RiskSettings
    start: Start
    boot: str
    _begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry(self, plan: Plan, inputs: Inputs, apply: Apply) -> list[Outcome]:
        """Apply a plan: what is risky on its own, what comes in between in its turn."""
        risky = {action.ve for action in host_risk.guarded(plan.actions)}
        if not risky:
            return await apply(plan, inputs)
        early = [a for a in plan.actions if a.ve in risky and a.phase is not Phase.HOST_REMOVE]
        late = [a for a in plan.actions if a.ve in risky and a.phase is Phase.HOST_REMOVE]
        rest = [a for a in plan.actions if a.ve not in risky]
        outcomes = await self._carry_risky(early, plan, inputs, apply)
        outcomes += await apply(replace(plan, actions=tuple(rest)), inputs)
        return outcomes + await self._carry_risky(late, plan, inputs, apply)

    async def _carry_risky(self, actions: Sequence[Action], plan: Plan, inputs: Inputs, apply: Apply) -> list[Outcome]:
        if not actions:
            return []
        if any(standing.is_pending for standing in self.desk.risks.all()):
            return [Outcome(action=a, elapsed_s=0.0, skipped="another change is not confirmed yet") for a in actions]
        try:
            change = await self._begin(actions, plan, inputs)
        except VectlError as error:  # without somebody who takes it back nothing is risked
            return [Outcome(action=action, elapsed_s=0.0, error=error) for action in actions]
        outcomes = await apply(replace(plan, actions=tuple(actions)), inputs)
        self._settle(change, outcomes)
        return outcomes

    async def _begin(self, actions: Sequence[Action], plan: Plan, inputs: Inputs) -> RiskyChange:
        """Write down how it is taken back, and have somebody stand by.

        Raises: VectlError.
        """
        change = self._describe(actions, plan, inputs)
        self._forget_settled(change.hashes)
        risks = self.desk.risks
        risks.begin(change)
        try:
            await self.start(change.id)
        except VectlError:
            risks.drop(change.id)
            raise
        self._begun.set()
        return change

    def _describe(self, actions: Sequence[Action], plan: Plan, inputs: Inputs) -> RiskyChange:
        observed, clock = inputs.observed, self.desk.clock
        if isinstance(observed.networks, Unknown) or isinstance(observed.reach, Unknown):
            raise KernelError("make a risky change: the host's networks and addresses are not all known")
        before = host_risk.before_of(actions, observed.networks)
        targets = [host_network.network_target(name) for name in before]
        links = host_risk.touched_links(before, actions, host_risk.facts_of(inputs))
        return RiskyChange(
            id=secrets.token_hex(8),
            host=plan.host,
            revision=plan.revision,
            before=before,
            reach=host_risk.reach_of(observed.reach, links),
            hashes={target: plan.ve_hashes.get(target, plan.action_hash) for target in targets},
            whole=plan.action_hash,
            at=clock.now(),
            boot=self.boot,
            confirm_s=self.settings.confirm_s,
            hold_s=self.settings.hold_s,
            checks=self.settings.checks,
        )

    def _forget_settled(self, hashes: Mapping[str, str]) -> None:
        """Forget what was confirmed, and what was taken back if it is tried anew, or if no consent to it is left."""
        now = self.desk.clock.now()
        for standing in self.desk.risks.all():
            undone = standing.undone
            is_anew = not standing.change.hashes.items().isdisjoint(hashes.items())
            is_old = undone is None or undone.at + VALID_S < now
            if not standing.is_pending and (is_anew or is_old):
                self.desk.risks.drop(standing.change.id)

    def _settle(self, change: RiskyChange, outcomes: Iterable[Outcome]) -> None:
        risks = self.desk.risks
        failed = next((outcome for outcome in outcomes if not outcome.ok), None)
        if failed is not None:
            by = f"{BY_FAILURE}: {failed.error or failed.skipped}"
            risks.rule(change.id, Verdict.UNDO, by=by, at=self.desk.clock.now())
            return
        risks.note_applied(change.id, deadline=self.desk.clock.monotonic() + change.confirm_s)
        text = f"taken back in {self.settings.confirm_s:g} s unless `vectl confirm {change.whole[:_HASH_DIGITS]}`"
        for target in change.hashes:
            self.desk.tell(target, "AwaitsConfirmation", text, kind="Warning")

    def stand_down(self) -> None:
        """Let nobody take anything back any more, as all that vectl made is to go.

        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        for standing in self.desk.risks.all():
            if standing.is_pending:
                self.desk.risks.rule(standing.change.id, Verdict.CONFIRMED, by=BY_END, at=self.desk.clock.now())

    async def run(self, changed: Callable[[], None]) -> None:
        """See to it that somebody stands by for as long as a change is not settled, and tell how each one ends.

        ``changed``: called when one did, as then the host has to be looked at.
        """
        before: frozenset[str] = frozenset()
        while True:
            self._begun.clear()
            standings = {standing.change.id: standing for standing in self.desk.risks.all()}
            pending = frozenset(id_ for id_, standing in standings.items() if standing.is_pending)
            for id_ in sorted((before - pending) & standings.keys()):
                self._tell_end(standings[id_])
                changed()
            before = pending
            for id_ in sorted(pending):
                await self._ensure_watched(standings[id_].change)
            if pending:
                await asyncio.sleep(_LOOK_S)
            else:
                await self._begun.wait()

    async def _ensure_watched(self, change: RiskyChange) -> None:
        """Start the one who takes a change back anew, if he is gone; where he cannot be started, do it here."""
        if self._is_watched(change.id):
            return
        standing = self.desk.risks.read(change.id)
        if standing is None or not standing.is_pending:  # he has done his work
            return
        for target in change.hashes:
            self.desk.tell(target, "DeadManGone", "started anew; the time to confirm goes on", kind="Warning")
        try:
            await self.start(change.id)
        except VectlError as error:
            await self._take_back_here(change, error)

    def _is_watched(self, id_: str) -> bool:
        lock = daemon.try_lock(f"{self.desk.risks.directory(id_)}/{LOCK}")
        if lock is None:
            return True
        os.close(lock)
        return False

    async def _take_back_here(self, change: RiskyChange, error: VectlError) -> None:
        risks, now = self.desk.risks, self.desk.clock.now()
        if risks.rule(change.id, Verdict.UNDO, by=f"nobody can stand by: {error}", at=now).verdict is Verdict.UNDO:
            risks.conclude(change.id, Undone(problem=await take_back(self.host, change), at=self.desk.clock.now()))

    def _tell_end(self, standing: Standing) -> None:
        """Tell people how a change ended."""
        by = "" if standing.ruling is None else standing.ruling.by
        if standing.undone is None:
            reason, text, kind = "HostRiskConfirmed", f"confirmed: {by}", "Normal"
        else:
            reason = "HostRiskNotReverted" if standing.undone.problem else "HostRiskReverted"
            text, kind = _why(standing), "Warning"
        problem, revision = standing.undone.problem if standing.undone else "", standing.change.revision
        for target, hash_ in standing.change.hashes.items():
            self.desk.tell(target, reason, text, kind=kind)
            self.desk.recorder.note(reason, revision=revision, ve=target, ve_hash=hash_, detail=text, error=problem)


def starter(desk: Desk) -> Start:
    """Give what starts a dead man's switch for a change of this instance."""

    async def start(id_: str) -> None:
        package = os.path.dirname(os.path.dirname(os.path.abspath(reconciler.__file__)))
        given = json.dumps({"instance": exchange.to_json(desk.instance), "change": id_})
        argv = [sys.executable, "-P", "-s", "-m", "reconciler.agent.deadman", given]
        with file_errors("start", "the dead man's switch"):
            await command.run_async(argv, timeout_s=_START_S, env={"PYTHONPATH": package})

    return start
