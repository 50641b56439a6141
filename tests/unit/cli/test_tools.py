"""Claims about the examination of programs: versions are found and judged, and a missing one names its package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.host import tools
from reconciler.kernel import command, criu_program
from reconciler.model.probe import Level


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("runc version 1.1.5+ds1", (1, 1, 5)),
        ("nftables v1.0.6 (Lester Gooch #5)", (1, 0, 6)),
        ("Version: 4.2.1", (4, 2, 1)),
        ("nothing", ()),
    ],
)
def test_versions_are_found_in_what_programs_print(said: str, version: tuple[int, ...]) -> None:
    assert command.parse_version(said) == version


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ((1, 1, 5), False),
        ((1, 1, 15), False),
        ((1, 2, 7), False),
        ((1, 2, 8), True),
        ((1, 3, 2), False),
        ((1, 3, 3), True),
        ((1, 3, 6), True),
        ((1, 4, 0), True),
        ((1, 5, 0), True),
        ((2, 0), True),
        ((), False),
    ],
)
def test_runc_is_mended_from_a_version_on_in_each_of_its_lines(version: tuple[int, ...], mended: bool) -> None:
    assert tools.is_mended(version) is mended


def program(directory: Path, name: str, says: str) -> None:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


def test_an_old_runc_is_a_warning_and_an_absent_one_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, "runc", "runc version 1.1.5")
    assert tools._runtime("runc").level is Level.WARN
    assert "CVE-2025-31133" in tools._runtime("runc").found
    program(tmp_path, "runc", "runc version 1.3.4")
    assert tools._runtime("runc").level is Level.OK
    absent = tools._runtime("/no/such/runtime")
    assert (absent.level, bool(absent.remedy)) == (Level.FAIL, True)


def test_criu_of_our_own_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "host", "criu", "Version: 4.3")
    program(tmp_path / "bin", "criu", "Version: 4.2.1")
    monkeypatch.setenv("PATH", f"{tmp_path}/host:{os.environ['PATH']}")
    assert criu_program.find(f"{tmp_path}/bin").version == (4, 2, 1)
    assert criu_program.find(f"{tmp_path}/none").version == (4, 3)


def test_a_host_says_why_it_cannot_suspend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/host")
    assert "no such program; run `make criu`" in criu_program.why_not(f"{tmp_path}/none")
    program(tmp_path / "host", "criu", "Version: 3.17.1")
    monkeypatch.setenv("PATH", f"{tmp_path}/host:/usr/bin:/bin")
    assert "expected criu 4.2 or newer, found 3.17.1" in criu_program.why_not(f"{tmp_path}/none")
    program(tmp_path / "own", "criu", "Version: 4.2.1")
    assert criu_program.why_not(f"{tmp_path}/own") == ""


def test_an_old_criu_is_a_warning_that_names_what_is_lost(tmp_path: Path) -> None:
    program(tmp_path / "bin", "criu", "Version: 4.1.1")
    old = tools._criu(f"{tmp_path}/bin")
    assert (old.level, bool(old.remedy)) == (Level.WARN, True)
    assert "no live migration" in old.found
    assert "4.1.1" in old.found


def test_a_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {probe.name: probe for probe in map(tools._tool, tools._TOOLS)}
    assert found["nft"].level is Level.FAIL
    assert found["nft"].remedy == "install the Debian package nftables"
    assert found["skopeo"].level is Level.WARN
    assert "no templates of OCI images" in found["skopeo"].found
