"""The trust file is read strictly, whole or not at all; what is remembered of a source is never lost silently."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, RefusedError, StateError, UsageError, VectlError
from reconciler.model.probe import Level
from reconciler.model.trust import Remembered, Rewrite, path_matches
from reconciler.state.source_state import SourceState
from reconciler.state.trust import TrustFile, examine, load_trust, parse_trust

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
OTHER = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(31) + b"1").decode()
FILE = "trust.yaml"


def no_file(path: str) -> bytes | None:
    return None


def test_a_whole_trust_file_is_read_as_it_is_written() -> None:
    text = f"""
anchor: {"a" * 40}
signers:
  - name: alice@example.org
    ssh: {KEY} alice@laptop
    paths: [web/**, networks.yaml]
    validAfter: 2026-01-01
    validBefore: 2027-01-01T12:00:00+02:00
    review: false
mergeKeys:
  - {{name: forge, ssh: {OTHER}}}
"""
    policy = parse_trust(text.encode(), file=FILE, read=no_file)
    alice, forge = policy.signers
    assert (policy.anchor, alice.name, alice.paths, alice.may_review) == (
        "a" * 40,
        "alice@example.org",
        ("web/**", "networks.yaml"),
        False,
    )
    assert (alice.valid_after, alice.valid_before) == (1767225600.0, 1798797600.0)
    assert (alice.merges_only, forge.merges_only, forge.may_review, forge.paths) == (False, True, False, None)
    assert policy.named(next(iter(forge.keys))) == (forge,)
    assert policy.keyring.ssh == (f"{KEY} alice@laptop", OTHER)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "signers: has to be set"),
        ("signers: [{ssh: KEY}]", "signers[0].name: has to be set"),
        ("signers: [{name: a}]", "signers[0].ssh: has to be set"),
        ("signers: [{name: a, ssh: ssh-dss AAAA}]", "expected a public key"),
        ("signers: [{name: a, ssh: ssh-rsa AAAA}]", "expected a public key"),
        ("signers: [{name: a, ssh: ssh-ed25519}]", "expected a public key"),
        ("signers: [{name: a, gpg: keys/a.asc}]", "expected an absolute path"),
        ("signers: [{name: a, gpg: /keys/a.asc}]", "found no /keys/a.asc"),
        ("signers: [{name: a, ssh: KEY, gpg: /keys/a.asc}]", "got both"),
        ("signers: [{name: a, ssh: KEY, paths: [/etc/**]}]", "expected a pattern"),
        ("signers: [{name: a, ssh: KEY, paths: [web/]}]", "expected a pattern"),
        ("signers: [{name: a, ssh: KEY, paths: [../x]}]", "expected a pattern"),
        ("signers: [{name: a, ssh: KEY, paths: [web**]}]", "as a whole part"),
        ("signers: [{name: a, ssh: KEY, validBefore: soon}]", "expected a date"),
        ("signers: [{name: a, ssh: KEY, reviews: true}]", "did you mean 'review'"),
        ("anchor: main\nsigners: [{name: a, ssh: KEY}]", "40 or 64 hexadecimal"),
        ("mergeKeys: [{name: a, ssh: KEY, paths: [x]}]", "no such setting"),
    ],
)
def test_a_mistake_in_a_trust_file_is_named_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"trust\.yaml:\d+:\d+: ") as caught:
        parse_trust(text.replace("KEY", KEY).encode(), file=FILE, read=no_file)
    assert words in str(caught.value)


def test_a_trust_file_that_is_not_roots_own_or_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / FILE
    with pytest.raises(ConfigError, match="found none"):
        load_trust(str(file))
    file.write_text(f"signers: [{{name: a, ssh: {KEY}}}]")
    assert len(load_trust(str(file)).signers) == 1
    file.chmod(0o666)
    with pytest.raises(RefusedError, match="only root may write"):
        load_trust(str(file))
    assert examine(str(file)).level is Level.WARN
    assert examine(None).level is Level.WARN


def test_a_trust_file_is_parsed_again_only_when_it_or_a_key_changed(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_text(f"signers: [{{name: a, ssh: {KEY}}}]")
    followed = TrustFile(str(file))
    first = followed.look()
    assert followed.look() is first
    file.write_text("signers: [")
    for _ in range(2):
        with pytest.raises(VectlError):
            followed.look()
    file.write_text(f"signers: [{{name: b, ssh: {KEY}}}]")
    assert followed.look().signers[0].name == "b"


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("web/**", ("web/a.yaml", "web/b/c.yaml"), ("web", "webs/a.yaml", "x/web/a.yaml")),
        ("*.yaml", ("a.yaml",), ("web/a.yaml", "a.yml", "a.yaml\n")),
        ("**/*.yaml", ("a.yaml", "web/a.yaml", "web/b/a.yaml"), ("a.yml",)),
        ("a/**/z", ("a/z", "a/b/z", "a/b/c/z"), ("a/bz", "az")),
        ("we?.yaml", ("web.yaml",), ("we/.yaml", "weAb.yaml")),
        ("a+b.yaml", ("a+b.yaml",), ("aab.yaml",)),
        ("**", ("a", "a/b", "line\nfeed"), ()),
    ],
)
def test_patterns_stay_within_folders_but_for_two_asterisks(
    pattern: str, matching: tuple[str, ...], other: tuple[str, ...]
) -> None:
    assert [path for path in (*matching, *other) if path_matches(pattern, path)] == list(matching)


def test_what_is_remembered_of_a_source_outlives_a_restart(tmp_path: Path) -> None:
    SourceState(str(tmp_path)).trust("git:one", "a" * 40, signed=True, latest=5.0)
    SourceState(str(tmp_path)).trust("git:two", "b" * 40, signed=False, latest=0.0)
    rewrite = Rewrite(old="a" * 40, new="c" * 40, by="root", at=7.0)
    SourceState(str(tmp_path)).accept("git:one", rewrite)
    expected = Remembered(trusted="a" * 40, signed=True, latest=5.0, accepted=(rewrite,))
    assert SourceState(str(tmp_path)).read("git:one") == expected
    assert SourceState(str(tmp_path)).read("git:two").trusted == "b" * 40
    assert SourceState(str(tmp_path)).read("git:three") == Remembered()
    SourceState(str(tmp_path)).trust("git:one", "a" * 40, signed=True, latest=6.0)
    assert SourceState(str(tmp_path)).read("git:one").accepted_from("a" * 40) == rewrite
    SourceState(str(tmp_path)).trust("git:one", "c" * 40, signed=True, latest=6.0)
    assert SourceState(str(tmp_path)).read("git:one").accepted == ()
    with pytest.raises(UsageError, match="expected the commit that is trusted, " + "b" * 40):
        SourceState(str(tmp_path)).accept("git:two", rewrite)


def test_a_damaged_memory_of_a_source_is_no_empty_one(tmp_path: Path) -> None:
    state = SourceState(str(tmp_path))
    state.trust("git:one", "a" * 40, signed=True, latest=5.0)
    (tmp_path / "source/state.json").write_text("{}")
    with pytest.raises(StateError, match="anchor"):
        state.read("git:one")
