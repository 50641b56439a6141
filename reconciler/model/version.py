"""The version of this program; the one place where it is written besides the project's own description."""

from __future__ import annotations

VERSION = "0.1.0"
