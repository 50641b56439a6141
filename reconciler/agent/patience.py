"""When to stop fighting: a field that is changed by hand again and again, an init that ends again and again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from reconciler.agent.backoff import STABLE_S, Backoff
from reconciler.apply.applier import Outcome
from reconciler.model.action import Action, Origin, Reason
from reconciler.plan.words import value_text

RESTART_BURST = 5
"""Ends of init within `STABLE_S` that are answered at once; as systemd's DefaultStartLimitBurst."""

HEALS = 10
"""Corrections of one field within `STABLE_S` after which somebody else clearly wants another value."""

COOL_DOWN_S = 300.0
"""How long a fought-over field is left alone. Units: seconds."""

_ENDED = "InitEnded"

_Key = tuple[str, str]


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
    """Remembers the corrections of each field, and holds back the next one where they come too often.

    Units: seconds of a clock that never goes back.
    """

    backoff: Backoff
    _times: dict[_Key, deque[float]] = field(default_factory=dict)
    _until: dict[_Key, float] = field(default_factory=dict)

    def note(self, outcome: Outcome, now: float) -> None:
        """Note a correction that was carried out."""
        action = outcome.action
        if not outcome.ok or not action.effects or action.origin is not Origin.DRIFT:
            return
        key = (action.ve, action.path)
        if action.reason is Reason.INIT_ENDED:
            self._note_end(key, now)
        elif self._is_burst(key, now, HEALS):
            self._until[key] = now + COOL_DOWN_S

    def _note_end(self, key: _Key, now: float) -> None:
        """Once it is too often, every further end doubles the delay, however long the delays make the intervals."""
        is_burst = self._is_burst(key, now, RESTART_BURST)
        if is_burst or self.backoff.is_failing(key[0], _ENDED, now):
            self._until[key] = now + self.backoff.failed(key[0], _ENDED, now)

    def _is_burst(self, key: _Key, now: float, length: int) -> bool:
        times = self._times.setdefault(key, deque())
        times.append(now)
        while len(times) > length:
            times.popleft()
        return len(times) == length and times[-1] - times[0] <= STABLE_S

    def hold(self, action: Action, now: float) -> Hold | None:
        """Say whether an action has to wait, and why."""
        until = self._until.get((action.ve, action.path), now)
        if action.origin is not Origin.DRIFT or until <= now:
            return None
        if action.reason is Reason.INIT_ENDED:
            message = f"init ended {RESTART_BURST} times within {STABLE_S:.0f} s; started again after a delay"
            return Hold(action=action, reason="CrashLoop", message=message, wait_s=until - now, stalled=False)
        before, after = (value_text(action.path, value) for value in (action.before, action.after))
        message = (
            f"{action.path} was put right {HEALS} times within {STABLE_S:.0f} s and is {before} again, "
            f"not {after}: somebody else sets it"
        )
        return Hold(action=action, reason="DriftLoop", message=message, wait_s=until - now, stalled=True)
