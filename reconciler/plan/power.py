"""Power: whether to boot, to stop, to suspend, to resume, to clean up after a crash, or to leave a VE as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from reconciler.model.action import Action, Impact, Origin, Reason
from reconciler.model.effects import Effect
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities, Facet
from reconciler.model.power import (
    SUSPENSION,
    CreateRuntime,
    DeleteRuntime,
    End,
    EndCause,
    Launch,
    Power,
    PowerObservation,
    PowerSpec,
    PowerState,
    RestartPolicy,
    StopRuntime,
    SuspendRuntime,
)
from reconciler.plan.actions import reason_of
from reconciler.plan.field import Field, Value

NOT_ON_THIS_HOST = "NotOnThisHost"
SUSPEND_REMEDY = "`vectl doctor` tells how to get it; or set power: running or stopped"
RESUME_REMEDY = "`vectl doctor` tells how to get it; `vectl start --cold` boots it without its memory, for good"

FIELDS = (
    Field(
        path="power",
        facet=Facet.POWER,
        impact=Impact.RESTART,
        default="running",
        effect="starts or stops it; to suspend it is but a pause",
    ),
    Field(path="boot.order", facet=None, impact=Impact.NONE, default=0),
    Field(path="boot.restart", facet=None, impact=Impact.NONE, default="on-failure"),
    Field(path="boot.stopTimeout", facet=None, impact=Impact.NONE, default=30.0),
    Field(path="boot.dependsOn", facet=None, impact=Impact.NONE, default=[]),
    Field(path="rlimits", facet=Facet.POWER, impact=Impact.RESTART, default={}, effect="fixed at start"),
    Field(path="features.nesting", facet=Facet.POWER, impact=Impact.RESTART, default=False, effect="fixed at start"),
)


class Step(Enum):
    """What to do about a VE's power."""

    KEEP = auto()
    BOOT = auto()
    STOP = auto()
    SUSPEND = auto()
    FINISH_SUSPENSION = auto()
    RESUME = auto()
    RESUME_AND_STOP = auto()
    CLEAN = auto()
    HOLD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """``rule``, ``message`` and ``remedy`` explain a `Step.HOLD`."""

    step: Step
    reason: Reason = Reason.SPEC_CHANGED
    origin: Origin = Origin.GIT
    rule: str = ""
    message: str = ""
    remedy: str = ""


def desired_values(spec: VeSpec) -> dict[str, Value]:
    """Give what must be so in a running VE's launch, by path."""
    return {"rlimits": dict(spec.rlimits), "features.nesting": spec.nesting}


def observed_values(launch: Launch) -> dict[str, Value]:
    """Give what a running VE was launched with, by path."""
    return {"rlimits": dict(launch.rlimits), "features.nesting": launch.nesting}


def record_values(spec: PowerSpec) -> dict[str, Value]:
    """Give what is kept in the record only."""
    return {
        "power": spec.state,
        "boot.order": spec.order,
        "boot.restart": spec.restart,
        "boot.stopTimeout": spec.stop_timeout_s,
        "boot.dependsOn": sorted(spec.depends_on),
    }


def decide(
    spec: PowerSpec, observed: PowerObservation, *, spec_changed: bool, origin: Origin, leftovers: bool
) -> Decision:
    """Decide the step. ``leftovers``: a cgroup or a runtime record is there though nothing runs.

    ``spec_changed``: in any field, which ends a halt from inside. ``origin``: who wants another power than before.
    """
    if observed.state is PowerState.RUNNING and observed.memory is not None:
        return Decision(step=Step.FINISH_SUSPENSION, reason=Reason.UNFINISHED, origin=Origin.POLICY)
    wanted = Decision(step=Step.KEEP, reason=reason_of(origin), origin=origin)
    match spec.state:
        case Power.RUNNING:
            return _decide_running(spec, observed, spec_changed, wanted)
        case Power.SUSPENDED if observed.state is PowerState.RUNNING:
            return replace(wanted, step=Step.SUSPEND)
        case Power.STOPPED if observed.state is PowerState.RUNNING:
            return replace(wanted, step=Step.STOP)
        case Power.STOPPED if observed.memory is not None:
            return replace(wanted, step=Step.RESUME_AND_STOP)
    if observed.state is PowerState.CREATED or leftovers or observed.holdings:
        return Decision(step=Step.CLEAN, reason=Reason.UNFINISHED, origin=Origin.POLICY)
    return Decision(step=Step.KEEP)


