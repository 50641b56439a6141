"""Claims about the manual page: all of the command tree is in it, and no text of ours is taken for a macro."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from typer.core import TyperGroup

from reconciler.cli import app, manual


def test_every_command_and_option_is_in_it() -> None:
    page = manual.render().replace("\\-", "-")
    for name, command in app.tree().commands.items():
        inner = command.commands if isinstance(command, TyperGroup) else {"": command}
        for below, one in inner.items():
            if one.hidden:
                continue
            assert f'.SS "vectl {f"{name} {below}".strip()} ' in page
            shown = [option for option in one.params if not getattr(option, "hidden", False)]
            assert all(option.opts[-1] in page for option in shown if option.param_type_name == "option")


def test_lines_are_macros_of_ours_or_text() -> None:
    macros = re.compile(r"\.(TH|SH|SS|TP|B|I|RI|BR) ?")
    assert all(macros.match(line) for line in manual.render().splitlines() if line[:1] in (".", "'"))
    assert list(manual._escaped(".profile\n'tis -x \\n")) == ["\\&.profile", "\\&'tis \\-x \\en"]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_takes_it_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=manual.render(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
