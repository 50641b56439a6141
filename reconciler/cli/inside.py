"""`exec` and `enter`: programs in a VE."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context
from reconciler.errors import CommandError, StateError, UsageError

if TYPE_CHECKING:
    from reconciler.host.execute import Program

_NOT_STARTED = (126, 127)
"""Exit statuses of a shell for a program that is not executable, and for one that is not there."""

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The VE.")]
_User = Annotated[str, typer.Option("--user", "-u", metavar="USER[:GROUP]", help="Who the program runs as.")]


def execute(
    name: _Name,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGUMENT]", help="What to run.")],
    interactive: Annotated[bool, typer.Option("--stdin", "-i", help="Hand standard input on.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    user: _User = "root",
) -> int:
    """Run a program in a VE and end with its exit status."""
    from reconciler.host.execute import Program

    if tty and interactive and not sys.stdin.isatty():
        raise UsageError("exec -t: expected a terminal as standard input; leave out -t for a pipe or a file")
    program = Program(args=tuple(command), user=user, env=_terminal_environment() if tty else {}, tty=tty)
    return _run(name, program, interactive=interactive)


def enter(name: _Name, user: _User = "root") -> int:
    """Open a login shell in a VE."""
    from reconciler.host.execute import Program

    if not sys.stdin.isatty():
        raise UsageError("enter: expected a terminal as standard input; for scripts there is `vectl exec`")
    program = Program(args=(), user=user, env=_terminal_environment(), tty=True)
    return _run(name, program, interactive=True)


def _terminal_environment() -> dict[str, str]:
    return {"TERM": os.environ.get("TERM", "linux")}


def _run(name: str, program: Program, *, interactive: bool) -> int:
    context.need_root()
    try:
        return context.run(_run_in(name, program, interactive=interactive))
    except CommandError as error:
        if error.status not in _NOT_STARTED:
            raise
        from reconciler.cli import output

        output.words(f"vectl: {error}")
        return error.status


async def _run_in(name: str, program: Program, *, interactive: bool) -> int:
    from reconciler.agent import view
    from reconciler.host import execute, ground, power, relay
    from reconciler.host.keeper.client import Execution
    from reconciler.host.site import Site
    from reconciler.model.power import PowerState

    config = context.load_config()
    context.need_ground(config)
    ground.check_pool(config.instance)
    site = Site(config.instance)
    try:
        uid = view.find(site, name)
        if power.observe(site, uid).state is not PowerState.RUNNING:
            raise StateError(f"enter {name}: it does not run; see `vectl describe {name}`")

        async def start(stdio: tuple[int, int, int] | None) -> Execution:
            return await execute.start(site, uid, program, stdio=stdio)

        if program.tty:
            return await relay.on_terminal(start, stdin=0 if interactive else None, stdout=1)
        return await relay.on_pipes(start, interactive=interactive)
    finally:
        site.close()
