"""Where the `vectl` command begins: the quickest answers first, and every error turned into one line and a code."""

from __future__ import annotations

import sys

_VERSION_WORDS = (["--version"], ["version"])


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:] in _VERSION_WORDS:
        from reconciler.cli.version import version

        sys.stdout.write(f"vectl {version()}\n")
        return
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; give its exit code."""
    from typer.exceptions import Abort, TyperException
    from typer.main import get_command

    from reconciler.cli import app, output
    from reconciler.errors import ExitCode, VectlError

    try:
        code = get_command(app.app).main(arguments, prog_name="vectl", standalone_mode=False)
        return int(code or 0)
    except TyperException as error:
        output.words(f"vectl: {error.format_message()}" if arguments else error.format_message())
        return int(ExitCode.USAGE)
    except (KeyboardInterrupt, Abort):
        return int(ExitCode.INTERRUPTED)
    except VectlError as error:
        output.report(error, as_json="json" in arguments)
        return int(error.exit_code)


if __name__ == "__main__":
    main()
