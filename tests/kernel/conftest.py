"""A repository that is served, for the tests of what follows one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gitserver
from tests.support.gitrepo import Clone, bare
from tests.support.gitserver import HttpServer


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Make a directory with one repository, ``fleet.git``."""
    return bare(tmp_path / "served" / "fleet.git").parent


@pytest.fixture
def clone(tmp_path: Path, served: Path) -> Clone:
    """Make a clone, of which one commit is pushed."""
    made = Clone(tmp_path / "clone")
    made.commit({"web.yaml": "one"})
    made.push(served / "fleet.git")
    return made


@pytest.fixture
def http(served: Path) -> Iterator[HttpServer]:
    """Serve the directory."""
    with gitserver.http(served) as server:
        yield server
