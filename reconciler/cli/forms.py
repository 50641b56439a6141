"""The formats in which commands print what they found."""

from __future__ import annotations

from enum import StrEnum


class ValidateFormat(StrEnum):
    """How to print mistakes."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


class PlanFormat(StrEnum):
    """How to print a plan."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
