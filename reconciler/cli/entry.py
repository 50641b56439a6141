"""Where the `vectl` command begins: the quickest answers first, and every error turned into one line and a code."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer.exceptions import TyperException

_VERSION_WORDS = (["--version"], ["version"])
_COMPLETE_WORD = "__complete"
_NEW_OBJECTS_MAX = 200_000
"""After how many new objects cycles among them are looked for: nearly all that a command makes stays to its end."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    arguments = sys.argv[1:]
    if arguments in _VERSION_WORDS:
        from reconciler.cli.version import version

        sys.stdout.write(f"vectl {version()}\n")
        return
    if arguments[:1] == [_COMPLETE_WORD]:
        from reconciler.cli import complete

        sys.stdout.write(complete.answer(arguments[1:]))
        return
    gc.set_threshold(_NEW_OBJECTS_MAX)
    code = run(arguments)
    gc.freeze()  # what a plan of thousands of VEs holds is not looked through once more before it is let go
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; give its exit code."""
    from typer.exceptions import Abort, TyperException

    from reconciler.cli import app, output
    from reconciler.errors import ExitCode, VectlError

    as_json = wants_json(arguments)
    try:
        code = app.tree().main(arguments, prog_name="vectl", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except TyperException as error:
        if error.format_message().startswith("Usage:"):
            output.words(error.format_message())
        else:
            output.report_words(usage_words(error), kind="UsageError", code=int(ExitCode.USAGE), as_json=as_json)
        return int(ExitCode.USAGE)
    except (KeyboardInterrupt, Abort):
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Who read our output has gone; the interpreter must not complain of it again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except VectlError as error:
        output.report(error, as_json=as_json)
        return int(error.exit_code)


def wants_json(arguments: list[str]) -> bool:
    """Say whether a command line asks for JSON, so that what is wrong with it is told in JSON too."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    pairs = itertools.pairwise(ours)
    split = any(first in ("-o", "--output") and second == "json" for first, second in pairs)
    return split or any(word in ("-ojson", "--output=json") for word in ours)


def usage_words(error: TyperException) -> str:
    """Give the parser's sentence the form of our own, with the command whose help tells more.

    Shape: lower case, on one line, no full stop before the remedy.
    """
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    context = getattr(error, "ctx", None)  # an error of the command line as a whole has none
    command = context.command_path if context is not None else "vectl"
    return f"{message[:1].lower()}{message[1:]}; see `{command} --help`"


if __name__ == "__main__":
    main()