def _decide_running(spec: PowerSpec, observed: PowerObservation, spec_changed: bool, wanted: Decision) -> Decision:
    if observed.state is PowerState.RUNNING:
        return Decision(step=Step.KEEP)
    step = Step.BOOT if observed.memory is None else Step.RESUME
    if observed.state is PowerState.CREATED:
        return replace(wanted, step=step, reason=Reason.UNFINISHED)
    if observed.memory is not None or observed.last_end is None or observed.stop_requested or spec_changed:
        return replace(wanted, step=step)
    return _after_end(spec.restart, observed.last_end)


def _after_end(policy: RestartPolicy, end: End) -> Decision:
    boot = Decision(step=Step.BOOT, reason=Reason.INIT_ENDED, origin=Origin.DRIFT)
    clean = end.cause is EndCause.HALT or (end.cause is EndCause.EXITED and end.value == 0)
    if policy is RestartPolicy.ALWAYS or end.cause is EndCause.REBOOT:
        return boot
    if clean:
        return Decision(step=Step.HOLD, rule="HaltedInside", message="halted from inside; `vectl start` boots it again")
    if policy is RestartPolicy.NEVER:
        return Decision(
            step=Step.HOLD, rule="InitEnded", message=f"init ended ({describe(end)}) and boot.restart is never"
        )
    return boot


def describe(end: End) -> str:
    """Say in words how an init ended."""
    match end.cause:
        case EndCause.KILLED:
            return f"killed by signal {end.value}"
        case EndCause.EXITED:
            return f"exit status {end.value}"
        case EndCause.UNKNOWN:
            return "cause unknown: nobody was there to see it"
        case EndCause.REBOOT | EndCause.HALT:
            return f"{end.cause.value} from inside"


def launch(spec: VeSpec, *, id_base: int, init: tuple[str, ...]) -> Launch:
    """Give what the runtime is made with."""
    return Launch(id_base=id_base, init=init, nesting=spec.nesting, rlimits=dict(spec.rlimits))


def impossible(spec: PowerSpec, capabilities: Capabilities) -> str:
    """Say why a VE cannot be what its spec says on this host; empty, if it can."""
    reason = capabilities.why_not.get(SUSPENSION, "")
    return f"power: suspended: {reason}" if reason and spec.state is Power.SUSPENDED else ""


def permitted(decision: Decision, capabilities: Capabilities) -> Decision:
    """Hold what this host cannot do: to suspend a VE and to resume one takes the same."""
    reason = capabilities.why_not.get(SUSPENSION, "")
    if not reason or decision.step not in (Step.SUSPEND, Step.RESUME, Step.RESUME_AND_STOP):
        return decision
    verb, remedy = "resumed", RESUME_REMEDY
    if decision.step is Step.SUSPEND:
        verb, remedy = "suspended", SUSPEND_REMEDY
    message = f"it cannot be {verb} on this host: {reason}"
    return Decision(step=Step.HOLD, rule=NOT_ON_THIS_HOST, message=message, remedy=remedy)


def suspends(action: Action) -> bool:
    """Say whether an action puts the memory of a VE on disk."""
    return any(isinstance(effect, SuspendRuntime) for effect in action.effects)


def resumes(action: Action) -> bool:
    """Say whether a VE goes on from its memory by an action."""
    return any(isinstance(effect, CreateRuntime) and effect.resume for effect in action.effects)


def clear_effects(uid: Uid, observed: PowerObservation) -> tuple[Effect, ...]:
    """Clean what a crash or an ended init left, before a new create."""
    if observed.state is PowerState.CREATED or observed.holdings:
        return (DeleteRuntime(uid=uid),)
    return ()


def stop_effects(uid: Uid, spec_timeout_s: float, observed: PowerObservation) -> tuple[Effect, ...]:
    """Take a VE down from any state; the memory of one that is suspended stays."""
    stop: tuple[Effect, ...] = ()
    if observed.state is PowerState.RUNNING:
        half_suspended = observed.memory is not None
        stop = (SuspendRuntime(uid=uid) if half_suspended else StopRuntime(uid=uid, timeout_s=spec_timeout_s),)
    return (*stop, DeleteRuntime(uid=uid))


def stop_timeout_s(applied: Mapping[str, object]) -> float:
    """Give the stop time-out of a VE whose manifest is gone. Units: seconds."""
    value = applied.get("boot.stopTimeout")
    return float(value) if isinstance(value, int | float) else PowerSpec().stop_timeout_s
