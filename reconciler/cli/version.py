"""`version`, and the version of this program."""

from __future__ import annotations

import sys

from reconciler.model.version import VERSION


def version() -> str:
    """Give the version."""
    return VERSION


def show() -> int:
    """Print the version."""
    sys.stdout.write(f"vectl {version()}\n")
    return 0
