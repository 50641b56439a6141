"""How the host stands, as somebody who is not looking should be told: what is wrong, and how far a revision is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.agent.loop import HOST, Agent
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.plan.inputs import is_here
from reconciler.state.conditions import SOURCE

PATIENCE_S = 300.0
"""How long what may pass by itself stands before it is a failure. Units: seconds."""

HOST_SUBJECT = "host"
SOURCE_SUBJECT = "source"

_Conditions = Mapping[ConditionType, Condition]


class Phase(StrEnum):
    """How far a revision is on this host."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong. ``urgent``: nothing but a person, or a new revision, will mend it.

    Units: ``since`` seconds since the epoch.
    """

    subject: str
    reason: str
    message: str
    since: float
    urgent: bool = False

    def is_failure(self, now: float) -> bool:
        """Say whether it is to be told by now."""
        return self.urgent or now - self.since >= PATIENCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a revision is."""

    revision: str
    phase: Phase
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """``well``: since when what is well is so. ``known``: all that there is. What is in none of them is not known yet.

    ``progress``: of the revision in force, and of one that was refused.
    """

    host: str
    revision: str
    problems: Mapping[str, Problem] = field(default_factory=dict)
    well: Mapping[str, float] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    progress: tuple[Progress, ...] = ()


def standing(agent: Agent, now: float) -> Standing:
    """Look at what the agent knows. Units: ``now`` seconds since the epoch."""
    desk, fleet = agent.reconciler.desk, agent.reconciler.fleet
    conditions = {name: {one.type: one for one in ones} for name, ones in desk.conditions.known.items()}
    source = conditions.pop(SOURCE, {})
    found = [*_of_ves(conditions), *_of_source(source), *_of_turns(agent, now)]
    problems: dict[str, Problem] = {}
    for problem in sorted(found, key=lambda one: not one.urgent):
        problems.setdefault(problem.subject, problem)
    here = frozenset(name for name, spec in fleet.ves.items() if is_here(spec, desk.instance.host))
    well = {name: ones[ConditionType.READY].since for name, ones in conditions.items() if _is_well(ones)}
    if source and all(one.status is Status.TRUE for one in source.values()):
        well[SOURCE_SUBJECT] = max(one.since for one in source.values())
    if agent.troubles.passed:
        well[HOST_SUBJECT] = 0.0  # the pass that says so took its time
    return Standing(
        host=desk.instance.host,
        revision=fleet.revision,
        problems=problems,
        well={name: since for name, since in well.items() if name not in problems},
        known=frozenset({*here, *conditions, HOST_SUBJECT, SOURCE_SUBJECT}),
        progress=tuple(_progress(agent, conditions, source, problems, now)),
    )


def _of_ves(conditions: Mapping[str, _Conditions]) -> Iterator[Problem]:
    for name, ones in conditions.items():
        ready = ones.get(ConditionType.READY)
        if stalled := ones.get(ConditionType.STALLED):
            yield _problem(name, stalled, urgent=True)
        elif ready is not None and ready.status is Status.FALSE:
            yield _problem(name, ready)
        elif drifted := ones.get(ConditionType.DRIFTED):
            yield _problem(name, drifted)


def _of_source(source: _Conditions) -> Iterator[Problem]:
    for kind in (ConditionType.VERIFIED, ConditionType.VALID, ConditionType.FETCHED):
        condition = source.get(kind)
        if condition is not None and condition.status is Status.FALSE:
            yield _problem(SOURCE_SUBJECT, condition, urgent=kind is not ConditionType.FETCHED)


def _of_turns(agent: Agent, now: float) -> Iterator[Problem]:
    troubles, ves = agent.troubles, agent.reconciler.fleet.ves
    for key, one in troubles.failing.items():
        subject = HOST_SUBJECT if key == HOST else key
        yield Problem(subject=subject, reason=one.reason, message=one.message, since=one.since)
    for refusal in troubles.refused:
        if refusal.ve not in ves and "/" in refusal.ve:  # a VE's own condition tells of it
            message = f"{refusal.message}; {refusal.remedy}".removesuffix("; ")
            subject = refusal.ve.replace("/", ".", 1)  # as the conditions of networks are named
            yield Problem(subject=subject, reason=refusal.rule, message=message, since=now, urgent=True)


def _problem(subject: str, condition: Condition, *, urgent: bool = False) -> Problem:
    return Problem(
        subject=subject, reason=condition.reason, message=condition.message, since=condition.since, urgent=urgent
    )


def _is_well(ones: _Conditions) -> bool:
    ready = ones.get(ConditionType.READY)
    return ready is not None and (ready.status is Status.TRUE or ready.reason == "Paused")


def _progress(
    agent: Agent,
    conditions: Mapping[str, _Conditions],
    source: _Conditions,
    problems: Mapping[str, Problem],
    now: float,
) -> Iterator[Progress]:
    reconciler = agent.reconciler
    host, revision = reconciler.desk.instance.host, reconciler.fleet.revision
    here = [name for name, spec in reconciler.fleet.ves.items() if is_here(spec, host)]
    if revision:
        failed = [one for name, one in problems.items() if name != SOURCE_SUBJECT and one.is_failure(now)]
        done = [name for name in here if _is_done(conditions.get(name, {}), revision)]
        is_whole = len(done) == len(here) and agent.troubles.passed == revision and HOST not in agent.troubles.failing
        yield _in_force(revision, failed, f"{len(done)} of {len(here)} VEs as they should be", is_whole=is_whole)
    newest = source[ConditionType.FETCHED].revision if ConditionType.FETCHED in source else ""
    problem = problems.get(SOURCE_SUBJECT)
    if newest not in ("", revision) and problem is not None and problem.urgent:
        yield Progress(revision=newest, phase=Phase.FAILURE, summary=f"not taken: {problem.reason}: {problem.message}")


def _is_done(ones: _Conditions, revision: str) -> bool:
    return _is_well(ones) and ones[ConditionType.READY].revision == revision


def _in_force(revision: str, failed: Iterable[Problem], counted: str, *, is_whole: bool) -> Progress:
    first = next(iter(failed), None)
    if first is not None:
        summary = f"{first.subject}: {first.reason}: {first.message}; {counted}"
        return Progress(revision=revision, phase=Phase.FAILURE, summary=summary)
    phase = Phase.SUCCESS if is_whole else Phase.PENDING
    return Progress(revision=revision, phase=phase, summary=counted if is_whole else "being carried out")
