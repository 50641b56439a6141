"""Where the `vectl` command begins: the quickest answers first, and every error turned into one line and a code."""

from __future__ import annotations

import itertools
import os
import signal
import sys

_VERSION_WORDS = (["--version"], ["version"])
_COMPLETE_WORD = "__complete"


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
    sys.exit(run(arguments))


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
        if not error.format_message().startswith("Usage:"):
            hint = f"{_lower(error.format_message())}; see `vectl --help`"
            output.report_words(hint, kind="UsageError", code=int(ExitCode.USAGE), as_json=as_json)
        else:
            output.words(error.format_message())
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


def _lower(message: str) -> str:
    """Give the parser's sentence the form of our own: lower case, no full stop."""
    return f"{message[:1].lower()}{message[1:]}".rstrip(".")


if __name__ == "__main__":
    main()
