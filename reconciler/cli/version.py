"""`version`, and the version of this program."""

from __future__ import annotations

import sys


def version() -> str:
    """Give the version; the one place where it is written besides the project's own description."""
    return "0.1.0"


def show() -> int:
    """Print the version."""
    sys.stdout.write(f"vectl {version()}\n")
    return 0
