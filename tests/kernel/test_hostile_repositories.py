"""Repositories that mean harm, through a real fetch: nothing outside the cache is touched, the last good stays."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha1
from pathlib import Path

import pytest

from reconciler.agent.clock import SystemClock
from reconciler.agent.pulling import Puller
from reconciler.model.commit import TrustState
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from reconciler.sources.revision import Revisions
from reconciler.sources.snapshot import FILE_MAX, Snapshot
from reconciler.state.location import GitLocation
from tests.support import gitserver
from tests.support.fleet import network
from tests.support.gitrepo import Clone, bare
from tests.support.gitserver import HttpServer
from tests.support.patience import PATIENCE
from tests.support.signing import Person, ssh_person

WHO = "Eve <eve@example.org> 1700000000 +0000"
REFUSED = frozenset(("SourceUnreadable", "SourceTooLarge", "FetchFailed", "RefMissing"))


class Evil:
    """A host that follows a repository, with a good revision in force, and somebody who may write anything to it."""

    def __init__(self, directory: Path, server: HttpServer, *, trust: str | None = None) -> None:
        self.served = bare(server.root / directory.name)
        self.clone = Clone(directory / "clone")
        self.canary = directory / "canary"
        self.canary.mkdir()
        (self.canary / "file").write_text("alive")
        self.state = directory / "state"
        instance = Instance(
            name="evil",
            host=HostName("here"),
            state_dir=str(self.state),
            run_dir=str(directory / "run"),
            cgroup="/evil",
        )
        location = GitLocation(urls=(server.url(directory.name),), trust=trust, timeout_s=60.0 * PATIENCE)
        self.puller = Puller(location, instance, clock=SystemClock())
        self.revisions = Revisions(settle_s=0.0, prune_delay_s=0.0, keep=lambda snapshot: None)

    def good(self, who: Person | None = None, more: Mapping[str, str] | None = None) -> str:
        """Push what is good, signed by somebody or by nobody."""
        self.clone.env = dict(who.env) if who else {}
        oid = self.clone.commit({"web.yaml": json.dumps(network("lan", "10.9.0.0/24")), **(more or {})})
        self.clone.push(self.served)
        return oid

    def take(self) -> Snapshot:
        in_force = self.revisions.in_force.revision if self.revisions.in_force else ""
        snapshot = asyncio.run(self.puller.pull(in_force))
        self.revisions.take(snapshot, known=(), now=0.0)
        if self.revisions.in_force is not None and self.revisions.in_force.revision == snapshot.revision:
            self.puller.accept(snapshot.revision)
        return snapshot

    def write(self, kind: str, content: bytes) -> str:
        """Put an object into the server's store, whatever git would say of it."""
        whole = b"%s %d\0" % (kind.encode(), len(content)) + content
        oid = sha1(whole, usedforsecurity=False).hexdigest()
        place = self.served / "objects" / oid[:2] / oid[2:]
        place.parent.mkdir(exist_ok=True)
        if not place.exists():
            place.write_bytes(zlib.compress(whole, 1))
        return oid

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        return self.write("tree", b"".join(b"%s %s\0" % (m.encode(), n) + bytes.fromhex(o) for m, n, o in entries))

    def commit(self, tree: str, *, headers: str = "", message: str = "evil", who: str = WHO) -> str:
        """Commit a tree on what is there, and have the branch show it."""
        parent = (self.served / "refs/heads/main").read_text().strip()
        head = f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n{headers}"
        return self.point(self.write("commit", f"{head}\n{message}\n".encode()))

    def point(self, oid: str, ref: str = "refs/heads/main") -> str:
        file = self.served / ref
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{oid}\n")
        return oid

    def blob(self, content: bytes = b"evil") -> str:
        return self.write("blob", content)

    def touched(self) -> set[str]:
        """Name what of the state is neither the mirror nor what is remembered, and what happened to the canary."""
        cache = f"source/{Path(self.puller.mirror.path).name}"
        known = ("source", "source/state.json", "source/state.json.lock")
        found = {str(path.relative_to(self.state)) for path in self.state.rglob("*")}
        ours = {path for path in found if not path.startswith(cache) and path not in known}
        canary = {str(path.relative_to(self.canary)) for path in self.canary.rglob("*")} ^ {"file"}
        if (self.canary / "file").read_text() != "alive":
            canary.add("the canary")
        hooks = {str(path) for path in Path(self.puller.mirror.path).glob("hooks/*")}
        return ours | canary | hooks

    def refuses(self, good: str, *, reasons: frozenset[str] = REFUSED) -> Snapshot:
        """Let the host look; check that it stays as it was and names a reason."""
        snapshot = self.take()
        assert not snapshot.complete
        reason = snapshot.reason or snapshot.trust.reason
        assert reason in reasons, (snapshot.reason, snapshot.problem, snapshot.trust)
        told = snapshot.problem or snapshot.trust.message
        assert told
        assert self.revisions.in_force is not None
        assert self.revisions.in_force.revision == good
        assert self.touched() == set()
        return snapshot


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    with gitserver.http(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def evil(tmp_path: Path, server: HttpServer) -> Evil:
    return Evil(tmp_path, server)


@pytest.fixture
def ann(tmp_path: Path) -> Person:
    return ssh_person(tmp_path, "ann")


@pytest.fixture
def guarded(tmp_path: Path, server: HttpServer, ann: Person) -> Evil:
    """A host that asks for signatures of Ann, and has a good revision of hers."""
    trust = tmp_path / "trust.yaml"
    trust.write_text(json.dumps({"signers": [ann.signer()]}))
    made = Evil(tmp_path, server, trust=str(trust))
    good = made.good(ann)
    assert made.take().complete
    assert made.revisions.in_force is not None
    assert made.revisions.in_force.revision == good
    return made


def dotdot(evil: Evil) -> None:
    inner = evil.tree(("100644", b"web.yaml", evil.blob()))
    evil.commit(evil.tree(("40000", b"..", inner)))


def dotdot_in_a_name(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"../../canary/web.yaml", evil.blob())))


