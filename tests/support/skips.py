"""A skip is a hole in the net: each is listed at the end, and in CI one that nobody allowed fails the run.

So does a run in which no test ran. ``allowed_skips.txt`` holds the allowed ones, one a line: pattern of the test's
id, ``|``, pattern of the reason. ``*`` stands for anything, everything else for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Skip:
    """A test, or a module, that was skipped, and why."""

    test: str
    reason: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """Skips that are accepted."""

    test: str
    reason: str

    def covers(self, skip: Skip) -> bool:
        """Tell whether a skip is one of these."""
        return _matches(self.test, skip.test) and _matches(self.reason, skip.reason)


class SkipGuard:
    """Collects what was skipped in a run, on all its workers, and judges it at the end."""

    def __init__(self, allowed: tuple[Allowed, ...], *, strict: bool) -> None:
        self._allowed = allowed
        self._strict = strict
        self._skips: list[Skip] = []
        self._ran = 0

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)
        elif report.when == "call":
            self._ran += 1

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        failed = self.unlisted() or not self._ran
        if self._strict and failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._skips:
            terminalreporter.section("skips")
        unlisted = self.unlisted()
        for skip in self._skips:
            mark = "NOT ALLOWED" if skip in unlisted else "allowed"
            terminalreporter.write_line(f"{mark}: {skip.test}: {skip.reason}")
        if self._strict and unlisted:
            terminalreporter.write_line("list them in tests/allowed_skips.txt, or make them run", red=True)
        if self._strict and not self._ran:
            terminalreporter.write_line("no test ran", red=True)

    def unlisted(self) -> list[Skip]:
        """List the skips that no line allows."""
        return [skip for skip in self._skips if not any(allowed.covers(skip) for allowed in self._allowed)]

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self._skips.append(Skip(_without_group(report.nodeid), reason.removeprefix("Skipped: ")))


def is_strict(environment: Mapping[str, str]) -> bool:
    """Tell whether this is a run of CI, as every CI service says it."""
    return environment.get("CI", "").lower() not in ("", "0", "false")


def load_allowed(path: Path) -> tuple[Allowed, ...]:
    """Load the allowed skips; empty lines, and lines that start with ``#``, say nothing."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return tuple(_parse_allowed(line) for line in lines if line and not line.startswith("#"))


def _parse_allowed(line: str) -> Allowed:
    test, bar, reason = (part.strip() for part in line.partition("|"))
    if not (test and bar and reason):
        raise pytest.UsageError(f"read allowed skip: expected 'test | reason', found {line!r}")
    return Allowed(test, reason)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _without_group(test: str) -> str:
    """Take away what xdist adds to the id of a test that belongs to a group."""
    return test[: test.rfind("@")] if test.rfind("@") > test.rfind("]") else test
