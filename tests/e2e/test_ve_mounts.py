"""Claims about directories of the host that VEs see: theirs to use, and nothing of the host's beside them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import COMMAND_S, Fleet, Value, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-mounts")


def policy_of(base: Path, *more: str) -> str:
    """Give a policy that allows what the tests mount, and more directories."""
    others = "".join(f", {{source: {source}}}" for source in more)
    return f"mounts: [{{source: {base}/shared}}, {{source: {base}/only-read, readOnly: true}}{others}]"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    base = tmp_path_factory.getbasetemp()
    policy = base / "mounts-policy.yaml"
    policy.write_text(policy_of(base))
    policy.chmod(0o600)
    for name in ("shared/a", "shared/b", "only-read"):
        (base / name).mkdir(parents=True, exist_ok=True)
        (base / name / "f").write_text(f"in {name}")
    with made_fleet(base, ve("web1"), policy=str(policy), resync="1s") as made:
        made.start_agent()
        made.await_ready("web1")
        yield made


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "shared"


def mount(fleet: Fleet, *mounts: Value) -> Ve:
    """Have these directories mounted, and see that it took no restart."""
    one = fleet.ve("web1")
    before = one.init
    fleet.put("all.yaml", ve("web1", mounts=list(mounts)))
    fleet.await_ready("web1")
    assert one.init == before
    return one


def mounted(one: Ve, target: str) -> list[str]:
    """Give the options of what is mounted at a path in a VE."""
    return [
        line.split()[5] for line in one.run("cat", "/proc/self/mountinfo").splitlines() if line.split()[4] == target
    ]


def as_its_root(one: Ve, *command: str) -> int:
    """Run an applet of the VE as its root, with all capabilities over the VE and without a filter; give its status."""
    enter = ["nsenter", f"--target={one.pid}", "--user", "--mount", "--setuid=0", "--setgid=0", "--root", "--wd"]
    return subprocess.run([*enter, "/bin/busybox", *command], timeout=COMMAND_S).returncode


def test_a_directory_comes_live_and_its_files_are_the_ves_own(fleet: Fleet, shared: Path) -> None:
    one = mount(fleet, {"source": str(shared / "a"), "target": "/srv/data"})
    assert one.run("cat", "/srv/data/f") == "in shared/a"
    one.run("touch", "/srv/data/made")
    one.run("chown", "1000:1000", "/srv/data/made")
    made = (shared / "a/made").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1000)
    (shared / "a/made").unlink()


def test_a_directory_that_is_taken_out_of_the_manifest_goes_live(fleet: Fleet, shared: Path) -> None:
    mount(fleet, {"source": str(shared / "a"), "target": "/srv/data"})
    one = mount(fleet)
    assert mounted(one, "/srv/data") == []
    assert os.listdir(shared / "a") == ["f"]


def test_a_directory_is_changed_for_another_live(fleet: Fleet, shared: Path) -> None:
    mount(fleet, {"source": str(shared / "a"), "target": "/srv/data"})
    one = mount(fleet, {"source": str(shared / "b"), "target": "/srv/data"})
    assert one.run("cat", "/srv/data/f") == "in shared/b"
    assert len(mounted(one, "/srv/data")) == 1


def test_read_only_comes_live_and_the_ves_root_cannot_undo_it(fleet: Fleet, shared: Path) -> None:
    mount(fleet, {"source": str(shared / "a"), "target": "/srv/data"})
    one = mount(fleet, {"source": str(shared / "a"), "target": "/srv/data", "readOnly": True})
    assert as_its_root(one, "mount", "-o", "remount,bind,rw", "/srv/data") != 0
    assert one.try_run("touch", "/srv/data/new")[0] != 0
    assert os.listdir(shared / "a") == ["f"]


def test_what_the_ves_root_unmounts_is_put_back(fleet: Fleet, shared: Path) -> None:
    one = mount(fleet, {"source": str(shared / "a"), "target": "/srv/data"})
    assert as_its_root(one, "umount", "/srv/data") == 0
    until(lambda: mounted(one, "/srv/data"), "the mount to be put back")
    assert one.run("cat", "/srv/data/f") == "in shared/a"


def test_a_boot_brings_the_directories_before_init_begins(fleet: Fleet, shared: Path) -> None:
    one = mount(fleet, {"source": str(shared / "a"), "target": "/srv/data"})
    before = one.init
    fleet.vectl("restart", "web1")
    fleet.await_ready("web1")
    assert one.init != before
    assert one.run("cat", "/srv/data/f") == "in shared/a"
    assert len(mounted(one, "/srv/data")) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/etc", "/etc lies in none of"),
        ("{base}/only-read", "may be mounted read-only only"),
        ("{base}/shared/none", "this host has no such directory"),
        ("{base}/shared/link", "expected no symbolic link on the way"),
    ],
)
def test_a_source_that_may_not_or_cannot_be_shown_is_refused(
    fleet: Fleet, shared: Path, source: str, said: str
) -> None:
    link = shared / "link"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc")
    fleet.put("all.yaml", ve("web1", mounts=[{"source": source.format(base=shared.parent), "target": "/srv/x"}]))
    until(lambda: said in str(fleet.conditions("web1").values()), f"a condition to say {said!r}")
    assert mounted(fleet.ve("web1"), "/srv/x") == []


@pytest.mark.parametrize("part", ["", "/state", "/state/pool", "/run/ves"])
def test_what_is_vectls_own_is_never_shown_whatever_the_policy(fleet: Fleet, shared: Path, part: str) -> None:
    (shared.parent / "mounts-policy.yaml").write_text(policy_of(shared.parent, str(fleet.directory)))
    source = f"{fleet.directory}{part}"
    fleet.put("all.yaml", ve("web1", mounts=[{"source": source, "target": "/srv/x"}]))
    said = f"mount {source}: "
    until(lambda: said in str(fleet.conditions("web1").values()), f"a condition to say {said!r}")
    assert "vectl's own" in str(fleet.conditions("web1").values())
    assert mounted(fleet.ve("web1"), "/srv/x") == []
