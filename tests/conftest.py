"""What all tests share: where a test may run, names and directories of its own, and no silent skips."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import deadruns, scratch, skips
from tests.support.patience import PATIENCE

_HERE = Path(__file__).parent
_NEED_ROOT = ("kernel", "e2e", "vm", "vm_smoke")
_E2E_S = 300
"""Many commands, and a module's VEs: what hangs is told by shorter deadlines, and a machine may be busy."""
_RUN = pytest.StashKey[scratch.RunDirectory]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    _heed_interrupts()
    if hasattr(config, "workerinput"):
        tempfile.tempdir = config.workerinput["run"]
        return
    allowed = skips.load_allowed(_HERE / "allowed_skips.txt")
    config.pluginmanager.register(skips.SkipGuard(allowed, strict=skips.is_strict(os.environ)))
    if config.option.basetemp is None:
        place = scratch.choose_place()
        if os.geteuid() == 0:
            deadruns.sweep_place(place)
        config.stash[_RUN] = _made_run(place)
        config.option.basetemp = config.stash[_RUN].base
        tempfile.tempdir = config.stash[_RUN].path  # what is made there is found however the run ends


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # xdist's, which has no types
    """Tell a worker where the run has its files."""
    node.workerinput["run"] = tempfile.gettempdir()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves something mounted, and keep the files of a failed one for a look."""
    run = session.config.stash.get(_RUN, None)
    if run is None:
        return
    if left := scratch.mounts_below(run.path):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        print(f"\nleft mounted: {', '.join(left)}")
    run.keep = session.exitstatus == pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run, and what a worker that was interrupted could not end itself."""
    if run := config.stash.get(_RUN, None):
        if os.geteuid() == 0:
            deadruns.sweep(run.path)
        run.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below ``kernel``, ``e2e`` and ``vm`` by its directory, and give it the time it needs here."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            directory = item.path.relative_to(_HERE).parts[0]
            if directory in _NEED_ROOT and not any(item.get_closest_marker(name) for name in _NEED_ROOT):
                item.add_marker(directory)
            if directory == "e2e" and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_E2E_S))
            if limit := item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(limit.args[0] * PATIENCE), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.geteuid() != 0 and any(item.get_closest_marker(name) for name in _NEED_ROOT):
        pytest.skip("requires root")


@pytest.fixture
def instance_name() -> Iterator[str]:
    """A short name, such as ``t3f9a``, that no other test has on this machine while this one runs.

    Held by a socket of that abstract name, which ends with this process however that ends.
    """
    with socket.socket(socket.AF_UNIX) as claim:
        yield _claimed_name(claim)


@pytest.fixture
def tmp_root(instance_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a short path where roots of VEs, pools and sockets can lie; gone after the test.

    A test that leaves something mounted in it fails; that is unmounted first, and nothing is deleted through it.
    """
    base = tmp_path_factory.getbasetemp()
    if reason := scratch.unfitness(str(base)):
        pytest.skip(f"no directory for roots of VEs: {reason}")
    with scratch.directory(base / instance_name) as path:
        yield path


def _made_run(place: str) -> scratch.RunDirectory:
    """Make the run's directory, once those of former runs are gone, where there is room for what root's tests make."""
    run = scratch.RunDirectory(place)
    if os.geteuid() == 0:
        try:
            scratch.require_room(place)
        except OSError as err:
            run.close()
            raise pytest.UsageError(str(err)) from err
    return run


def _heed_interrupts() -> None:
    """Undo what a shell does to a job in its background: the commands under test would inherit an ignored SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _claimed_name(claim: socket.socket) -> str:
    while True:
        name = f"t{secrets.token_hex(2)}"
        try:
            claim.bind(f"\0vectl-test-{name}")
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise
        else:
            return name
