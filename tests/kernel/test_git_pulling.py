"""What is pulled is judged before it is read; what is refused, or damaged, changes nothing that is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.agent.clock import SystemClock
from reconciler.agent.pulling import Puller
from reconciler.model.commit import TrustState
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from reconciler.model.trust import Rewrite
from reconciler.sources.snapshot import Snapshot
from reconciler.state import layout
from reconciler.state.location import GitLocation
from reconciler.state.source_state import SourceState
from tests.support import gitserver
from tests.support.gitrepo import Clone, bare
from tests.support.gitserver import HttpServer
from tests.support.patience import PATIENCE
from tests.support.signing import Person, ssh_person


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    state = str(tmp_path / "state")
    return Instance(name="pull", host=HostName("here"), state_dir=state, run_dir=f"{state}/run", cgroup="/pull")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    bare(tmp_path / "served" / "fleet.git")
    with gitserver.http(tmp_path / "served") as made:
        yield made


@pytest.fixture
def ann(tmp_path: Path) -> Person:
    return ssh_person(tmp_path, "ann")


@pytest.fixture
def clone(tmp_path: Path, server: HttpServer, ann: Person) -> Clone:
    """Ann's clone, with one commit that she signed and pushed."""
    made = Clone(tmp_path / "clone", env=ann.env)
    commit(made, server, "one")
    return made


def commit(clone: Clone, server: HttpServer, text: str, *options: str) -> str:
    oid = clone.commit({"web.yaml": text}, f"set it to {text}", *options)
    clone.push(server.root / "fleet.git", "HEAD:refs/heads/main", "--force")
    return oid


def puller(server: HttpServer, instance: Instance, *, trust: Path | None = None) -> Puller:
    location = GitLocation(
        urls=(server.url("fleet.git"),), timeout_s=30.0 * PATIENCE, trust=None if trust is None else str(trust)
    )
    return Puller(location, instance, clock=SystemClock())


def pull(by: Puller, in_force: str = "", *, with_steps: bool = False) -> Snapshot:
    return asyncio.run(by.pull(in_force, with_steps=with_steps))


def verdict(found: Snapshot) -> tuple[TrustState, str]:
    return found.trust.state, found.trust.reason


def trust_file(directory: Path, *people: Person) -> Path:
    file = directory / "trust.yaml"
    lines = [f"  - {{name: {one.name}, ssh: {one.public['ssh']!r}}}" for one in people]
    file.write_text("\n".join(["signers:", *lines]) + "\n")
    file.chmod(0o600)
    return file


