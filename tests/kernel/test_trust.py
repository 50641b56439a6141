"""Only what signers vouch for is taken: shown with signatures made by ssh-keygen, gpg and git themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reconciler.kernel.git import AS_SIGNED, Repository
from reconciler.model.commit import TrustState
from reconciler.model.trust import Remembered, Rewrite, TrustPolicy
from reconciler.sources import notes
from reconciler.sources.verify import Verdict, Verification
from reconciler.sources.vouched import vouched
from reconciler.state.trust import parse_trust
from tests.support.gitrepo import Clone
from tests.support.patience import PATIENCE
from tests.support.signing import Person, at, gpg_home, gpg_person, signed_note, ssh_person

NOW = 1_700_000_000
DAY = 86_400
HASH = "a" * 64


class World:
    """A clone in which people commit, and what a host makes of it."""

    def __init__(self, path: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.clone = Clone(path / "clone", env=env)
        self.base = self.commit(None, {"a.yaml": "0", "web/b.yaml": "0"})
        self.signers: list[dict[str, object]] = []
        self.forges: list[dict[str, object]] = []
        self.remembered = Remembered(trusted=self.base, signed=True, latest=NOW)

    def commit(
        self, who: Person | None, files: Mapping[str, str | None], message: str = "change", when: int = NOW
    ) -> str:
        self.clone.env = self.env(who, when)
        return self.clone.commit(files, message)

    def merge(self, who: Person | None, *branches: str, when: int = NOW) -> str:
        self.clone.env = self.env(who, when)
        self.clone.git("merge", "--quiet", "--no-ff", "-m", "merge", *branches)
        return self.clone.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str) -> None:
        self.clone.git("checkout", "--quiet", "-B", name, start)

    @staticmethod
    def env(who: Person | None, when: int) -> dict[str, str]:
        return {**(who.env if who else {}), **at(when)}

    def policy(self, anchor: str | None = None) -> TrustPolicy:
        content = {"signers": self.signers, "mergeKeys": self.forges} | ({"anchor": anchor} if anchor else {})
        text = json.dumps({key: value for key, value in content.items() if value})
        return parse_trust(text.encode(), file="trust.yaml", read=lambda path: Path(path).read_bytes())

    def verification(self, *, now: float = NOW + DAY, anchor: str | None = None) -> Verification:
        repository = Repository(path=str(self.clone.path), environment=AS_SIGNED)
        return Verification(repository=repository, policy=self.policy(anchor), now=now, notes_ref=notes.REF)

    def verify(self, head: str, *, now: float = NOW + DAY, anchor: str | None = None) -> Verdict:
        return self.verification(now=now, anchor=anchor).verify(head, self.remembered)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    with gpg_home() as home:
        yield home


@pytest.fixture
def ann(tmp_path: Path) -> Person:
    return ssh_person(tmp_path, "ann")


@pytest.fixture
def bob(tmp_path: Path) -> Person:
    return ssh_person(tmp_path, "bob", "ecdsa")


@pytest.fixture(scope="module")
def forge(keys: Path) -> Person:
    return gpg_person(keys, "forge")


@pytest.fixture(scope="module")
def eve(keys: Path) -> Person:
    return gpg_person(keys, "eve")


@pytest.fixture(scope="module")
def old(keys: Path) -> Person:
    """Somebody whose key expired ten days before now."""
    return gpg_person(keys, "old", made=NOW - 100 * DAY, expires="90d")


def refused(verdict: Verdict, reason: str, *words: str) -> None:
    assert (verdict.trust.state, verdict.trust.reason) == (TrustState.REFUSED, reason), verdict.trust
    assert all(word in verdict.trust.message for word in words), verdict.trust.message
    assert verdict.way == ()


def signers(verdict: Verdict) -> list[str]:
    assert verdict.trust.state is TrustState.TRUSTED, verdict.trust
    assert verdict.signed
    return [step.signer for step in verdict.way]


def test_commits_signed_by_ssh_and_gpg_are_taken_and_named(
    world: World, ann: Person, bob: Person, forge: Person
) -> None:
    world.signers = [ann.signer(), bob.signer(), forge.signer()]
    world.commit(ann, {"a.yaml": "1"})
    world.commit(bob, {"a.yaml": "2"})
    head = world.commit(forge, {"a.yaml": "3"}, when=NOW + 5)
    verdict = world.verify(head)
    assert signers(verdict) == ["ann", "bob", "forge"]
    assert (verdict.trust.reason, verdict.latest) == ("Signed", NOW + 5)


def test_one_unsigned_commit_refuses_all_and_is_named_with_the_way_out(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    world.commit(ann, {"a.yaml": "1"})
    bad = world.commit(None, {"a.yaml": "2"})
    head = world.commit(ann, {"a.yaml": "3"})
    remedy = f"vectl source accept-rewrite {world.base[:12]} {head[:12]}"
    refused(world.verify(head), "Unsigned", f"commit {bad[:12]}:", remedy)


@pytest.mark.parametrize("kind", ["ssh", "gpg"])
def test_a_key_that_nobody_named_counts_for_nothing(
    world: World, ann: Person, bob: Person, forge: Person, eve: Person, kind: str
) -> None:
    world.signers = [ann.signer(), forge.signer()]
    head = world.commit(bob if kind == "ssh" else eve, {"a.yaml": "1"})
    refused(world.verify(head), "UnknownSigner", head[:12])


def test_a_signer_may_change_only_the_paths_that_are_named(world: World, ann: Person) -> None:
    world.signers = [ann.signer(paths=["web/**"])]
    good = world.commit(ann, {"web/b.yaml": "1", "web/deep/c.yaml": "1"})
    assert signers(world.verify(good)) == ["ann"]
    bad = world.commit(ann, {"web/b.yaml": "2", "a.yaml": None})
    refused(world.verify(bad), "SignerNotAllowed", bad[:12], "ann", "a.yaml")


def test_moving_a_file_out_of_a_folder_touches_both_places(world: World, ann: Person) -> None:
    world.signers = [ann.signer(paths=["web/**"])]
    world.clone.git("mv", "a.yaml", "web/a.yaml")
    refused(world.verify(world.commit(ann, {})), "SignerNotAllowed", "a.yaml")


def test_the_same_key_may_stand_for_several_rules(world: World, ann: Person) -> None:
    world.signers = [ann.signer(paths=["web/**"], validBefore="2020-01-01"), ann.signer(paths=["a.yaml"])]
    assert signers(world.verify(world.commit(ann, {"a.yaml": "1"}))) == ["ann"]


@pytest.mark.parametrize("kind", ["ssh", "gpg"])
def test_a_signature_moved_from_another_commit_is_of_something_else(
    world: World, ann: Person, forge: Person, kind: str
) -> None:
    world.signers = [ann.signer(), forge.signer()]
    signed = world.commit(ann if kind == "ssh" else forge, {"a.yaml": "1"})
    text = world.clone.git("cat-file", "commit", signed).replace("\n\nchange", "\n\nother")
    moved = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=f"{text}\n".encode())
    refused(world.verify(moved), "BadSignature", moved[:12])
    assert signers(world.verify(signed))


@pytest.mark.parametrize("signature", ["garbage", "-----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----"])
def test_what_only_looks_like_a_signature_is_none(world: World, ann: Person, signature: str) -> None:
    world.signers = [ann.signer()]
    head = world.commit(None, {"a.yaml": "1"})
    text = world.clone.git("cat-file", "commit", head).replace("\n\n", f"\ngpgsig {signature}\n\n", 1)
    forged = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=f"{text}\n".encode())
    refused(world.verify(forged), "BadSignature", forged[:12])


def test_a_signature_in_the_namespace_of_notes_signs_no_commit(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    text = world.clone.git("cat-file", "commit", world.commit(None, {"a.yaml": "1"})) + "\n"
    signature = signed_note(ann, text.encode()).strip().replace("\n", "\n ")
    forged = text.replace("\n\n", f"\ngpgsig {signature}\n\n", 1)
    head = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=forged.encode())
    refused(world.verify(head), "BadSignature")


def test_a_key_that_expired_since_still_vouches_for_its_time(world: World, old: Person) -> None:
    world.signers = [old.signer()]
    base = world.commit(None, {"a.yaml": "0.5"}, when=NOW - 60 * DAY)
    world.remembered = Remembered(trusted=base, signed=True, latest=NOW - 60 * DAY)
    then = world.commit(old, {"a.yaml": "1"}, when=NOW - 50 * DAY)
    assert signers(world.verify(then)) == ["old"]


def test_an_expired_key_cannot_go_on_by_dating_back(world: World, old: Person) -> None:
    world.signers = [old.signer()]
    back = world.commit(old, {"a.yaml": "1"}, when=NOW - 50 * DAY)
    refused(world.verify(back), "SignatureExpired", back[:12], "dated more than a day before")


def test_time_does_not_go_back_by_a_day_with_each_commit(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    near = world.commit(ann, {"a.yaml": "1"}, when=NOW - DAY // 2)
    assert world.verify(near).latest == NOW
    refused(world.verify(world.commit(ann, {"a.yaml": "2"}, when=NOW - 3 * DAY // 2)), "SignatureExpired")


def test_a_key_that_had_expired_vouches_for_nothing(world: World, old: Person) -> None:
    world.signers = [old.signer()]
    late = world.commit(old, {"a.yaml": "1"}, when=NOW - 50 * DAY)
    text = world.clone.git("cat-file", "commit", late).replace(str(NOW - 50 * DAY), str(NOW))
    head = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=f"{text}\n".encode())
    assert world.verify(head).trust.reason in ("BadSignature", "SignatureExpired")
    payload = text.split("gpgsig")[0] + text[text.index("\n\n") + 1 :] + "\n"
    argv = ["gpg", "--homedir", str(Path(str(old.public["gpg"])).parent), "--batch", "--faked-system-time"]
    argv += [f"{NOW - 50 * DAY}!", "-u", "old", "-ab"]
    armour = subprocess.run(
        argv, input=payload.encode(), capture_output=True, timeout=60 * PATIENCE, check=True
    ).stdout.decode()
    lines = armour.strip().replace("\n", "\n ")
    signed = payload.replace("\n\n", f"\ngpgsig {lines}\n\n", 1)
    head = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=signed.encode())
    refused(world.verify(head), "SignatureExpired", "its key had expired")


def gpg(home: Path, *arguments: str, input: bytes | str = b"") -> str:
    argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-tty", *arguments]
    data = input.encode() if isinstance(input, str) else input
    return subprocess.run(argv, input=data, capture_output=True, timeout=60 * PATIENCE, check=True).stdout.decode()


def forged(world: World, *armours: str) -> str:
    """Make the unsigned commit that is there one with signatures."""
    text = world.clone.git("cat-file", "commit", "HEAD") + "\n"
    lines = "\n".join(armour.strip() for armour in armours).replace("\n", "\n ")
    signed = text.replace("\n\n", f"\ngpgsig {lines}\n\n", 1)
    return world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=signed.encode())


def test_two_signatures_are_none(world: World, keys: Path, forge: Person, eve: Person) -> None:
    world.signers = [forge.signer(), eve.signer()]
    payload = world.clone.git("cat-file", "commit", world.commit(None, {"a.yaml": "1"})) + "\n"
    one, other = (gpg(keys, "-u", who.name, "-ab", input=payload) for who in (forge, eve))
    assert signers(world.verify(forged(world, one)))
    refused(world.verify(forged(world, one, other)), "BadSignature")


def test_a_signature_of_a_weak_digest_is_none(world: World, keys: Path) -> None:
    weak = gpg_person(keys, "weak", kind="rsa2048")
    world.signers = [weak.signer()]
    payload = world.clone.git("cat-file", "commit", world.commit(None, {"a.yaml": "1"})) + "\n"
    strong, sha1 = (gpg(keys, "-u", "weak", "--digest-algo", name, "-ab", input=payload) for name in ("SHA256", "SHA1"))
    assert signers(world.verify(forged(world, strong))) == ["weak"]
    refused(world.verify(forged(world, sha1)), "BadSignature")


def test_a_key_that_was_revoked_vouches_for_nothing_it_ever_signed(world: World, keys: Path) -> None:
    gone = gpg_person(keys, "gone")
    world.signers = [gone.signer()]
    head = world.commit(gone, {"a.yaml": "1"})
    assert signers(world.verify(head)) == ["gone"]
    listed = gpg(keys, "--with-colons", "--list-keys", "gone").splitlines()
    print_ = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
    revocation = (keys / f"openpgp-revocs.d/{print_}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    gpg(keys, "--import", input=revocation)
    Path(str(gone.public["gpg"])).write_text(gpg(keys, "--armor", "--export", "gone"))
    refused(world.verify(head), "BadSignature", "revoked")


def test_what_is_built_on_is_not_younger_than_what_follows_though_nothing_is_remembered(
    world: World, ann: Person
) -> None:
    world.signers = [ann.signer()]
    head = world.commit(ann, {"a.yaml": "1"}, when=NOW - 2 * DAY)
    world.remembered = Remembered()
    refused(world.verify(head, anchor=world.base), "SignatureExpired", "dated more than a day before")


@pytest.mark.parametrize(("field", "date"), [("validBefore", "2023-11-14"), ("validAfter", "2023-11-16T00:00:00Z")])
def test_a_signer_counts_only_in_his_time(world: World, ann: Person, field: str, date: str) -> None:
    world.signers = [ann.signer(**{field: date})]
    head = world.commit(ann, {"a.yaml": "1"})
    refused(world.verify(head), "SignatureExpired", "ann")


def test_a_commit_of_the_future_is_not_taken_yet(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    head = world.commit(ann, {"a.yaml": "1"}, when=NOW + 10 * DAY)
    refused(world.verify(head), "SignatureExpired", "after now")
    assert signers(world.verify(head, now=NOW + 10 * DAY)) == ["ann"]


def test_an_older_commit_is_not_gone_back_to(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    first = world.commit(ann, {"a.yaml": "1"})
    world.remembered = Remembered(trusted=world.commit(ann, {"a.yaml": "2"}), signed=True, latest=NOW)
    refused(world.verify(first), "NotFastForward", first[:12], "older", "accept-rewrite")


def test_another_history_is_taken_only_when_a_person_accepted_it(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    trusted = world.commit(ann, {"a.yaml": "1"})
    world.remembered = Remembered(trusted=trusted, signed=True, latest=NOW)
    world.branch("other", world.base)
    other = world.commit(ann, {"a.yaml": "2"})
    head = world.commit(ann, {"a.yaml": "3"})
    refused(world.verify(head), "NotFastForward", f"accept-rewrite {trusted[:12]} {head[:12]}")
    accepted = (Rewrite(old=trusted, new=other, by="root", at=NOW),)
    world.remembered = Remembered(trusted=trusted, signed=True, latest=NOW, accepted=accepted)
    assert [step.commit.id for step in world.verify(head).way] == [other, head]
    bad = world.commit(None, {"a.yaml": "4"})
    refused(world.verify(bad), "Unsigned", bad[:12])


def test_a_history_whose_trusted_commit_is_gone_is_another_one(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    world.remembered = Remembered(trusted="f" * 40, signed=True, latest=NOW)
    head = world.commit(ann, {"a.yaml": "1"})
    refused(world.verify(head), "NotFastForward", "does not have ffffffffffff")
    accepted = (Rewrite(old="f" * 40, new=head, by="root", at=NOW),)
    world.remembered = Remembered(trusted="f" * 40, signed=True, latest=NOW, accepted=accepted)
    assert [step.commit.id for step in world.verify(head).way] == [head]


def test_a_forge_vouches_for_merges_of_unsigned_branches_and_for_nothing_else(
    world: World, ann: Person, forge: Person
) -> None:
    world.signers, world.forges = [ann.signer()], [forge.signer()]
    world.branch("feature", world.base)
    world.commit(None, {"a.yaml": "1"})
    world.branch("main", world.base)
    merge = world.merge(forge, "feature")
    assert signers(world.verify(merge)) == ["forge"]
    plain = world.commit(forge, {"a.yaml": "2"})
    refused(world.verify(plain), "SignerNotAllowed", plain[:12], "forge")


def test_a_merge_may_not_bring_in_what_its_signer_may_not_change(world: World, ann: Person) -> None:
    """Neither from a side branch, nor as a change that is in none of its parents."""
    world.signers = [ann.signer(paths=["web/**"])]
    world.branch("feature", world.base)
    world.commit(None, {"web/b.yaml": "1"})
    world.branch("main", world.base)
    good = world.merge(ann, "feature")
    assert signers(world.verify(good)) == ["ann"]
    (world.clone.path / "a.yaml").write_text("evil")
    world.clone.git("add", "--all")
    world.clone.git("commit", "--quiet", "--amend", "--no-edit")
    evil = world.clone.git("rev-parse", "HEAD")
    assert evil != good
    refused(world.verify(evil), "SignerNotAllowed", "a.yaml")


def test_an_octopus_is_a_merge(world: World, forge: Person) -> None:
    world.forges = [forge.signer()]
    for name in ("one", "two", "three"):
        world.branch(name, world.base)
        world.commit(None, {f"{name}.yaml": "1"})
    world.branch("main", world.base)
    head = world.merge(forge, "one", "two", "three")
    verdict = world.verify(head)
    assert signers(verdict) == ["forge"]
    assert len(verdict.way[0].commit.parents) == 4


def test_a_branch_that_took_ours_in_as_a_side_branch_does_not_follow_it(world: World, ann: Person) -> None:
    """Its beginning was never looked at: what it holds beside what its commits touch is anybody's."""
    world.signers = [ann.signer(paths=["web/**"])]
    world.branch("evil", world.base)
    world.commit(None, {"a.yaml": "evil"})
    evil = world.clone.git("rev-parse", "HEAD")
    world.branch("main", world.base)
    world.clone.env = world.env(None, NOW)
    world.clone.git("merge", "--quiet", "--no-ff", "-s", "ours", "-m", "merge", "evil")
    trusted = world.clone.git("rev-parse", "HEAD")
    world.remembered = Remembered(trusted=trusted, signed=True, latest=NOW)
    world.branch("foxtrot", evil)
    world.commit(ann, {"web/b.yaml": "1"})
    world.clone.git("merge", "--quiet", "--no-ff", "-s", "ours", "-m", "merge", trusted)
    head = world.clone.git("rev-parse", "HEAD")
    assert world.clone.git("show", f"{head}:a.yaml") == "evil"
    refused(world.verify(head), "NotFastForward", "merged into it")


