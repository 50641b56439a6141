"""Conditions and events: what a person is told about a VE or a source, in the words of Kubernetes' API conventions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.facts import Json


class ConditionType(StrEnum):
    """`READY` is always present; `RECONCILING`, `STALLED`, `DRIFTED`, `PAUSED` and `LIMITED` only while true."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DRIFTED = "Drifted"
    PROTECTED = "Protected"
    PAUSED = "Paused"
    NOT_ENFORCEABLE = "NotEnforceable"
    LIMITED = "Limited"
    MIGRATION_READY = "MigrationReady"
    FETCHED = "Fetched"
    VERIFIED = "Verified"
    VALID = "Valid"


OF_SOURCE = frozenset({ConditionType.FETCHED, ConditionType.VERIFIED, ConditionType.VALID})
"""What is said of a source, and never of a VE."""


class Status(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Shape: ``reason`` one PascalCase word; ``message`` a sentence. Units: ``since`` seconds since the epoch."""

    type: ConditionType
    status: Status
    reason: str
    message: str = ""
    revision: str = ""
    since: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl get -o json`."""
        return {
            "type": self.type.value,
            "status": self.status.value,
            "reason": self.reason,
            "message": self.message,
            "revision": self.revision,
            "since": self.since,
        }


_ONLY_WHILE_TRUE = frozenset(
    {
        ConditionType.RECONCILING,
        ConditionType.STALLED,
        ConditionType.DRIFTED,
        ConditionType.PAUSED,
        ConditionType.LIMITED,
    }
)


def broken_invariants(conditions: Iterable[Condition]) -> tuple[str, ...]:
    """Name what is wrong with the conditions of one VE; empty if they hold together."""
    by_type: Mapping[ConditionType, Condition] = {condition.type: condition for condition in conditions}
    broken = []
    ready = by_type.get(ConditionType.READY)
    if ready is None:
        broken.append("Ready is missing")
    broken.extend(
        f"{kind} is present but not True"
        for kind in sorted(_ONLY_WHILE_TRUE & by_type.keys())
        if by_type[kind].status is not Status.TRUE
    )
    if ready is not None and ready.status is Status.TRUE:
        broken.extend(
            f"Ready and {kind}" for kind in (ConditionType.RECONCILING, ConditionType.STALLED) if kind in by_type
        )
    if ConditionType.RECONCILING in by_type and ConditionType.STALLED in by_type:
        broken.append("Reconciling and Stalled")
    return tuple(broken)


def source_problem(conditions: Iterable[Condition]) -> Condition | None:
    """Give what keeps the newest manifests of a source from being in force; None, if its conditions name nothing."""
    by_type = {condition.type: condition for condition in conditions}
    kinds = (ConditionType.FETCHED, ConditionType.VERIFIED, ConditionType.VALID)
    told = (by_type[kind] for kind in kinds if kind in by_type)
    return next((condition for condition in told if condition.status is Status.FALSE), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for `vectl events`. Units: ``at`` seconds since the epoch."""

    at: float
    ve: str
    reason: str
    message: str
    kind: str = "Normal"

    def to_json(self) -> dict[str, Json]:
        """Give the form of one line of the events file."""
        return {"at": self.at, "ve": self.ve, "kind": self.kind, "reason": self.reason, "message": self.message}
