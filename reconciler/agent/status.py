"""What people are told of a VE: its conditions, derived from a plan and the outcomes of carrying it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.agent.ownership_words import ownership_word
from reconciler.agent.patience import Hold
from reconciler.apply.applier import Outcome
from reconciler.errors import TerminalError
from reconciler.model.action import Drift, Operation, Plan, Refusal
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.plan import power
from reconciler.plan.words import value_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one VE after a pass. ``paused``: the reason, or "". ``unenforceable``: reason by path."""

    name: str
    revision: str
    plan: Plan
    outcomes: Sequence[Outcome] = ()
    protected: bool = False
    paused: str = ""
    unenforceable: Mapping[str, str] = field(default_factory=dict)
    holds: Sequence[Hold] = ()


def conditions(seen: Seen) -> tuple[Condition, ...]:
    """Give the conditions of a VE; `condition.broken_invariants` of them is empty."""
    name, plan = seen.name, seen.plan
    failed = [o for o in seen.outcomes if o.action.ve == name and o.error is not None]
    refused = [r for r in plan.refused if r.ve == name]
    unknown = [fact for fact in plan.unknown if fact.ve == name]
    found: list[Condition] = []
    stalling = [hold for hold in seen.holds if hold.stalled]
    if refused or stalling or any(isinstance(o.error, TerminalError) or _is_of_memory(o) for o in failed):
        found += _stalled(seen, refused, stalling, failed)
    elif failed:
        found += _pair(seen, ConditionType.RECONCILING, *_failure(failed[0]))
    elif any(o.ok and o.action.ve == name and o.action.op is Operation.RESTORE for o in seen.outcomes):
        found += _pair(seen, ConditionType.RECONCILING, "Restored", "back from the trash; not booted yet")
    elif seen.holds:
        found += _pair(seen, ConditionType.RECONCILING, seen.holds[0].reason, seen.holds[0].message)
    elif unknown:
        found += _pair(seen, ConditionType.RECONCILING, "ObservationUnknown", str(unknown[0]))
    elif name in plan.waiting and not seen.paused:
        found += _pair(seen, ConditionType.RECONCILING, plan.waits_as.get(name, "Waiting"), plan.waiting[name])
    elif seen.paused and name in plan.waiting:
        found.append(_make(seen, ConditionType.READY, Status.UNKNOWN, "Paused", seen.paused))
    else:
        found.append(_make(seen, ConditionType.READY, Status.TRUE, "Converged", "observed equals desired"))
    found += _standing(seen, [drift for drift in plan.warned if drift.ve == name])
    return tuple(found)


def _stalled(
    seen: Seen, refused: Sequence[Refusal], holds: Sequence[Hold], failed: Sequence[Outcome]
) -> Iterable[Condition]:
    if refused:
        reason, message = refused[0].rule, refused[0].message
        if refused[0].remedy:
            message = f"{message}; {refused[0].remedy}"
    elif holds:
        reason, message = holds[0].reason, holds[0].message
    else:
        reason, message = _failure(failed[0])
    return _pair(seen, ConditionType.STALLED, reason, message)


def _is_of_memory(outcome: Outcome) -> bool:
    """Say whether a VE could not be suspended or resumed, which is tried again and often takes a person."""
    return power.suspends(outcome.action) or power.resumes(outcome.action)


def _failure(outcome: Outcome) -> tuple[str, str]:
    error, action = outcome.error, outcome.action
    if power.resumes(action):
        verb, does = ("stop", "gives up") if action.after == "stopped" else ("start", "boots without")
        return (
            "ResumeFailed",
            f"{error}; as long as it is suspended, `vectl {verb} {action.ve} --cold` {does} its memory",
        )
    assert error is not None
    word = "SuspendFailed" if power.suspends(action) else ownership_word(error) or type(error).__name__
    return word, str(error)


def _pair(seen: Seen, kind: ConditionType, reason: str, message: str) -> tuple[Condition, Condition]:
    return (
        _make(seen, ConditionType.READY, Status.FALSE, reason, message),
        _make(seen, kind, Status.TRUE, reason, message),
    )


def _standing(seen: Seen, drifted: Sequence[Drift]) -> Iterable[Condition]:
    if drifted:
        text = ", ".join(
            f"{d.path} is {value_text(d.path, d.observed)}, not {value_text(d.path, d.desired)}" for d in drifted
        )
        yield _make(seen, ConditionType.DRIFTED, Status.TRUE, "LeftAlone", f"{text}; the drift policy says so")
    if seen.protected:
        yield _make(seen, ConditionType.PROTECTED, Status.TRUE, "Protected", "refuses deletion")
    if seen.paused:
        yield _make(seen, ConditionType.PAUSED, Status.TRUE, "Paused", seen.paused)
    if seen.unenforceable:
        text = "; ".join(f"{path}: {why}" for path, why in sorted(seen.unenforceable.items()))
        yield _make(seen, ConditionType.NOT_ENFORCEABLE, Status.TRUE, "NotOnThisHost", text)


def _make(seen: Seen, kind: ConditionType, status: Status, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, revision=seen.revision)
