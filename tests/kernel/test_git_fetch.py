"""A mirror follows a ref of a real server; what goes wrong on the way has a name and a remedy, and costs little."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reconciler.errors import FetchError
from reconciler.kernel.git_fetch import HEAD, Fetched, Mirror
from reconciler.kernel.git_remote import Remote, shown
from tests.support import gitserver
from tests.support.gitrepo import Clone, bare, git
from tests.support.gitserver import HttpServer, SshServer
from tests.support.patience import PATIENCE

MAIN = "refs/heads/main"
LOGIN = "bot:s3:cr et:"
FETCH_S = 20 * PATIENCE


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(str(tmp_path / "source" / "m.git"))


@pytest.fixture
def ssh(tmp_path: Path, served: Path) -> Iterator[SshServer]:
    with gitserver.ssh(tmp_path / "ssh", served) as server:
        yield server


def fetch(mirror: Mirror, *remotes: Remote | str, ref: str = MAIN) -> Fetched:
    named = [Remote(url=remote, timeout_s=FETCH_S) if isinstance(remote, str) else remote for remote in remotes]
    return asyncio.run(mirror.fetch(named, ref))


def refusal(mirror: Mirror, *remotes: Remote | str, ref: str = MAIN) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(mirror, *remotes, ref=ref)
    return caught.value


def through_ssh(ssh: SshServer, **other: str) -> Remote:
    own = {"ssh_key": str(ssh.key), "known_hosts": str(ssh.known_hosts)}
    return Remote(url=ssh.url("fleet.git"), timeout_s=FETCH_S, **{**own, **other})


def test_what_is_pushed_is_fetched_over_http_and_notes_with_it(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    url = http.url("fleet.git")
    first = fetch(mirror, url)
    assert (first.head, first.notes) == (clone.git("rev-parse", "HEAD"), None)
    second = clone.commit({"web.yaml": "two"})
    clone.git("notes", "--ref=vectl", "add", "-m", "seen")
    clone.push(url)
    clone.push(url, "refs/notes/vectl:refs/notes/vectl")
    assert fetch(mirror, url) == Fetched(head=second, notes=clone.git("rev-parse", "refs/notes/vectl"), remote=url)
    clone.push(url, ":refs/notes/vectl")
    assert fetch(mirror, url).notes is None
    blob = mirror.repository.tree(second)[0].oid
    assert mirror.repository.objects([blob]) == {blob: b"two"}


def test_a_mirror_has_no_work_tree_no_hooks_and_is_roots_alone(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    fetch(mirror, http.url("fleet.git"))
    assert os.stat(mirror.path).st_mode & 0o777 == 0o700
    assert not Path(mirror.path, "hooks").exists()
    assert git(Path(mirror.path), "rev-parse", "--is-bare-repository") == "true"
    assert git(Path(mirror.path), "for-each-ref", "--format=%(refname)") == HEAD


def test_a_branch_that_went_back_is_followed(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    first, url = clone.git("rev-parse", "HEAD"), http.url("fleet.git")
    clone.commit({"web.yaml": "two"})
    clone.push(url)
    fetch(mirror, url)
    clone.push(url, f"{first}:{MAIN}", "--force")
    assert fetch(mirror, url).head == first


def test_a_tag_and_a_commit_are_followed_too(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    first, url = clone.git("rev-parse", "HEAD"), http.url("fleet.git")
    clone.git("tag", "-a", "-m", "one", "v1")
    clone.git("tag", "-a", "-m", "a tag of a tag", "v2", "v1")
    clone.push(url, "refs/tags/*:refs/tags/*")
    clone.commit({"web.yaml": "two"})
    clone.push(url)
    assert fetch(mirror, url, ref="refs/tags/v2").head == first
    assert fetch(mirror, url).head != first
    assert fetch(mirror, url, ref=first).head == first
    assert refusal(mirror, url, ref="0" * 39 + "1").reason == "RefMissing"
    blob = clone.git("rev-parse", "HEAD:web.yaml")
    clone.push(url, f"{blob}:refs/tags/blob")
    assert refusal(mirror, url, ref="refs/tags/blob").reason == "RefMissing"


def test_a_repository_of_long_hashes_is_followed_too(tmp_path: Path, served: Path, mirror: Mirror) -> None:
    with gitserver.http(served) as server:
        git(tmp_path, "init", "--quiet", "--object-format=sha256", "--initial-branch=main", "long")
        long = Clone(tmp_path / "long")
        head = long.commit({"web.yaml": "one"})
        git(served, "clone", "--quiet", "--bare", str(long.path), "long.git")
        assert fetch(mirror, server.url("long.git")).head == head
        assert fetch(mirror, server.url("long.git")).head == head


def test_what_is_missing_has_a_name(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    assert refusal(mirror, http.url("fleet.git"), ref="refs/heads/other").reason == "RefMissing"
    missing = refusal(mirror, http.url("other.git"))
    assert missing.reason == "RepositoryMissing"
    assert "look at `url`" in str(missing)
    with http.gone():
        assert refusal(mirror, http.url("fleet.git")).reason == "RemoteUnreachable"
    assert fetch(mirror, http.url("fleet.git")).head


def test_https_asks_for_the_right_certificate_and_login(
    tmp_path: Path, served: Path, clone: Clone, mirror: Mirror
) -> None:
    tls, login, other = gitserver.certificate(tmp_path / "tls"), tmp_path / "login", tmp_path / "other"
    login.write_text(LOGIN)
    other.write_text("bot:guessed\n")
    with gitserver.http(served, tls=tls, login=LOGIN) as server:

        def remote(credentials: Path = login) -> Remote:
            return Remote(url=server.url("fleet.git"), ca=str(tls.ca), credentials=str(credentials))

        assert fetch(mirror, remote()).head == clone.git("rev-parse", "HEAD")
        unsigned = Remote(url=server.url("fleet.git"), credentials=str(login))
        assert refusal(mirror, unsigned).reason == "CertificateRefused"
        for file in (other, tmp_path / "nowhere"):
            refused = refusal(mirror, remote(credentials=file))
            assert refused.reason == "AuthenticationFailed"
            assert str(file) in str(refused)
        anonymous = refusal(mirror, Remote(url=server.url("fleet.git"), ca=str(tls.ca)))
        assert anonymous.reason == "AuthenticationFailed"
        assert "credentials" in str(anonymous)


def test_ssh_asks_for_the_right_key_on_both_sides(ssh: SshServer, clone: Clone, mirror: Mirror, tmp_path: Path) -> None:
    assert fetch(mirror, through_ssh(ssh)).head == clone.git("rev-parse", "HEAD")
    stranger = tmp_path / "a key 100%h"
    gitserver.make_key(stranger)
    assert refusal(mirror, through_ssh(ssh, ssh_key=str(stranger))).reason == "AuthenticationFailed"
    empty = tmp_path / "known hosts"
    empty.touch()
    unknown = refusal(mirror, through_ssh(ssh, known_hosts=str(empty)))
    assert unknown.reason == "HostKeyUnknown"
    assert str(empty) in str(unknown)
    ssh.change_host_key()
    assert refusal(mirror, through_ssh(ssh)).reason == "HostKeyChanged"


def test_the_next_remote_is_asked_where_the_first_is_away(
    http: HttpServer, served: Path, clone: Clone, mirror: Mirror
) -> None:
    first = clone.git("rev-parse", "HEAD")
    remotes = [http.url("fleet.git"), http.url("copy.git")]
    bare(served / "copy.git")
    clone.push(served / "copy.git")
    (served / "fleet.git").rename(served / "away.git")
    found = fetch(mirror, *remotes)
    assert (found.head, found.remote) == (first, remotes[1])
    assert "fleet.git" in found.problems[0]


def test_a_copy_that_lags_takes_nothing_back_and_one_of_another_history_is_none(
    http: HttpServer, served: Path, clone: Clone, mirror: Mirror
) -> None:
    remotes = [http.url("fleet.git"), http.url("copy.git")]
    bare(served / "copy.git")
    clone.push(served / "copy.git")
    second = clone.commit({"web.yaml": "two"})
    clone.push(remotes[0])
    assert fetch(mirror, *remotes).head == second
    (served / "fleet.git").rename(served / "away.git")
    assert fetch(mirror, *remotes).head == second
    clone.git("commit", "--quiet", "--amend", "-m", "another")
    clone.push(remotes[1], f"HEAD:{MAIN}", "--force")
    refused = refusal(mirror, *remotes)
    assert refused.reason == "RepositoryMissing"
    assert "expected a copy of the first remote" in str(refused)
    assert git(Path(mirror.path), "rev-parse", HEAD) == second


def test_a_branch_that_is_gone_is_not_looked_for_in_a_copy(
    http: HttpServer, served: Path, clone: Clone, mirror: Mirror
) -> None:
    bare(served / "copy.git")
    clone.push(served / "copy.git")
    clone.push(http.url("fleet.git"), "HEAD:refs/heads/other")
    git(served / "fleet.git", "update-ref", "-d", MAIN)
    assert refusal(mirror, http.url("fleet.git"), http.url("copy.git")).reason == "RefMissing"


def test_what_a_killed_fetch_left_is_in_nobodys_way(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    fetch(mirror, http.url("fleet.git"))
    left = [Path(mirror.path, name) for name in (f"{HEAD}.lock", "objects/pack/tmp_pack_x", "config.lock")]
    for path in left:
        path.write_text("")
    second = clone.commit({"web.yaml": "two"})
    clone.push(http.url("fleet.git"))
    assert fetch(mirror, http.url("fleet.git")).head == second
    assert not any(path.exists() for path in left)


def test_a_mirror_of_many_packs_is_put_together(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    url = http.url("fleet.git")
    for number in range(3):
        last = clone.commit({"web.yaml": str(number)})
        clone.push(url)
        fetch(mirror, url)
    packs = Path(mirror.path, "objects/pack")
    asyncio.run(mirror.tidy())
    assert len(list(packs.glob("*.pack"))) == 3
    asyncio.run(mirror.tidy(packs=2))
    assert len(list(packs.glob("*.pack"))) == 1
    assert [entry.path for entry in mirror.repository.tree(last)] == ["web.yaml"]


def test_a_commit_that_is_kept_outlives_its_branch(http: HttpServer, clone: Clone, mirror: Mirror) -> None:
    url = http.url("fleet.git")
    first = fetch(mirror, url).head
    asyncio.run(mirror.keep("in-force", first))
    clone.git("commit", "--quiet", "--amend", "-m", "another history")
    clone.push(url, f"HEAD:{MAIN}", "--force")
    assert fetch(mirror, url).head != first
    git(Path(mirror.path), "gc", "--quiet", "--prune=now")
    assert mirror.repository.commits([first])[0].id == first


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://bot@git.example.org:8443/fleet.git?token=abc#x", "https://git.example.org:8443/fleet.git"),
        ("ssh://git@git.example.org/fleet.git", "ssh://git.example.org/fleet.git"),
        ("git@git.example.org:org/fleet.git", "git.example.org:org/fleet.git"),
        ("/srv/git/a@b:c.git", "/srv/git/a@b:c.git"),
        ("file:///srv/git", "file:///srv/git"),
    ],
)
def test_an_address_is_told_without_user_and_query(url: str, told: str) -> None:
    assert shown(url) == told


def test_no_secret_is_among_arguments_or_variables_of_any_process(
    tmp_path: Path, served: Path, clone: Clone, mirror: Mirror
) -> None:
    login = tmp_path / "login"
    login.write_text("bot:hunter2")
    with gitserver.http(served, login="bot:hunter2") as server:
        url = server.url("fleet.git")
        seen: list[tuple[str, str]] = []
        server.on_request = lambda: seen.extend(_ours())
        fetch(mirror, Remote(url=url, credentials=str(login)))
        assert any("fetch" in argv for argv, _ in seen)
        assert all("hunter2" not in text for process in seen for text in process)


def _ours() -> Sequence[tuple[str, str]]:
    """Read arguments and variables of this process's descendants."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            variables = Path(f"/proc/{pid}/environ").read_text(errors="replace")
            if "VECTL_GIT_CREDENTIALS" in variables:
                found.append((Path(f"/proc/{pid}/cmdline").read_text(errors="replace"), variables))
        except (OSError, ProcessLookupError):
            continue
    return found
