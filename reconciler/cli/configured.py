"""The configured source, taken as it is now: by the agent, if one holds this host, else by ourselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.cli import context, output
from reconciler.errors import NotConvergedError, RefusedError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.pulling import Puller
    from reconciler.state.config import Config
    from reconciler.state.lastgood import Kept
    from reconciler.state.location import GitLocation, Location

_TAKEN_S = 30.0
_LOOK_EVERY_S = 0.05


def location_of(config: Config, *, asked: str) -> Location:
    """Give the configured source.

    Raises: UsageError, if there is none.
    """
    if config.source is None:
        raise UsageError(f"{asked}: expected a path, or a `source` in {config.file or 'the configuration'}")
    return config.source


async def take(config: Config, location: GitLocation) -> tuple[Kept, Puller | None]:
    """Take the newest commit: what the agent then has in force, or, where none runs, what is to come into force.

    Shape: with who pulled it, if that were we ourselves; he is to be told once it is accepted.

    Raises: RefusedError, if it may not be taken, naming why; VectlError.
    """
    from reconciler.agent.server import ask

    answer = await ask(config.instance, "ping")
    if answer is None:
        return await _pull(config, location)
    holder = answer.get("result")
    source = holder.get("source") if isinstance(holder, dict) else ""
    if source != location.name:
        raise RefusedError(
            f"apply {location.name}: the agent of {config.instance.name} holds this host to {source}; stop it first"
        )
    told = await ask(config.instance, "refresh")
    newest = told.get("result") if told is not None else None
    if not isinstance(newest, dict):
        raise NotConvergedError(f"apply {location.name}: the agent ended; see its log")
    if newest["reason"]:
        raise RefusedError(f"apply {location.name}: {output.one_line(str(newest['problem']))}")
    return await _taken(config, location, str(newest["revision"])), None


async def _pull(config: Config, location: GitLocation) -> tuple[Kept, Puller]:
    """Fetch, judge and read the newest commit ourselves.

    Raises: RefusedError, if it may not be taken; VectlError.
    """
    from reconciler.agent.clock import SystemClock
    from reconciler.agent.pulling import Puller
    from reconciler.model.commit import TrustState
    from reconciler.state.lastgood import Kept

    puller = Puller(location, config.instance, clock=SystemClock())
    found = await puller.pull(context.revision_in_force(config))
    if found.reason:
        raise RefusedError(f"apply {location.name}: {output.one_line(found.problem)}")
    if found.trust.state is not TrustState.TRUSTED:
        raise RefusedError(f"apply {location.name}: {found.trust.reason}: {output.one_line(found.trust.message)}")
    kept = Kept(revision=found.revision, source=location.name, files=found.files, at=SystemClock().now())
    return kept, puller


async def _taken(config: Config, location: GitLocation, revision: str) -> Kept:
    """Wait until the agent has a revision in force."""
    import asyncio
    import time

    from reconciler.model.condition import ConditionType, Status, source_problem
    from reconciler.state import layout
    from reconciler.state.conditions import SOURCE, Conditions
    from reconciler.state.lastgood import LastGood

    until = time.monotonic() + _TAKEN_S
    while time.monotonic() < until:
        kept = LastGood(config.instance.state_dir).read()
        if kept is not None and kept.revision == revision:
            return kept
        found = {c.type: c for c in Conditions(layout.conditions_dir(config.instance)).read(SOURCE)}
        fetched = found.get(ConditionType.FETCHED)
        wrong = source_problem(found.values()) if fetched is not None and fetched.revision == revision else None
        if wrong is not None and wrong.status is Status.FALSE:
            raise RefusedError(f"apply {location.name}: {output.one_line(wrong.message)}")
        await asyncio.sleep(_LOOK_EVERY_S)
    raise NotConvergedError(f"apply {location.name}: the agent did not take it within {_TAKEN_S:g} s; see its log")
