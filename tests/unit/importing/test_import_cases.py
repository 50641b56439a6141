"""Configurations in their documented formats become exactly these manifests, with exactly this account."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reconciler.manifests.load import load_fleet
from tests.support.importing import CASES, files_of, golden, imported

NAMES = sorted(path.name for path in CASES.iterdir() if (path / "in").is_dir())
_UPDATE = "VECTL_WRITE_GOLDENS"
"""Writes what is expected anew, for a person to look through."""


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_becomes_these_manifests_with_this_account(name: str) -> None:
    found = golden(imported(name.split("-")[0], files_of(CASES / name / "in")))
    if os.environ.get(_UPDATE):
        _write(CASES / name / "out", found)
    expected = files_of(CASES / name / "out")
    assert {file: data.decode() for file, data in found.items()} == {
        file: data.decode() for file, data in expected.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_valid_and_stable(name: str) -> None:
    files = files_of(CASES / name / "in")
    result = imported(name.split("-")[0], files)
    assert load_fleet(result.files, revision="").findings == ()
    again = imported(name.split("-")[0], dict(reversed(files.items())))
    assert again.files.keys() == result.files.keys()


@pytest.mark.parametrize("name", ["proxmox-all", "incus-dump", "openvz-vz7"])
def test_no_secret_is_repeated(name: str) -> None:
    files = files_of(CASES / name / "in")
    assert any(b"hunter2" in data or b"PASSWORD=secret" in data for data in files.values())
    result = imported(name.split("-")[0], files)
    said = json.dumps(result.to_json()).encode() + b"".join(golden(result).values())
    assert b"hunter2" not in said
    assert b"PASSWORD=secret" not in said


@pytest.mark.parametrize("system", ["proxmox", "incus"])
def test_every_documented_key_is_accounted_for_by_one_that_is_known(system: str) -> None:
    keys = (CASES / f"{system}-keys.txt").read_text().split()
    for key in keys:
        lines = {
            "proxmox": f"{key}: 1\n",
            "incus": f'{{name: one, type: container, config: {{"{key}": "1"}}}}\n',
        }
        result = imported(system, {"101.conf": lines[system].encode()})
        found = [entry for entry in result.ledger.entries if entry.setting.key.removeprefix("config.") == key]
        assert found, key
        assert not any(entry.message == "no such key is known" for entry in found), key