def test_without_an_anchor_the_whole_history_has_to_be_signed(world: World, ann: Person) -> None:
    world.signers, world.remembered = [ann.signer()], Remembered()
    head = world.commit(ann, {"a.yaml": "1"})
    refused(world.verify(head), "Unsigned", world.base[:12], "anchor")
    assert signers(world.verify(head, anchor=world.base)) == ["ann"]
    world.clone.git("checkout", "--quiet", "--orphan", "signed")
    root = world.commit(ann, {"a.yaml": "2"})
    assert signers(world.verify(root)) == ["ann"]


def test_what_was_taken_before_signatures_were_asked_for_is_not_an_anchor(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    unsigned = world.commit(None, {"a.yaml": "1"})
    world.remembered = Remembered(trusted=unsigned, signed=False)
    head = world.commit(ann, {"a.yaml": "2"})
    refused(world.verify(head, anchor=world.base), "Unsigned", unsigned[:12])


def test_without_a_trust_file_only_a_rewritten_history_is_refused(world: World) -> None:
    repository = Repository(path=str(world.clone.path), environment=AS_SIGNED)
    verification = Verification(repository=repository, policy=None, now=NOW)
    head = world.commit(None, {"a.yaml": "1"})
    verdict = verification.verify(head, world.remembered)
    assert (verdict.trust.reason, [step.commit.id for step in verdict.way]) == ("NotRequired", [head])
    assert not verdict.signed
    refused(verification.verify(world.base, Remembered(trusted=head)), "NotFastForward", "older")


def test_a_repository_of_sha256_is_verified_alike(tmp_path: Path, ann: Person, forge: Person) -> None:
    world = World(tmp_path, env={"GIT_DEFAULT_HASH": "sha256"})
    world.signers = [ann.signer(), forge.signer()]
    world.clone.git("checkout", "--quiet", "--orphan", "signed")
    root = world.commit(ann, {"a.yaml": "1"})
    world.remembered = Remembered()
    head = world.commit(forge, {"a.yaml": "2"})
    assert len(root) == 64
    assert signers(world.verify(head)) == ["ann", "forge"]


def test_grafts_and_replacements_hide_no_commit(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    bad = world.commit(None, {"a.yaml": "1"})
    head = world.commit(ann, {"a.yaml": "2"})
    world.branch("good", world.base)
    good = world.commit(ann, {"a.yaml": "1"})
    world.clone.git("replace", bad, good)
    (world.clone.path / ".git/info").mkdir(exist_ok=True)
    (world.clone.path / ".git/info/grafts").write_text(f"{head} {world.base}\n")
    refused(world.verify(head), "Unsigned", bad[:12])


def test_the_way_goes_back_to_what_is_in_force(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    one, two = world.commit(ann, {"a.yaml": "1"}), world.commit(None, {"a.yaml": "2"})
    world.remembered = Remembered(trusted=two, signed=True, latest=NOW)
    head = world.commit(ann, {"a.yaml": "3"})
    verdict = world.verification().verify(head, world.remembered, since=world.base)
    assert [(step.commit.id, step.signer) for step in verdict.way] == [(one, "ann"), (two, ""), (head, "ann")]


def test_trailers_count_by_their_signer_but_not_by_a_forge(world: World, ann: Person, forge: Person) -> None:
    """A forge writes the title of a pull request into the message of a merge: anybody's words."""
    world.signers, world.forges = [ann.signer()], [forge.signer()]
    head = world.commit(ann, {"a.yaml": "1"}, f"change\n\nVectl-Reviewed: {HASH}\nVectl-Approved: no-hash")
    (found,) = vouched(world.verify(head).way)
    assert (found.kind, found.hash, found.by, found.at, found.revision) == ("reviewed", HASH, "ann", NOW, head)
    world.branch("feature", head)
    world.commit(None, {"a.yaml": "2"}, f"change\n\nVectl-Approved: {HASH}")
    world.branch("main", head)
    world.remembered = Remembered(trusted=head, signed=True, latest=NOW)
    world.clone.env = world.env(forge, NOW)
    world.clone.git("merge", "--quiet", "--no-ff", "-m", f"merge\n\nVectl-Approved: {HASH}", "feature")
    merge = world.clone.git("rev-parse", "HEAD")
    assert vouched(world.verify(merge).way) == ()
    world.forges = [forge.signer(review=True)]
    assert [found.by for found in vouched(world.verify(merge).way)] == ["forge"]


def note(world: World, commit: str, *signed: tuple[Person, str]) -> None:
    text = ""
    for who, hash_ in signed:
        lines = (("Vectl-Approved", hash_), ("Vectl-At", str(NOW + 60)))
        text += notes.render(lines, signed_note(who, notes.payload(commit, lines))) + "\n"
    world.clone.git("notes", "--ref", notes.REF, "add", "--force", "--file", "-", commit, input=text.encode())


def test_signed_notes_count_by_who_may_review(world: World, ann: Person, bob: Person, tmp_path: Path) -> None:
    cid = ssh_person(tmp_path, "cid")
    world.signers = [ann.signer(), bob.signer(review=False)]
    head = world.commit(ann, {"a.yaml": "1"})
    note(world, head, (ann, HASH), (bob, "b" * 64), (cid, "c" * 64))
    verdict = world.verify(head)
    assert [(one.kind, one.hash, one.by, one.at) for one in vouched(verdict.way)] == [
        ("approved", HASH, "ann", NOW + 60)
    ]
    assert head[:12] in verdict.trust.message


def test_a_note_counts_for_its_commit_and_its_words_alone(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    first, head = world.commit(ann, {"a.yaml": "1"}), world.commit(ann, {"a.yaml": "2"})
    note(world, first, (ann, HASH))
    text = world.clone.git("notes", "--ref", notes.REF, "show", first)
    for forged in (text, text.replace(HASH, "b" * 64)):
        target = head if forged is text else first
        world.clone.git("notes", "--ref", notes.REF, "add", "--force", "--file", "-", target, input=forged.encode())
    assert vouched(world.verify(head).way) == ()


def test_somebody_of_a_folder_cannot_vouch_for_what_touches_more(world: World, ann: Person, bob: Person) -> None:
    world.signers = [ann.signer(), bob.signer(paths=["web/**"])]
    first, head = world.commit(ann, {"web/b.yaml": "1"}), world.commit(ann, {"a.yaml": "2"})
    for commit in (first, head):
        note(world, commit, (bob, HASH))
    assert [one.revision for one in vouched(world.verify(head).way)] == [first]


def test_a_note_that_comes_later_is_found_on_what_was_taken(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    head = world.commit(ann, {"a.yaml": "1"})
    assert vouched(world.verification().steps([head])) == ()
    note(world, head, (ann, HASH))
    assert [one.by for one in vouched(world.verification().steps([head]))] == ["ann"]


LONG = {
    "trailers": "Key: value\n" * 20_000,
    "beginnings": "-----BEGIN SSH SIGNATURE-----\n" * 8000,
    "dashes": "-" * 250_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_note_without_a_signature_is_read_in_one_go(text: str) -> None:
    assert notes.parse("a" * 40, text) == ()


def test_a_signature_of_many_lines_is_read_in_one_go(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    text = world.clone.git("cat-file", "commit", world.commit(None, {"a.yaml": "1"}))
    lines = "-----BEGIN SSH SIGNATURE-----" + "\n A" * 300_000
    long = text.replace("\n\n", f"\ngpgsig {lines}\n\n", 1)
    head = world.clone.git("hash-object", "-t", "commit", "-w", "--stdin", input=f"{long}\n".encode())
    refused(world.verify(head), "BadSignature", head[:12])


def test_what_is_no_note_is_no_harm(world: World, ann: Person) -> None:
    world.signers = [ann.signer()]
    head = world.commit(ann, {"a.yaml": "1"})
    for text in ("just words", "-----BEGIN SSH SIGNATURE-----\n", f"Vectl-Approved: {HASH}\n", "\n" * 1000):
        world.clone.git("notes", "--ref", notes.REF, "add", "--force", "--file", "-", head, input=f"x{text}".encode())
        assert signers(world.verify(head)) == ["ann"]
        assert vouched(world.verify(head).way) == ()
