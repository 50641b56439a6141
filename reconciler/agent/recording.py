"""Writing the audit log: what was carried out, on whose word; and what persons asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from reconciler.apply.applier import Outcome
from reconciler.errors import VectlError
from reconciler.model.action import Origin, Plan
from reconciler.model.audit import AuditEntry, shortened
from reconciler.model.commit import Commit, Step
from reconciler.plan.render import is_bookkeeping
from reconciler.state.audit import Audit, Behalf, Behalves

if TYPE_CHECKING:
    from reconciler.model.facts import Json
    from reconciler.model.seam import Clock

OURSELVES = "vectl"
"""Who corrects drift and keeps schedules: nobody asked for that just now."""

_REVISIONS_MAX = 8
"""How many revisions are known by those behind them: a turn may end after the next one was taken."""

_ACTIONS_MAX = 200
_SYNC_AFTER_S = 0.05


def behalf_of(commit: Commit, way: Sequence[Step]) -> Behalf:
    """Give who is behind a commit; a forge that merged names the person as the author."""
    by = commit.author if commit.author == commit.committer else f"{commit.author}, committed by {commit.committer}"
    return Behalf(who=by, signer=way[-1].signer if way else "")


class Recorder:
    """Adds to the audit log, and never stops what it tells of: entries that cannot be written are counted."""

    def __init__(self, state_dir: str, clock: Clock) -> None:
        self.audit = Audit(state_dir)
        self._clock = clock
        self._behalves = Behalves(state_dir)
        self._plans: dict[str, str] = {}
        self._failing: dict[str, tuple[object, ...]] = {}
        self._lost = 0

    def take(self, revision: str, behalf: Behalf) -> None:
        """Learn who is behind a revision."""
        try:
            self._behalves.put(revision, behalf)
        except VectlError as error:
            structlog.get_logger().warning("audit.author_not_kept", error=str(error))

    def planned(self, plan: Plan) -> None:
        """Learn the hash of what a revision changes: that of the first plan of the whole host that changes anything."""
        if plan.revision not in self._plans and any(action.origin is Origin.GIT for action in plan.actions):
            self._plans = {**dict(list(self._plans.items())[-_REVISIONS_MAX:]), plan.revision: plan.action_hash}

    def outcomes(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        """Write down what was carried out, an entry for each object; a failure like the last one is not repeated."""
        shown = [one for one in outcomes if not one.skipped and not (is_bookkeeping(one.action) and one.ok)]
        for ve in dict.fromkeys(one.action.ve for one in shown):
            group = [one for one in shown if one.action.ve == ve]
            if self._is_news(ve, group):
                self._append(self._entry(plan, ve, group))

    @contextmanager
    def request(self, what: str, *, by: str, ve: str = "", detail: str = "") -> Iterator[None]:
        """Write down a person's request, which the block carries out, with what came of it."""
        entry = AuditEntry(at=self._clock.now(), who=by, ve=ve, request=what, detail=detail, outcome="done")
        try:
            yield
        except VectlError as error:
            self._append(replace(entry, outcome="failed", error=f"{type(error).__name__}: {error}"))
            raise
        self._append(entry)

    def note(self, what: str, *, revision: str, ve: str, ve_hash: str, detail: str, error: str) -> None:
        """Write down what we did by ourselves beside the actions of a plan. ``error``: "" if it went well."""
        self._append(
            AuditEntry(
                at=self._clock.now(),
                who=OURSELVES,
                ve=ve,
                revision=revision,
                plan=self._plans.get(revision, ""),
                ve_hash=ve_hash,
                request=what,
                detail=detail,
                outcome="failed" if error else "done",
                error=error,
            )
        )

    async def run(self) -> None:
        """Flush to disk what was added, for as long as the agent runs."""
        written = asyncio.Event()
        self.audit.on_write = written.set
        while True:
            await written.wait()
            await asyncio.sleep(_SYNC_AFTER_S)  # a host that makes many VEs waits for the disk once
            written.clear()
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Flush to disk what was added."""
        try:
            self.audit.sync()
        except VectlError as error:
            structlog.get_logger().warning("audit.not_flushed", error=str(error))

    def _is_news(self, ve: str, group: Sequence[Outcome]) -> bool:
        failure = tuple((one.action.id, str(one.error)) for one in group if not one.ok)
        if not failure:
            self._failing.pop(ve, None)
            return True
        before, self._failing[ve] = self._failing.get(ve), failure
        return failure != before or any(one.ok for one in group)

    def _entry(self, plan: Plan, ve: str, group: Sequence[Outcome]) -> AuditEntry:
        failed = next((one.error for one in group if one.error is not None), None)
        wanted = any(one.action.origin is Origin.GIT for one in group)
        behalf = self._behalf_of(plan.revision) if wanted else Behalf(who=OURSELVES)
        left_out = len(group) - _ACTIONS_MAX
        return AuditEntry(
            at=self._clock.now(),
            who=behalf.who,
            signer=behalf.signer,
            ve=ve,
            revision=plan.revision,
            plan=self._plans.get(plan.revision, plan.action_hash) if wanted else "",
            ve_hash=plan.ve_hashes.get(ve, "") if wanted else "",
            detail=f"{left_out} more actions" if left_out > 0 else "",
            actions=tuple(map(_action, group[:_ACTIONS_MAX])),
            outcome="failed" if failed else "done",
            error=f"{type(failed).__name__}: {failed}" if failed else "",
        )

    def _behalf_of(self, revision: str) -> Behalf:
        try:
            return self._behalves.of(revision)
        except VectlError as error:
            structlog.get_logger().warning("audit.author_not_read", error=str(error))
            return Behalf()

    def _append(self, entry: AuditEntry) -> None:
        try:
            self.audit.append(replace(entry, lost=self._lost))
        except VectlError as error:
            self._lost += 1
            structlog.get_logger().warning("audit.not_written", error=str(error), lost=self._lost)
        else:
            self._lost = 0


def _action(outcome: Outcome) -> dict[str, Json]:
    action = outcome.action
    return {
        "op": action.op.value,
        "path": action.path,
        "impact": action.impact.word,
        "origin": action.origin.value,
        "reason": action.reason.value,
        "before": shortened(action.before),
        "after": shortened(action.after),
        "outcome": "done" if outcome.ok else "failed",
    }


@contextmanager
def recorded(state_dir: str, clock: Clock, what: str, *, by: str, ve: str = "", detail: str = "") -> Iterator[None]:
    """Write down a request that a command carries out by itself, without a desk."""
    recorder = Recorder(state_dir, clock)
    try:
        with recorder.request(what, by=by, ve=ve, detail=detail):
            yield
    finally:
        recorder.flush()
