"""Where a repository is, is said by an address that holds no secret, and known by a name that shows none."""

from __future__ import annotations

import pytest

from reconciler.state import scalars
from reconciler.state.location import DirectoryLocation, GitLocation


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/fleet.git",
        "https://bot@git.example.org:8443/fleet.git",
        "ssh://git@git.example.org:2222/srv/fleet.git",
        "git@git.example.org:org/fleet.git",
        "/srv/git/fleet.git",
        "file:///srv/git/fleet.git",
        "http://127.0.0.1:3000/fleet.git",
        "http://localhost/fleet.git",
        "http://[::1]:8080/fleet.git",
    ],
)
def test_an_address_of_a_server_or_of_this_machine_is_taken(url: str) -> None:
    assert scalars.git_url(url) == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://git.example.org/fleet.git", "anybody may have changed"),
        ("http://127.0.0.1.example.org/fleet.git", "anybody may have changed"),
        ("http://localhost@git.example.org/fleet.git", "anybody may have changed"),
        ("https://bot:s3cret@git.example.org/fleet.git", "expected no password"),
        ("git://git.example.org/fleet.git", "expected ssh://, https://"),
        ("ext::sh -c id", "expected ssh://, https://"),
        ("-oProxyCommand@host:fleet.git", "expected ssh://, https://"),
        ("fleet.git", "expected ssh://, https://"),
    ],
)
def test_an_address_that_is_not_to_be_believed_is_refused(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        scalars.git_url(url)
    assert "s3cret" not in str(caught.value)


def test_the_name_of_a_source_shows_neither_user_nor_query() -> None:
    url = "https://bot@git.example.org/fleet.git?token=s3cret"
    assert GitLocation(urls=(url, "/copy")).name == "git:https://git.example.org/fleet.git#refs/heads/main"
    tagged = GitLocation(urls=("git@git.example.org:fleet",), ref="refs/tags/v1", subdir="eu/lab")
    assert tagged.name == "git:git.example.org:fleet#refs/tags/v1:eu/lab"
    assert DirectoryLocation(path="/nowhere/desired").name == "dir:/nowhere/desired"
