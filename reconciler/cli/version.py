"""The version of this program."""

from __future__ import annotations


def version() -> str:
    """Give the version; the one place where it is written besides the project's own description."""
    return "0.1.0"
