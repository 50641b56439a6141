"""Policy: what the root of the host does not allow is not carried out, whatever a manifest says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.model.action import Refusal
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import VeName
from reconciler.model.policy import Policy, Violation, remedy, violations, where
from reconciler.plan.spec import spec_values

RULE = "Policy"


def refuse(spec: VeSpec, policy: Policy, applied: Mapping[str, Json]) -> tuple[Refusal, ...]:
    """Refuse a VE that asks for more than the policy allows. ``applied``: what was carried out on it last.

    A policy that cannot be read takes nothing from VEs that were there before.
    """
    found = [one for one in violations(policy, spec) if not (policy.broken and _is_as_before(one, spec, applied))]
    if not found:
        return ()
    message = "; ".join(one.message for one in found)
    return (Refusal(ve=spec.name, uid=spec.uid, rule=RULE, message=message, remedy=found[0].remedy),)


def _is_as_before(violation: Violation, spec: VeSpec, applied: Mapping[str, Json]) -> bool:
    before, now = (_at_or_below(violation.path, values) for values in (applied, spec_values(spec)))
    return before == now != {}


def _at_or_below(path: str, values: Mapping[str, Json]) -> dict[str, Json]:
    return {other: value for other, value in values.items() if other == path or other.startswith(f"{path}.")}


def refuse_births(policy: Policy, coming: Iterable[VeSpec], *, present: int) -> dict[VeName, Refusal]:
    """Refuse VEs beyond the number that the policy allows; first come those that boot first, then by name."""
    if policy.ves_max is None:
        return {}
    able = (spec for spec in coming if not spec.unsupported and not refuse(spec, policy, {}))
    ordered = sorted(able, key=lambda spec: (spec.power.order, spec.name))
    message = f"{policy.ves_max} VEs are allowed on this host and {present} are here ({where(policy, 'maxVEs')})"
    return {
        spec.name: Refusal(ve=spec.name, uid=spec.uid, rule=RULE, message=message, remedy=remedy(policy, "maxVEs"))
        for spec in ordered[max(0, policy.ves_max - present) :]
    }
