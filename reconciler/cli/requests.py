"""Requests of a person: handed to the agent if one runs, else carried out here; never both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from reconciler.cli import context
from reconciler.errors import ExitCode, VectlError

if TYPE_CHECKING:
    from reconciler.agent.operations import Operations
    from reconciler.model.facts import Json
    from reconciler.state.config import Config

Deed = Callable[["Operations"], Awaitable[object]]


class AgentError(VectlError):
    """What the agent answered, with the class and the exit code that its own error had."""

    def __init__(self, message: str, *, kind: str, code: ExitCode) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = code


def carry_out(op: str, deed: Deed, **arguments: Json) -> None:
    """Carry out a request. ``deed``: what it means where no agent runs; ``arguments``: what the agent is told.

    Raises: VectlError; AgentError, for what went wrong there.
    """
    context.need_root()
    context.run(_carry_out(context.load_config(), op, deed, arguments))


async def _carry_out(config: Config, op: str, deed: Deed, arguments: dict[str, Json]) -> None:
    from reconciler.agent.server import ask

    answer = await ask(config.instance, op, by=context.who(), **arguments)
    if answer is None:
        await _here(config, deed)
    elif answer.get("ok") is not True:
        raise _error(answer)


async def _here(config: Config, deed: Deed) -> None:
    from reconciler.agent.session import NO_FLEET, open_session
    from reconciler.state.lock import instance_lock

    context.need_ground(config)
    source, fleet = context.last_good(config)
    with instance_lock(config.instance):
        async with open_session(config, source=source, fleet=fleet or NO_FLEET) as session:
            session.reconciler.prune = False  # nobody asked for removals
            await deed(session.operations)


def _error(answer: dict[str, Json]) -> AgentError:
    code = answer.get("exit_code")
    known = isinstance(code, int) and code in set(ExitCode)
    return AgentError(
        str(answer.get("error")),
        kind=str(answer.get("kind")),
        code=ExitCode(code) if known and isinstance(code, int) else ExitCode.ERROR,
    )
