"""Claims about how the command begins and ends: quick answers, one line for each error, and the right code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import reconciler
from reconciler.cli import context, entry, plans
from reconciler.errors import ExitCode, KernelError, NotConvergedError, RefusedError
from reconciler.model.fleet import Finding, Place

HEAVY = (
    "asyncio",
    "deepdiff",
    "pydantic",
    "pyroute2",
    "rich",
    "ruamel",
    "structlog",
    "watchdog",
    "reconciler.manifests",
    "reconciler.kernel",
    "reconciler.agent",
)
VE = """
apiVersion: ve/v1
kind: VirtualEnvironment
metadata: {name: web1}
"""


def imported_by(*arguments: str) -> set[str]:
    """Run a command line in a process of its own; give the modules that it imported."""
    script = (
        "import sys; from reconciler.cli import entry\n"
        f"sys.argv = ['vectl', *{[*arguments]!r}]\n"
        "try: entry.main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(reconciler.__file__).parent.parent)},
    )
    return set(done.stderr.split())


def test_the_version_needs_no_parser(capsys: pytest.CaptureFixture[str]) -> None:
    assert "typer" not in imported_by("--version") | imported_by("version")
    assert entry.run(["version"]) == 0
    assert capsys.readouterr().out.startswith("vectl ")


@pytest.mark.parametrize("arguments", [["--help"], ["__complete", ""], ["__complete", "trash", ""]], ids=" ".join)
def test_help_and_completion_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported_by(*arguments).intersection(HEAVY)


def test_help_of_a_command_imports_nothing_heavy_but_what_typer_does() -> None:
    assert not imported_by("plan", "--help").intersection({*HEAVY} - {"pydantic"})


def test_names_of_ves_are_completed_without_the_parser() -> None:
    assert not imported_by("__complete", "get", "").intersection({*HEAVY, "typer"} - {"ruamel", "reconciler.kernel"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["plam"],
        ["plan"],
        ["plan", "a", "b"],
        ["get", "--output", "xml"],
        ["exec", "web1"],
        ["get", "--no-such-option"],
        ["apply"],
        ["apply", "dir", "--plan", "file"],
        ["validate", "no/such/directory"],
        ["wait", "web1", "--for", "heaven"],
    ],
    ids=" ".join,
)
def test_a_command_line_without_a_meaning_ends_with_64(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(arguments) == 64
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("vectl: ")
    assert told.err.count("\n") == 1


def test_no_command_at_all_gets_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run([]) == 64
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RefusedError("no"), ExitCode.REFUSED),
        (KernelError("no", errno=5), ExitCode.ERROR),
        (NotConvergedError("no"), ExitCode.NOT_CONVERGED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_an_error_ends_with_the_code_of_its_class(
    error: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "read_path", _raising(error))
    assert entry.run(["validate", "-"]) == int(code)


def _raising(error: BaseException) -> Callable[[str], None]:
    def fail(_: str) -> None:
        raise error

    return fail


def test_an_error_is_json_where_json_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "read_path", _raising(RefusedError("keep\nout")))
    assert entry.run(["validate", "-", "-o", "json"]) == 4
    told = capsys.readouterr()
    assert json.loads(told.err) == {"error": "keep\nout", "kind": "RefusedError", "exit_code": 4}
    assert told.out == ""


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["get", "-o", "json"], True),
        (["get", "--output=json"], True),
        (["get", "-ojson"], True),
        (["get", "-o", "wide"], False),
        (["describe", "json"], False),
        (["exec", "web1", "--", "tool", "-o", "json"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_json_is_asked_for_by_the_option_alone(arguments: list[str], wanted: bool) -> None:
    assert entry.wants_json(arguments) is wanted


def test_a_message_cannot_pass_for_two_lines_or_colour_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "read_path", _raising(KernelError("read it\nvectl: all is well \x1b[2J\u202e")))
    entry.run(["validate", "-"])
    assert capsys.readouterr().err == "vectl: read it vectl: all is well \ufffd[2J\ufffd\n"


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    manifests = tmp_path / "all.yaml"
    manifests.write_text(VE)
    command = f"{sys.executable} -m reconciler.cli.entry schema VirtualEnvironment"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(reconciler.__file__).parent.parent)},
    )
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_validate_tells_all_mistakes_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(VE + "spec: {memory: {limitt: 1Gi}}\n")
    (tmp_path / "b.yaml").write_text(VE.replace("web1", "web2") + "spec: {processes: many}\n")
    assert entry.run(["validate", str(tmp_path), "-o", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["valid"]
    assert {error["file"] for error in found["errors"]} == {str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")}


def test_files_with_mistakes_are_named_as_seen_from_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "a.yaml").write_text(VE + "spec: {memory: {limitt: 1Gi}}\n")
    for path, shown in (("fleet", "fleet/a.yaml"), ("./fleet/", "fleet/a.yaml"), ("fleet/a.yaml", "fleet/a.yaml")):
        assert entry.run(["validate", path]) == 1
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith(f"{shown}:5:17: ")
        assert said[-1] == "not valid: 1 mistake"
    monkeypatch.chdir(tmp_path / "fleet")
    assert entry.run(["validate", "."]) == 1
    assert capsys.readouterr().err.startswith("a.yaml:5:17: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get", "-o", "xml"], "invalid value for '--output' / '-o': 'xml' is not one of 'table', 'wide', 'json'"),
        (["trash", "restore"], "missing argument 'NAME|ID'; see `vectl trash restore --help`"),
        (["completion"], "missing argument 'SHELL'. Choose from: bash, zsh, fish; see `vectl completion --help`"),
        (["nosuch"], "no such command 'nosuch'; see `vectl --help`"),
    ],
)
def test_a_wrong_command_line_is_told_with_the_help_that_tells_more(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(arguments) == ExitCode.USAGE
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"vectl: {words}")


def test_each_mistake_in_the_configuration_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("instance: [1]\nbogus: 3\n")
    assert entry.run(["--config", str(config), "doctor"]) == ExitCode.ERROR
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:3] for line in said] == [
        [f"read {config}:1:1", "instance"],
        [f"read {config}:2:1", "bogus"],
    ]


def test_what_cannot_be_read_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["validate", str(tmp_path / "none")]) == ExitCode.USAGE
    assert capsys.readouterr().err == f"vectl: read {tmp_path / 'none'}: no such file or directory\n"


def test_mistakes_are_told_in_the_form_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(VE + "spec: {memory: {limitt: 1Gi}}\n")
    assert entry.run(["plan", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"{tmp_path}/a.yaml:5:")
    assert told[-1] == f"vectl: load {tmp_path}: 1 mistake in it"
    assert entry.run(["plan", str(tmp_path), "-o", "json"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["kind"], said["errors"][0]["path"]) == ("ManifestError", "spec.memory.limitt")


def test_annotations_of_a_forge_stay_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(VE + "spec: {memory: {limitt: 1Gi}}\n")
    assert entry.run(["validate", str(tmp_path), "-o", "github"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line for line in lines if line.startswith(f"::error file={tmp_path}/a.yaml,line=5,col=")]
    place = Place(file="a", line=1, column=2)
    finding = Finding(place=place, path="spec", message="50%\nlost", hint="look for it")
    assert plans._github(finding, "error") == "::error file=a,line=1,col=2::spec: 50%25%0Alost (look for it)"


def test_the_options_before_the_command_are_those_of_this_call_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("instance: lab\n")
    seen: list[str] = []

    def note() -> None:
        seen.append(context.load_config().instance.name)
        raise RefusedError("enough")

    monkeypatch.setattr(context, "need_root", note)
    monkeypatch.delenv("VECTL_CONFIG", raising=False)
    for options in (["--instance", "one"], ["--config", str(tmp_path / "config.yaml")], []):
        assert entry.run([*options, "get"]) == 4
    assert seen == ["one", "lab", "vectl"]
