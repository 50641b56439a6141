"""`plan --from A --to B` in a person's clone: what it prints is held against files of each case."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from reconciler.cli.entry import run
from reconciler.kernel.git import Repository
from reconciler.model import exchange
from reconciler.model.compute import ComputeUse, Limit
from tests.support import twins
from tests.support.gitrepo import Clone
from tests.support.outputs import misfits
from tests.support.rig import LAN, Rig, fleet_of, on_lan, scratch_state, text_of, ve

CASES = Path(__file__).parents[2] / "cases" / "between"
NAMES = sorted(path.name for path in CASES.iterdir())
FORMS = {"text": "plan.txt", "json": "plan.json", "markdown": "plan.md"}
WEB = "apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {name: web1}\nspec: {}\n"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this machine's configuration, name and caches out of it."""
    config = tmp_path / "config.yaml"
    config.write_text("host: node-a\n")
    monkeypatch.setenv("VECTL_CONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """Give a repository without commits."""
    return Clone(tmp_path / "clone")


def files_of(directory: Path, clone: Clone) -> dict[str, str | None]:
    """Give what a revision is to hold, and what of the present one is to go."""
    wanted: dict[str, str | None] = {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*.yaml")
    }
    there = {name: None for name in clone.git("ls-files").split() if name not in wanted}
    return wanted | there


def two_revisions(name: str, clone: Clone) -> None:
    """Commit both revisions of a case, the second one on a branch."""
    clone.commit(files_of(CASES / name / "base", clone), "base")
    clone.git("checkout", "--quiet", "-b", "change")
    clone.commit(files_of(CASES / name / "head", clone), "head")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_the_case_says(name: str, form: str, clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    two_revisions(name, clone)
    code = run(["plan", str(clone.path), "--from", "main", "-o", form])
    found = f"{capsys.readouterr().out}exit {code}\n"
    golden = CASES / name / FORMS[form]
    if os.environ.get("VECTL_GOLDENS") == "write":
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_of_both_revisions_changes_nothing(
    name: str, clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    two_revisions(name, clone)
    said = []
    for start, end in (
        ("main", "main"),
        ("main", "change"),
        ("main", "change"),
        ("change", "main"),
        ("main", "change"),
    ):
        code = run(["plan", str(clone.path), "--from", start, "--to", end, "-o", "json"])
        said.append((code, *capsys.readouterr()))
    assert said[1] == said[2] == said[4]


def test_blobs_are_read_together_whatever_of_them_is_kept(
    clone: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = "apiVersion: ve/v1\nkind: Profile\nmetadata: {name: p}\nspec: {processes: 100}\n"
    ves = {f"{n}.yaml": WEB.replace("web1", f"web{n}").replace("{}", "{profile: [p]}") for n in range(9)}
    clone.commit({"p.yaml": profile, **ves})
    assert run(["plan", str(clone.path), "--from", "HEAD"]) == 0
    for file in (tmp_path / "cache" / "vectl").glob("manifests-*"):
        file.unlink()
    clone.commit({"p.yaml": profile.replace("100", "50")})
    reads: list[int] = []
    original = Repository.objects

    def told_of(repository: Repository, oids: Iterable[str]) -> dict[str, bytes]:
        found = original(repository, oids)
        reads.append(len(found))
        return found

    monkeypatch.setattr(Repository, "objects", told_of)
    assert run(["plan", str(clone.path), "--from", "HEAD~1"]) == 0
    assert "processes" in capsys.readouterr().out
    assert sorted(filter(None, reads)) == [1, 10]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mistakes"])
def test_the_json_is_of_the_published_schema(name: str, clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    two_revisions(name, clone)
    run(["plan", str(clone.path), "--from", "main", "-o", "json"])
    assert misfits("plan-between", json.loads(capsys.readouterr().out)) == []


def test_a_folder_of_the_repository_is_a_fleet_of_its_own(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.commit({"one/a.yaml": WEB, "two/a.yaml": WEB})
    clone.commit({"one/a.yaml": WEB.replace("{}", "{processes: 9}"), "two/broken.yaml": "]"})
    assert run(["plan", str(clone.path / "one"), "--from", "HEAD~1"]) == 0
    assert "change web1 processes" in capsys.readouterr().out
    assert run(["plan", str(clone.path / "two"), "--from", "HEAD~1", "-o", "markdown"]) == 1
    assert "<!-- vectl-plan two -->" in capsys.readouterr().out


def test_what_came_to_the_base_since_is_not_undone(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.commit({"a.yaml": WEB})
    clone.git("checkout", "--quiet", "-b", "change")
    clone.commit({"a.yaml": WEB.replace("{}", "{processes: 9}")})
    clone.git("checkout", "--quiet", "main")
    clone.commit({"b.yaml": WEB.replace("web1", "web2")})
    assert run(["plan", str(clone.path), "--from", "main", "--to", "change", "--detailed-exitcode"]) == 2
    found = capsys.readouterr().out
    assert "web2" not in found
    assert "has moved on" in found


def test_a_clone_without_history_is_said_to_be_one(
    clone: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.commit({"a.yaml": WEB})
    clone.git("checkout", "--quiet", "-b", "change")
    clone.commit({"a.yaml": WEB.replace("{}", "{processes: 9}")})
    clone.git("checkout", "--quiet", "main")
    clone.commit({"b.yaml": WEB.replace("web1", "web2")})
    shallow = Clone(tmp_path / "shallow")
    shallow.git(
        "fetch", "--quiet", "--depth=1", f"file://{clone.path}", "main:main", "change:change", "--update-head-ok"
    )
    assert run(["plan", str(shallow.path), "--from", "main", "--to", "change"]) == 0
    assert "found no commit from which both" in capsys.readouterr().out


def test_a_base_that_is_not_valid_is_not_what_hosts_hold_to(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.commit({"a.yaml": WEB})
    clone.commit({"a.yaml": "]"})
    clone.commit({"a.yaml": WEB.replace("{}", "{processes: 9}")})
    assert run(["plan", str(clone.path), "--from", "HEAD~1"]) == 0
    found = capsys.readouterr().out
    assert "change web1 processes" in found
    assert "is not valid; compared with" in found


def test_a_host_that_the_manifests_do_not_name_is_refused(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    two_revisions("shop", clone)
    assert run(["plan", str(clone.path), "--from", "main", "--host", "node-z"]) == 64
    assert "node-a, node-b, node-c" in capsys.readouterr().err
    assert run(["plan", str(clone.path), "--from", "main", "--host", "node-c"]) == 0
    assert "No changes on node-c." in capsys.readouterr().out


def test_a_fleet_of_one_is_on_the_host_that_is_named(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    two_revisions("moved", clone)
    assert run(["plan", str(clone.path), "--from", "main", "--host", "shop", "-o", "json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["action_hashes"]) == ["shop"]


def test_what_is_no_repository_or_no_revision_is_said_so(
    clone: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.commit({"a.yaml": WEB})
    assert run(["plan", str(tmp_path), "--from", "main"]) == 64
    assert "expected a directory in a git repository" in capsys.readouterr().err
    assert run(["plan", str(clone.path), "--from", "nowhere"]) == 64
    assert "no such commit" in capsys.readouterr().err
    assert run(["plan"]) == 64


def seen_by_somebody(file: Path, change: Callable[[Rig], None], *, at: float | None = None) -> None:
    """Export what is seen of a host that was brought to a revision, and that somebody changed since."""
    with scratch_state() as state:
        rig = Rig(state=state)
        rig.converge(fleet_of(LAN, ve("web1", on_lan(11)), ve("web2")))
        change(rig)
        file.write_bytes(exchange.encode_observation("node-a", twins.look(rig.twin), at=at))


def test_against_what_was_seen_drift_and_use_are_told(
    clone: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(rig: Rig) -> None:
        rig.world.set_limit(rig.uid("web2"), Limit.PROCESSES, 7)
        rig.world.set_use(rig.uid("web1"), use=ComputeUse(memory=400 << 20))

    (tmp_path / "config.yaml").write_text("host: node-a\ninstance: tw\n")
    clone.commit({"a.yaml": text_of(LAN, ve("web1", on_lan(11)), ve("web2")).decode()})
    clone.commit({"a.yaml": text_of(LAN, ve("web1", f"{on_lan(11)}, memory: {{limit: 256Mi}}"), ve("web2")).decode()})
    seen_by_somebody(tmp_path / "seen.json", change)
    words = ["plan", str(clone.path), "--from", "HEAD~1"]
    assert run([*words, "--observed", str(tmp_path / "seen.json"), "-o", "markdown"]) == 0
    found = capsys.readouterr().out
    assert "**Below what is in use**\n\n- `node-a/web1` `memory.limit` `512Mi` → `256Mi`" in found
    assert "**Changed by hand, will be overwritten**\n\n- `node-a/web2` `processes` `7` → `4096`" in found
    assert "its age is not known" in found
    assert run([*words, "-o", "json"]) == 0
    reviewed = json.loads(capsys.readouterr().out)["action_hashes"]
    assert run([*words, "--observed", str(tmp_path / "seen.json"), "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["action_hashes"] == reviewed == {"node-a": printed["hosts"][0]["action_hash"]}
    assert misfits("plan-between", printed) == []


def test_one_observation_of_each_host(clone: Clone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_revisions("moved", clone)
    seen_by_somebody(tmp_path / "seen.json", lambda rig: None, at=5.0)
    shutil.copy(tmp_path / "seen.json", tmp_path / "again.json")
    twice = ["--observed", str(tmp_path / "seen.json"), "--observed", str(tmp_path / "again.json")]
    assert run(["plan", str(clone.path), "--from", "main", *twice]) == 64
    assert "is an observation of host 'node-a' too" in capsys.readouterr().err
    assert run(["plan", str(clone.path), "--from", "main", *twice[:2], "-o", "json"]) in (0, 4)
    assert json.loads(capsys.readouterr().out)["observed"] == {"node-a": 5.0}
