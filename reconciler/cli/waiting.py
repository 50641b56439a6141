"""`wait`: until something is so, or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, NotConvergedError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.view import Row
    from reconciler.state.config import Config

_LOOK_EVERY_S = 0.2
_EXPECTED = "condition=TYPE[=STATUS], power=STATE or delete"

Wanted: TypeAlias = "Callable[[Row | None], bool]"
"""Says whether what is waited for is so; it is given None where there is no such VE."""


def wait(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The VE.")],
    goal: Annotated[str, typer.Option("--for", help=_EXPECTED, metavar="WHAT")] = "condition=Ready",
    timeout: Annotated[str, typer.Option(help="How long to wait at most.", metavar="DURATION")] = "60s",
) -> int:
    """Wait until something is so of a VE; exit with 5 if it is not."""
    wanted, timeout_s = parse_goal(goal), context.parse_timeout(timeout)
    context.need_root()
    context.run(_wait(context.load_config(), name, wanted, time.monotonic() + timeout_s, goal))
    output.words(f"{name}: {goal}")
    return int(ExitCode.OK)


def parse_goal(text: str) -> Wanted:
    """Parse what is waited for.

    Raises: UsageError.
    """
    from reconciler.model.condition import OF_SOURCE, ConditionType, Status
    from reconciler.model.power import PowerState

    match text.split("="):
        case ["delete"]:
            return lambda row: row is None or row.seen is None
        case ["power", state] if state in set(PowerState):
            return lambda row: row is not None and row.power_word == state
        case ["condition", kind] if kind in set(ConditionType) - OF_SOURCE:
            return _has_condition(kind, Status.TRUE)
        case ["condition", kind, status] if kind in set(ConditionType) - OF_SOURCE and status in set(Status):
            return _has_condition(kind, Status(status))
    types = (kind for kind in ConditionType if kind not in OF_SOURCE)
    known = f"types are {', '.join(types)}; states are {', '.join(PowerState)}"
    raise UsageError(f"read --for: expected {_EXPECTED}, got {text!r}; {known}")


def _has_condition(kind: str, status: str) -> Wanted:
    """A condition that is only there while it is true counts as false where it is not there."""

    def wanted(row: Row | None) -> bool:
        if row is None:
            return False
        found = next((condition.status.value for condition in row.conditions if condition.type == kind), "False")
        return found == status

    return wanted


async def _wait(config: Config, name: str, wanted: Wanted, deadline: float, goal: str) -> None:
    import asyncio

    while True:
        row = await _look(config, name)
        if wanted(row):
            return
        if time.monotonic() >= deadline:
            seen = "it is not here" if row is None else f"it is {row.power_word}, {row.ready.reason}"
            raise NotConvergedError(f"wait for {goal} of {name}: not so in time; {seen}")
        await asyncio.sleep(_LOOK_EVERY_S)


async def _look(config: Config, name: str) -> Row | None:
    """Look anew each time: the pool may be made, and everything removed, while we wait.

    Raises: KernelError, if not all VEs could be seen: then nobody can say that one is gone.
    """
    from reconciler.agent import view
    from reconciler.agent.session import look_session
    from reconciler.host import ground
    from reconciler.kernel import mount

    if not ground.has_pool(config.instance) or not mount.is_mounted(config.instance.pool):
        return None
    async with look_session(config, source="") as session:
        return view.row(session, await session.reconciler.observe(), name)
