"""Claims about what is installed: one list of dependencies, pinned with hashes, and no address in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")


def requirements(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def declared() -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def locked(name: str) -> dict[str, list[str]]:
    """Shape: ``name==version`` → its hashes."""
    entries = re.split(r"\n(?=[a-z])", (REPOSITORY / name).read_text())
    return {entry.split()[0]: re.findall(r"--hash=(\S+)", entry) for entry in entries if not entry.startswith("#")}


def pins(name: str) -> dict[str, str]:
    return dict(pin.split("==") for pin in locked(name))


def test_the_list_for_the_lock_is_the_projects_own() -> None:
    listed = requirements((REPOSITORY / "requirements.in").read_text())
    assert sorted(map(str, listed)) == sorted(map(str, declared()))


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_the_lock_meets_every_dependency(requirement: Requirement) -> None:
    version = pins("requirements.txt")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    assert locked(name)
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", pin) for pin in locked(name))
    assert [pin for pin, hashes in locked(name).items() if not hashes] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_address(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert "://" not in text
    assert not re.search(r"^-|--(index-url|extra-index-url|find-links|trusted-host)", text, re.MULTILINE)


def test_the_locks_agree() -> None:
    runtime, tools = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {name: tools[name] for name in runtime.keys() & tools.keys()} == {
        name: runtime[name] for name in runtime.keys() & tools.keys()
    }