def git_folder(evil: Evil) -> None:
    hooks = evil.tree(("100755", b"post-checkout", evil.blob(b"#!/bin/sh\ntouch canary\n")))
    evil.commit(evil.tree(("40000", b".GIT", evil.tree(("40000", b"hooks", hooks)))))


def link_in_place_of_a_manifest(evil: Evil) -> None:
    evil.commit(evil.tree(("120000", b"web.yaml", evil.blob(str(evil.canary / "file").encode()))))


def linked_gitmodules(evil: Evil) -> None:
    evil.commit(evil.tree(("120000", b".gitmodules", evil.blob(b"/etc/passwd"))))


def submodule_in_place_of_a_manifest(evil: Evil) -> None:
    evil.commit(evil.tree(("160000", b"web.yaml", "ab" * 20)))


def submodule_that_is_an_option(evil: Evil) -> None:
    """Source: CVE-2018-17456."""
    text = f'[submodule "x"]\n\tpath = x\n\turl = -u./touch {evil.canary}/x\n'
    evil.commit(evil.tree(("100644", b".gitmodules", evil.blob(text.encode())), ("160000", b"x", "ab" * 20)))


def submodule_of_another_folder(evil: Evil) -> None:
    """Source: CVE-2018-11235."""
    text = f'[submodule "../../{evil.canary}"]\n\tpath = x\n\turl = ./x\n'
    evil.commit(evil.tree(("100644", b".gitmodules", evil.blob(text.encode())), ("160000", b"x", "ab" * 20)))


def large_file(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"web.yaml", evil.blob(os.urandom(FILE_MAX + 1)))))


def zip_bomb(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"web.yaml", evil.blob(bytes(64 << 20)))))


def tree_without_end(evil: Evil) -> None:
    oid, mode = evil.blob(), "100644"
    for _ in range(10):
        oid, mode = evil.tree(*((mode, b"d%d" % number, oid) for number in range(10))), "40000"
    evil.commit(oid)


def quarter_of_a_million_entries(evil: Evil) -> None:
    files = evil.tree(*(("100644", b"%03d" % number, evil.blob()) for number in range(500)))
    evil.commit(evil.tree(*(("40000", b"%03d" % number, files) for number in range(500))))


def deep_folders(evil: Evil) -> None:
    oid, mode = evil.blob(), "100644"
    for _ in range(60):
        oid, mode = evil.tree((mode, b"web.yaml", oid)), "40000"
    evil.commit(oid)


def folders_deeper_than_a_stack(evil: Evil) -> None:
    oid, mode = evil.blob(), "100644"
    for _ in range(3000):
        oid, mode = evil.tree((mode, b"d", oid)), "40000"
    evil.commit(oid)


def names_that_are_one_elsewhere(evil: Evil) -> None:
    oid = evil.blob()
    evil.commit(evil.tree(("100644", b"Web.yaml", oid), ("100644", b"web.yaml", oid)))


def name_twice(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"web.yaml", evil.blob()), ("100644", b"web.yaml", evil.blob(b"other"))))


