"""The shape that all actions of VEs share, and what planning one of them depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.model.action import Action, Basis, Downtime, Impact, Operation, Origin, Reason, Reversible
from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import NetworkName, TemplateName, Uid, VeName
from reconciler.model.observation import Capabilities, VeObservation
from reconciler.model.policy import DEFAULT_POLICY, Policy
from reconciler.model.volume import Record, TemplateSpec

TRASH_KEEP_S = 7 * 86400.0
"""How long removed data is kept. Units: seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What planning a VE needs besides the VE. ``source``: name of the source that speaks; ``now``: epoch seconds.

    ``running``: names of the VEs that run now, for dependencies. ``cpu_weights``: those that the guarantees of all VEs
    of this host come to. ``measured``: seconds by (op, path), from history. ``prunes``: whether what no manifest names
    any more goes. ``keep_s``: seconds for which what was put aside is kept. ``neighbours``, ``specs``: the
    VEs that were seen and those that manifests name, for clones. ``out_of_reach``: the networks that span hosts, but
    not to this one.
    """

    instance: str
    source: str
    now: float
    capabilities: Capabilities
    templates: Mapping[TemplateName, TemplateSpec]
    running: frozenset[VeName] = frozenset()
    cpu_weights: Mapping[VeName, int] = field(default_factory=dict)
    measured: Mapping[tuple[str, str], float] = field(default_factory=dict)
    policy: Policy = DEFAULT_POLICY
    prunes: bool = True
    keep_s: float = TRASH_KEEP_S
    out_of_reach: frozenset[NetworkName] = frozenset()
    neighbours: Mapping[Uid, VeObservation] = field(default_factory=dict, repr=False, compare=False)
    specs: Mapping[VeName, VeSpec] = field(default_factory=dict, repr=False, compare=False)

    def cpu_weight(self, spec: VeSpec) -> int:
        """Give the weight that a VE is to have beside the others on its host."""
        return self.cpu_weights.get(spec.name, spec.compute.cpu_weight)


def make(
    spec: VeSpec,
    record: Record,
    op: Operation,
    path: str,
    before: Json,
    after: Json,
    effects: Sequence[Effect] = (),
) -> Action:
    """Make an action that the manifests want and that costs nothing; the caller replaces what is different."""
    serves = f"{spec.name}:{path or op}"
    return Action(
        ve=spec.name,
        uid=record.uid,
        op=op,
        path=path,
        before=before,
        after=after,
        reason=Reason.SPEC_CHANGED,
        impact=Impact.NONE,
        origin=Origin.GIT,
        reversible=Reversible.YES,
        effects=tuple(replace(effect, serves=serves) for effect in effects),
    )


def with_downtime(action: Action, context: Context) -> Action:
    """Say how long the VE will be down, if this host's history knows; nobody invents it."""
    seconds = context.measured.get((action.op.value, timed_as(action)))
    if seconds is None:
        return replace(action, downtime=Downtime(None))
    return replace(action, downtime=Downtime(round(seconds, 3), Basis.MEASURED))


def timed_as(action: Action) -> str:
    """Give the path under which this host's history keeps how long an action took, e.g. ``power=suspended``."""
    return f"power={action.after}" if action.op is Operation.UPDATE and action.path == "power" else action.path


def reason_of(origin: Origin) -> Reason:
    """Give the reason of a difference."""
    match origin:
        case Origin.GIT:
            return Reason.SPEC_CHANGED
        case Origin.DRIFT:
            return Reason.DRIFTED
        case Origin.POLICY:
            return Reason.GUARANTEES_CHANGED
