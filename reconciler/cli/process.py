"""`agent`: the beginning of an instance on this host."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from reconciler.cli import context, output


class LogLevel(StrEnum):
    """How much the agent tells."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def agent(
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="Directory of manifests to hold the host to.")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much to tell.")] = LogLevel.INFO,
    enable_failpoints: Annotated[bool, typer.Option(hidden=True)] = False,
) -> NoReturn:
    """Hold this host to the manifests until stopped."""
    context.need_root()
    config = context.load_config(source)  # what is wrong with it is told here
    given = context.given()
    wish = {
        "config": given.config_file,
        "instance": given.instance,
        "state_dir": given.state_dir,
        "run_dir": given.run_dir,
        "host": given.host,
        "source": source,
        "log_level": log_level.value,
        "terminal": sys.stderr.isatty(),
        "color": output.has_color(sys.stderr),
        "failpoints": os.environ.get("VECTL_FAILPOINTS", "") if enable_failpoints else "",
    }
    speaks_tls = config.listen is not None or bool(config.notify) or config.etcd is not None
    _become_agent(json.dumps(wish), speaks_tls=speaks_tls)


def _become_agent(wish: str, *, speaks_tls: bool) -> NoReturn:
    """Replace this process by the agent, which then carries nothing of the command line for as long as it runs.

    One arena is enough for a process of one busy thread; glibc would make one for each helper thread.
    Source: mallopt(3), MALLOC_ARENA_MAX.
    """
    isolated = ["-I"] if sys.flags.isolated else []
    room = "reconciler.web" if speaks_tls else "reconciler.agent"
    argv = [sys.executable, *isolated, "-m", room, wish]
    os.execve(sys.executable, argv, {"MALLOC_ARENA_MAX": "1", **os.environ})  # noqa: S606  # no shell is wanted
