"""Guests for the tests: one, or several on a LAN; of a failed test, what its guests say is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.vm import guest, lan, saved

Hosts = Callable[[int], tuple[lan.Member, ...]]


@pytest.fixture(scope="session")
def state() -> saved.Saved:
    """Give the state that guests start from; to make it takes minutes, once."""
    return saved.saved_state()


@pytest.fixture(scope="module")
def host(state: saved.Saved) -> Iterator[guest.Guest]:
    """Run a guest for the tests of a module."""
    with saved.restored(state) as restored:
        yield restored


@pytest.fixture(scope="module")
def hosts(state: saved.Saved) -> Iterator[Hosts]:
    """Run as many guests as are asked for, on one LAN, until the module's tests have ended."""
    with contextlib.ExitStack() as exits:
        yield lambda count: exits.enter_context(lan.hosts(state, count))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        kept = [running.keep_evidence() for running in _guests(list(item.funcargs.values()))]
        report.sections += [("guest", f"its console, journal and kernel log: {pattern}") for pattern in kept]
    return report


def _guests(found: list[Any] | tuple[Any, ...]) -> Iterator[guest.Guest]:
    for value in found:
        match value:
            case guest.Guest():
                yield value
            case lan.Member():
                yield value.guest
            case tuple():
                yield from _guests(value)
