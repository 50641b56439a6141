"""The agent as a process of its own, without what only the command line needs: it stays for months.

Shape: one argument, a JSON object of the fields of `Wish`.
"""

from __future__ import annotations

import sys

# structlog would load rich for tracebacks that are never printed here, and asyncio TLS for streams that are not opened
# here: 12 MB and 1 MB for as long as the host is up. A download of a template loads TLS then.
sys.modules["rich"] = None  # type: ignore[assignment]  # the documented way to have an import fail
if "asyncio" not in sys.modules:
    sys.modules["ssl"] = None  # type: ignore[assignment]
    import asyncio

    del sys.modules["ssl"]

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.agent.company import Companion
from reconciler.agent.logging import configure
from reconciler.agent.service import run_agent
from reconciler.errors import ExitCode, VectlError
from reconciler.state.config import Config, Overrides, load_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asked for; None: nothing."""

    config: str | None
    instance: str | None
    state_dir: str | None
    run_dir: str | None
    host: str | None
    source: str | None
    log_level: str
    terminal: bool
    color: bool
    failpoints: str


def main(argument: str, companions: Callable[[Config], Sequence[Companion]] = lambda config: ()) -> int:
    """Run the agent until it is stopped; give its exit code. ``companions``: what is to run beside it."""
    wish = Wish(**json.loads(argument))
    overrides = Overrides(
        instance=wish.instance,
        state_dir=wish.state_dir,
        run_dir=wish.run_dir,
        host=wish.host,
        source=wish.source,
    )
    configure(wish.log_level, terminal=wish.terminal, color=wish.color)
    try:
        config = load_config(wish.config, overrides, environment=os.environ)
        asyncio.run(run_agent(config, failpoints=wish.failpoints, companions=companions(config)))
    except VectlError as error:
        sys.stderr.write(f"vectl: {error}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
