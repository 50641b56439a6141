"""What the turns of the agent ended in, where no condition of a VE tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.model.action import Plan, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why turns of a key fail. Units: ``since`` seconds since the epoch."""

    reason: str
    message: str
    since: float


@dataclass(slots=True)
class Troubles:
    """``failing``: by key of the turns. ``passed``: the revision of the last pass over the host that went well.

    ``refused``: what was refused in it.
    """

    failing: dict[str, Trouble] = field(default_factory=dict)
    passed: str = ""
    refused: Sequence[Refusal] = ()

    def failed(self, key: str, reason: str, message: str, *, now: float) -> None:
        """Note a turn that failed."""
        before = self.failing.get(key)
        self.failing[key] = Trouble(reason=reason, message=message, since=before.since if before else now)

    def succeeded(self, key: str) -> None:
        """Note a turn that went well."""
        self.failing.pop(key, None)

    def passed_host(self, plan: Plan) -> None:
        """Note a pass over the host that went well."""
        self.passed, self.refused = plan.revision, plan.refused
