"""Claims about completion: the right candidates at each place, and the scripts of a real shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup

import reconciler
from reconciler.cli import app, complete


@pytest.fixture
def instance(tmp_path: Path) -> list[str]:
    """The options of an instance of which one VE was told of, one was made, and one is in the trash."""
    conditions, inventory = tmp_path / "run/conditions", tmp_path / "state/inventory"
    for directory in (conditions, inventory, tmp_path / "state/pool/trash/u-1.1700000000"):
        directory.mkdir(parents=True)
    (conditions / "web1.json").write_text("{}")
    (conditions / "_source.json").write_text("{}")
    (inventory / "u-2.json").write_text(json.dumps({"name": "db1"}))
    (inventory / "u-3.json").write_text("torn")
    return ["--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")]


def words(*line: str) -> list[str]:
    """Give the candidates for the last of some words."""
    return [candidate.partition("\t")[0] for candidate in complete.answer(line).splitlines()]


def test_commands_are_completed_with_what_they_do() -> None:
    assert words("va") == ["validate"]
    assert {"get", "trash", "apply"} <= set(words(""))
    assert "man" not in words("")
    assert "validate\tCheck manifests and tell all mistakes at once.\n" in complete.answer([""])


def test_commands_of_a_group_are_completed() -> None:
    assert words("trash", "") == ["list", "purge", "restore"]


def test_options_and_their_words_are_completed() -> None:
    assert "--detailed-exitcode" in words("plan", "--")
    assert words("get", "-o", "w") == ["wide"]
    assert words("completion", "") == ["bash", "zsh", "fish"]


def test_what_can_be_waited_for_is_completed() -> None:
    assert words("wait", "web1", "--for", "condition=D") == ["condition=Drifted"]
    powers = {"power=running", "power=created", "power=suspended", "power=stopped"}
    assert set(words("wait", "web1", "--for", "p")) == powers


def test_names_of_ves_are_completed(instance: list[str]) -> None:
    assert words(*instance, "get", "") == ["db1", "web1"]
    assert words(*instance, "get", "web1", "d") == ["db1"]
    assert words(*instance, "describe", "w") == ["web1"]
    assert words(*instance, "get", "-o", "json", "") == ["db1", "web1"]


def test_a_command_of_one_ve_takes_no_second_name(instance: list[str]) -> None:
    assert words(*instance, "stop", "web1", "") == []
    assert words(*instance, "exec", "web1", "--", "") == []


def test_entries_of_the_trash_are_completed(instance: list[str]) -> None:
    assert words(*instance, "trash", "restore", "") == ["u-1.1700000000"]


def test_paths_are_left_to_the_shell() -> None:
    assert words("plan", "") == []


def test_a_configuration_that_cannot_be_read_completes_to_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "config.yaml"
    broken.write_text("instance: [")
    assert words("--config", str(broken), "get", "") == []


def test_every_command_that_takes_names_is_known_to_be_one() -> None:
    tree = app.tree()
    taking = {
        name
        for name, command in tree.commands.items()
        if not isinstance(command, TyperGroup) and any(param.name in ("name", "names") for param in command.params)
    }
    assert taking == complete.OF_ONE_VE | complete.OF_VES


def test_bash_completes_by_the_script(instance: list[str], tmp_path: Path) -> None:
    program = tmp_path / "vectl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m reconciler.cli.entry "$@"\n')
    program.chmod(0o755)
    script = f"""{complete.BASH}
        COMP_WORDS=(vectl {" ".join(instance)} get w); COMP_CWORD=6; _vectl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(reconciler.__file__).parent.parent),
        },
    )
    assert done.stdout.split() == ["web1"]
