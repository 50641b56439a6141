"""When to stop fighting: a field that is changed by hand again and again, an init that ends again and again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from reconciler.agent.backoff import STABLE_S, Backoff
from reconciler.apply.applier import Outcome
from reconciler.model.action import Action, Origin, Reason

RESTART_BURST = 5
"""Ends of init within `STABLE_S` that are answered at once; as systemd's DefaultStartLimitBurst."""

HEALS = 10
"""Corrections of one field within `STABLE_S` after which somebody else clearly wants another value."""

COOL_DOWN_S = 300.0
"""How long a fought-over field is left alone. Units: seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An action that has to wait. ``stalled``: a person should look. Units: ``wait_s`` seconds."""

    action: Action
    reason: str
    message: str
    wait_s: float
    stalled: bool


@dataclass(slots=True)
class Patience:
    """Remembers the corrections of each field, and holds back the next one where they come too often."""

    backoff: Backoff
    _times: dict[tuple[str, str], deque[float]] = field(default_factory=dict)
    _until: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, outcome: Outcome, now: float) -> None:
        """Note a correction that was carried out. Units: seconds of the monotonic clock."""
        action = outcome.action
        if not outcome.ok or not action.effects or action.origin is not Origin.DRIFT:
            return
        key, ended = (action.ve, action.path), action.reason is Reason.INIT_ENDED
        times = self._times.setdefault(key, deque(maxlen=RESTART_BURST if ended else HEALS))
        times.append(now)
        if len(times) == times.maxlen and times[-1] - times[0] <= STABLE_S:
            self._until[key] = now + (self.backoff.failed(action.ve, "InitEnded", now) if ended else COOL_DOWN_S)

    def hold(self, action: Action, now: float) -> Hold | None:
        """Say whether an action has to wait, and why."""
        until = self._until.get((action.ve, action.path), now)
        if action.origin is not Origin.DRIFT or until <= now:
            return None
        if action.reason is Reason.INIT_ENDED:
            message = f"init ended {RESTART_BURST} times within {STABLE_S:.0f} s; started again after a delay"
            return Hold(action=action, reason="CrashLoop", message=message, wait_s=until - now, stalled=False)
        message = (
            f"{action.path} was put right {HEALS} times within {STABLE_S:.0f} s and is {action.before!r} again, "
            f"not {action.after!r}: somebody else sets it"
        )
        return Hold(action=action, reason="DriftLoop", message=message, wait_s=until - now, stalled=True)