def name_that_moves_the_cursor(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"\x1b[2J\n.yaml", evil.blob())))


def name_that_is_no_text(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"\xff\xfe.yaml", evil.blob())))


def branch_of_a_blob(evil: Evil) -> None:
    evil.point(evil.blob())


def branch_that_went(evil: Evil) -> None:
    (evil.served / "refs/heads/main").unlink()
    evil.point(evil.blob(), "refs/tags/other")


def missing_tree(evil: Evil) -> None:
    evil.commit("cd" * 20)


def cut_object(evil: Evil) -> None:
    blob = evil.blob(os.urandom(4096))
    place = evil.served / "objects" / blob[:2] / blob[2:]
    place.write_bytes(place.read_bytes()[:100])
    evil.commit(evil.tree(("100644", b"web.yaml", blob)))


def object_of_another_name(evil: Evil) -> None:
    blob, other = evil.blob(os.urandom(4096)), evil.blob(os.urandom(4096))
    objects = evil.served / "objects"
    (objects / blob[:2] / blob[2:]).write_bytes((objects / other[:2] / other[2:]).read_bytes())
    evil.commit(evil.tree(("100644", b"web.yaml", blob)))


def date_beyond_time(evil: Evil) -> None:
    tree = evil.tree(("100644", b"web.yaml", evil.blob()))
    evil.commit(tree, who="Eve <eve@example.org> 99999999999999999999999 +0000")


def commit_without_people(evil: Evil) -> None:
    tree = evil.tree(("100644", b"web.yaml", evil.blob()))
    evil.point(evil.write("commit", f"tree {tree}\n\nevil\n".encode()))


def endless_message(evil: Evil) -> None:
    evil.commit(evil.tree(("100644", b"web.yaml", evil.blob())), message="x" * (20 << 20))


HARM: tuple[tuple[Callable[[Evil], None], str], ...] = (
    (dotdot, "FetchFailed"),
    (dotdot_in_a_name, "FetchFailed"),
    (git_folder, "FetchFailed"),
    (link_in_place_of_a_manifest, "SourceUnreadable"),
    (linked_gitmodules, "FetchFailed"),
    (submodule_in_place_of_a_manifest, "SourceUnreadable"),
    (submodule_that_is_an_option, "FetchFailed"),
    (submodule_of_another_folder, "FetchFailed"),
    (large_file, "SourceTooLarge"),
    (zip_bomb, "SourceTooLarge"),
    (tree_without_end, "SourceTooLarge"),
    (quarter_of_a_million_entries, "SourceTooLarge"),
    (deep_folders, "SourceTooLarge"),
    (folders_deeper_than_a_stack, "SourceTooLarge"),
    (names_that_are_one_elsewhere, "SourceUnreadable"),
    (name_twice, "FetchFailed"),
    (name_that_moves_the_cursor, "SourceUnreadable"),
    (name_that_is_no_text, "SourceUnreadable"),
    (branch_of_a_blob, "RefMissing"),
    (branch_that_went, "RefMissing"),
    (missing_tree, "FetchFailed"),
    (cut_object, "FetchFailed"),
    (object_of_another_name, "FetchFailed"),
    (date_beyond_time, "FetchFailed"),
    (commit_without_people, "FetchFailed"),
    (endless_message, "SourceTooLarge"),
)


@pytest.mark.parametrize(("harm", "reason"), HARM, ids=[harm.__name__ for harm, _ in HARM])
def test_a_hostile_repository_changes_nothing_and_is_told_of(
    evil: Evil, harm: Callable[[Evil], None], reason: str
) -> None:
    good = evil.good()
    assert evil.take().complete
    harm(evil)
    told = evil.refuses(good, reasons=frozenset((reason,)))
    assert "\x1b" not in told.problem


def test_a_repository_that_means_well_again_is_followed_again(evil: Evil) -> None:
    good = evil.good()
    assert evil.take().complete
    for harm in (dotdot, large_file, branch_of_a_blob):
        harm(evil)
        assert not evil.take().complete
        evil.point(good)
        assert evil.take().complete


def test_what_a_checkout_would_run_is_only_read(evil: Evil) -> None:
    """Attributes that name filters, hooks of the server and its other refs come to nothing: nothing is checked out."""
    hook = evil.served / "hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {evil.canary}/hook\n")
    hook.chmod(0o755)
    more = {".gitattributes": "* filter=lfs diff=evil ident\n", ".lfsconfig": "[lfs]\n\turl = file:///\n"}
    good = evil.good(None, more)
    evil.point(good, f"refs/heads/--upload-pack=touch {evil.canary}/option")
    evil.point(evil.blob(), "refs/notes/vectl-evil")
    snapshot = evil.take()
    assert snapshot.complete
    assert list(snapshot.files) == ["web.yaml"]
    assert evil.touched() == set()