def test_nothing_new_is_neither_read_nor_judged_again(
    server: HttpServer, instance: Instance, clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = puller(server, instance)
    first = pull(by)
    assert (first.files, first.complete, first.revision) == ({"web.yaml": b"one"}, True, clone.git("rev-parse", "HEAD"))
    with monkeypatch.context() as patched:
        patched.setattr(Puller, "_look", lambda *_: pytest.fail("it was looked at again"))
        again = pull(by, first.revision)
    assert again == first
    assert again.files is first.files


def test_a_signed_commit_is_taken_and_an_unsigned_one_is_not_even_read(
    tmp_path: Path, server: HttpServer, instance: Instance, clone: Clone, ann: Person
) -> None:
    by = puller(server, instance, trust=trust_file(tmp_path, ann))
    first = pull(by)
    assert (verdict(first), first.way[-1].signer) == ((TrustState.TRUSTED, "Signed"), "ann")
    by.accept(first.revision)
    second = commit(clone, server, "two", "--no-gpg-sign")
    refused = pull(by, first.revision)
    assert (verdict(refused), refused.files, refused.complete) == ((TrustState.REFUSED, "Unsigned"), {}, False)
    assert second[:12] in refused.trust.message
    clone.git("commit", "--quiet", "--amend", "--no-edit", "-S")
    clone.push(server.root / "fleet.git", "HEAD:refs/heads/main", "--force")
    third = pull(by, first.revision)
    assert (verdict(third), third.files) == ((TrustState.TRUSTED, "Signed"), {"web.yaml": b"two"})


def test_who_is_trusted_may_be_said_after_the_commit_came(
    tmp_path: Path, server: HttpServer, instance: Instance, clone: Clone, ann: Person
) -> None:
    bob = ssh_person(tmp_path, "bob")
    file = trust_file(tmp_path, bob)
    by = puller(server, instance, trust=file)
    assert verdict(pull(by)) == (TrustState.REFUSED, "UnknownSigner")
    trust_file(tmp_path, ann, bob)
    assert verdict(pull(by)) == (TrustState.TRUSTED, "Signed")
    file.chmod(0o666)
    commit(clone, server, "two")
    assert verdict(pull(by))[1] == "TrustUnusable"
    file.unlink()
    assert verdict(pull(by))[1] == "TrustUnusable"


def test_a_history_that_was_rewritten_is_taken_only_on_somebodys_word(
    server: HttpServer, instance: Instance, clone: Clone
) -> None:
    by = puller(server, instance)
    first = pull(by)
    by.accept(first.revision)
    clone.git("commit", "--quiet", "--amend", "-m", "another one")
    clone.push(server.root / "fleet.git", "HEAD:refs/heads/main", "--force")
    new = clone.git("rev-parse", "HEAD")
    refused = pull(puller(server, instance), first.revision)
    assert verdict(refused) == (TrustState.REFUSED, "NotFastForward")
    assert f"vectl source accept-rewrite {first.revision[:12]} {new[:12]}" in refused.trust.message
    rewrite = Rewrite(old=first.revision, new=new, by="root", at=0.0)
    SourceState(instance.state_dir).accept(by.location.name, rewrite)
    taken = pull(by, first.revision)
    assert (taken.complete, taken.revision) == (True, new)


def test_a_commit_that_was_never_in_force_binds_nobody(server: HttpServer, instance: Instance, clone: Clone) -> None:
    by = puller(server, instance)
    first = pull(by)
    by.accept(first.revision)
    commit(clone, server, "not valid")
    assert pull(by, first.revision).complete
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    second = commit(clone, server, "two")
    assert pull(by, first.revision).revision == second


def test_a_copy_is_good_enough_and_it_is_told_why_it_was_asked(
    server: HttpServer, instance: Instance, clone: Clone
) -> None:
    location = GitLocation(urls=(server.url("other.git"), server.url("fleet.git")), timeout_s=30.0 * PATIENCE)
    found = pull(Puller(location, instance, clock=SystemClock()))
    assert found.complete
    assert "other.git" in found.problem


def test_a_damaged_mirror_is_made_anew(server: HttpServer, instance: Instance, clone: Clone) -> None:
    by = puller(server, instance)
    pull(by)
    second = commit(clone, server, "two")
    mirror = Path(layout.mirror_dir(instance, by.location.urls))
    for damage in (_truncate, _behead, _scribble):
        damage(mirror)
        found = pull(puller(server, instance))
        assert (found.revision, found.files) == (second, {"web.yaml": b"two"}), found.problem


def _truncate(mirror: Path) -> None:
    for pack in mirror.rglob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:20])


def _behead(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def _scribble(mirror: Path) -> None:
    (mirror / "refs/vectl/head").write_text("not a commit\n")


def test_mirrors_of_other_addresses_are_cleared_away(server: HttpServer, instance: Instance, clone: Clone) -> None:
    by, other = puller(server, instance), GitLocation(urls=("https://git.example.org/other.git",))
    pull(by)
    old = Path(layout.mirror_dir(instance, other.urls))
    (old / "objects").mkdir(parents=True)
    by.sweep()
    assert not old.exists()
    assert pull(puller(server, instance)).complete
    assert {path.name.partition(".")[0] for path in old.parent.iterdir()} == {Path(by.mirror.path).name[:16]}


def test_each_step_of_the_way_is_read_where_plans_are_reviewed(
    server: HttpServer, instance: Instance, clone: Clone
) -> None:
    by = puller(server, instance)
    first = pull(by)
    by.accept(first.revision)
    document = '{"apiVersion": "ve/v1", "kind": "VirtualEnvironment", "metadata": {"name": "web"}, "spec": {}}'
    second, third = (commit(clone, server, text) for text in (document, "not: valid"))
    commit(clone, server, document.replace("web", "db"))
    pull(by, first.revision, with_steps=True)
    strides = by.strides(first.revision)
    assert [stride.revision for stride in strides] == [second, third]
    assert strides[0].fleet is not None
    assert set(strides[0].fleet.ves) == {"web"}
    assert strides[1].fleet is None
    assert by.strides("another") == ()
