"""Handing the work of `apply` to the running agent, and telling how it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.cli import output
from reconciler.errors import ExitCode, NotConvergedError, RefusedError

if TYPE_CHECKING:
    from reconciler.model.condition import Condition
    from reconciler.model.fleet import Fleet
    from reconciler.model.instance import Instance

_LOOK_EVERY_S = 0.2
_PATIENCE_S = 10.0
"""For what failed, and is tried again, while nothing else moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the VEs of a revision stand, those that are as desired left out.

    ``stalled``: a person must look at them. ``failing``: tried again by and by. ``waiting``: under way.
    """

    stalled: Mapping[str, Condition] = field(default_factory=dict)
    failing: Mapping[str, Condition] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()

    @property
    def is_settled(self) -> bool:
        """Whether nothing will change by itself."""
        return not self.failing and not self.waiting

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that says it."""
        if self.failing:
            return ExitCode.ERROR
        return ExitCode.REFUSED if self.stalled else ExitCode.OK


def standing(fleet: Fleet, stored: Mapping[str, tuple[Condition, ...]], host: str) -> Standing:
    """Sort the VEs of a revision on this host by what was said of them since that revision came into force."""
    from reconciler.model.condition import ConditionType, Status
    from reconciler.model.identity import HostName
    from reconciler.plan.inputs import is_here

    stalled, failing, waiting = {}, {}, set()
    for name in (str(n) for n, spec in fleet.ves.items() if is_here(spec, HostName(host))):
        by_type = {c.type: c for c in stored.get(name, ()) if c.revision == fleet.revision}
        ready = by_type.get(ConditionType.READY)
        if ConditionType.STALLED in by_type:
            stalled[name] = by_type[ConditionType.STALLED]
        elif ready is not None and ready.status is Status.FALSE and ready.reason.endswith("Error"):
            failing[name] = ready
        elif ready is None or ready.status is Status.FALSE:
            waiting.add(name)
    return Standing(stalled=stalled, failing=failing, waiting=frozenset(waiting))


async def await_agent(name: str, instance: Instance, fleet: Fleet, timeout_s: float) -> Standing:
    """Wait until the agent has settled every VE of a revision, or what failed fails on. ``name``: of what is applied.

    Raises: RefusedError, if the agent does not take the manifests; NotConvergedError.
    """
    import asyncio

    from reconciler.model.condition import source_problem
    from reconciler.state import layout
    from reconciler.state.conditions import SOURCE, Conditions
    from reconciler.state.lastgood import LastGood

    last_good = LastGood(instance.state_dir)
    conditions, started = Conditions(layout.conditions_dir(instance)), time.monotonic()
    before, moved_at = Standing(), started
    while True:
        now, stored, kept = time.monotonic(), conditions.read_all(), last_good.read()
        is_in_force = kept is not None and kept.revision == fleet.revision
        if not is_in_force and now - moved_at >= _PATIENCE_S and (wrong := source_problem(stored.get(SOURCE, ()))):
            raise RefusedError(f"apply {name}: the agent does not take it: {output.one_line(wrong.message)}")
        found = standing(fleet, stored, instance.host)
        if found != before:
            _tell(found, before)
            before, moved_at = found, now
        if (found.is_settled and is_in_force) or (found.failing and now - moved_at >= _PATIENCE_S):
            return found
        if now - started > timeout_s:
            raise NotConvergedError(f"apply {name}: not converged within {timeout_s:g} s; see `vectl get`")
        await asyncio.sleep(_LOOK_EVERY_S)


def _tell(found: Standing, before: Standing) -> None:
    """Tell what is newly wrong."""
    for name, condition in {**found.stalled, **found.failing}.items():
        if condition not in (before.stalled.get(name), before.failing.get(name)):
            output.words(f"vectl: {name}: {condition.reason}: {output.one_line(condition.message)}")