def refuses_to_trust(evil: Evil, good: str, reason: str, *words: str) -> None:
    snapshot = evil.refuses(good, reasons=frozenset((reason,)))
    assert snapshot.trust.state is TrustState.REFUSED
    assert all(word in snapshot.trust.message for word in words), snapshot.trust


def test_an_unsigned_commit_is_not_taken_whatever_the_server_puts_in_its_place(guarded: Evil, ann: Person) -> None:
    good = guarded.clone.git("rev-parse", "HEAD")
    bad = guarded.good(None, {"x.yaml": ""})
    guarded.clone.env = dict(ann.env)
    guarded.clone.git("checkout", "--quiet", good)
    other = guarded.clone.commit({"x.yaml": ""})
    guarded.clone.push(guarded.served, "HEAD:refs/heads/other")
    guarded.point(other, f"refs/replace/{bad}")
    (guarded.served / "info").mkdir(exist_ok=True)
    (guarded.served / "info/grafts").write_text(f"{bad} {other}\n")
    refuses_to_trust(guarded, good, "Unsigned", bad[:12], f"accept-rewrite {good[:12]} {bad[:12]}")


def test_a_stranger_may_sign_as_he_likes(guarded: Evil, tmp_path: Path) -> None:
    good = guarded.clone.git("rev-parse", "HEAD")
    bad = guarded.good(ssh_person(tmp_path, "eve"), {"x.yaml": ""})
    refuses_to_trust(guarded, good, "UnknownSigner", bad[:12], "SHA256:")


def test_a_signature_that_was_made_for_another_commit_is_seen(guarded: Evil) -> None:
    good = guarded.clone.git("rev-parse", "HEAD")
    text = guarded.clone.git("cat-file", "commit", good)
    signature = text[text.index("gpgsig") : text.index("-----END SSH SIGNATURE-----") + 28].rstrip("\n")
    bad = guarded.commit(guarded.tree(("100644", b"web.yaml", guarded.blob())), headers=f"{signature}\n")
    refuses_to_trust(guarded, good, "BadSignature", bad[:12])


def test_an_old_commit_of_ours_is_not_played_back(guarded: Evil, ann: Person) -> None:
    first = guarded.clone.git("rev-parse", "HEAD")
    good = guarded.good(ann, {"more.yaml": ""})
    assert guarded.take().complete
    guarded.point(first)
    refuses_to_trust(guarded, good, "NotFastForward", first[:12], "older")


def test_a_rewritten_history_is_not_taken_though_it_is_signed(guarded: Evil, ann: Person) -> None:
    good = guarded.clone.git("rev-parse", "HEAD")
    guarded.clone.env = dict(ann.env)
    guarded.clone.git("checkout", "--quiet", "--orphan", "new")
    bad = guarded.clone.commit({"web.yaml": json.dumps(network("lan", "10.9.1.0/24"))})
    guarded.clone.push(guarded.served, "+HEAD:refs/heads/main")
    refuses_to_trust(guarded, good, "NotFastForward", bad[:12], f"accept-rewrite {good[:12]} {bad[:12]}")


def test_notes_without_end_keep_nobody_from_the_manifests(guarded: Evil, ann: Person) -> None:
    oid, mode = guarded.blob(), "100644"
    for _ in range(8):
        oid, mode = guarded.tree(*((mode, b"%02d" % number, oid) for number in range(10))), "40000"
    notes = guarded.write("commit", f"tree {oid}\nauthor {WHO}\ncommitter {WHO}\n\nnotes\n".encode())
    guarded.point(notes, "refs/notes/vectl")
    good = guarded.good(ann, {"more.yaml": ""})
    assert guarded.take().complete
    assert guarded.revisions.in_force is not None
    assert guarded.revisions.in_force.revision == good
    assert guarded.touched() == set()


def test_a_trust_file_that_breaks_lets_nothing_new_in(guarded: Evil, ann: Person, tmp_path: Path) -> None:
    good = guarded.clone.git("rev-parse", "HEAD")
    guarded.good(ann, {"more.yaml": ""})
    (tmp_path / "trust.yaml").write_text("signers: [")
    refuses_to_trust(guarded, good, "TrustUnusable", "trust.yaml")
    (tmp_path / "trust.yaml").unlink()
    refuses_to_trust(guarded, good, "TrustUnusable", "found none")
