"""The one comment on a pull request, found again by its first line and rewritten whenever the plan changes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from reconciler.cli import output
from reconciler.errors import DownloadError, ExitCode, UsageError

if TYPE_CHECKING:
    from reconciler.model.facts import Json

_PAGES_MAX = 100
_LENGTH_MAX = 65_536
"""The longest comment that the common forges take. Units: characters."""

_MARKER = re.compile(r"<!-- vectl-[^\n]* -->\n")
_PULL = re.compile(r"refs/pull/(\d+)/")
_TOKEN = "VECTL_TOKEN"  # noqa: S105  # the name of the variable that has it


class ForgeKind(StrEnum):
    """Whose API is spoken."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """A pull request of a forge. ``repository``: its name, of GitLab its number or name."""

    kind: ForgeKind
    api: str
    repository: str
    number: str
    token: str = field(repr=False)

    @property
    def comments(self) -> str:
        """The address of its comments."""
        if self.kind is ForgeKind.GITLAB:
            return f"{self.api}/projects/{quote(self.repository, safe='')}/merge_requests/{self.number}/notes"
        return f"{self.api}/repos/{quote(self.repository)}/issues/{self.number}/comments"

    def comment(self, number: int) -> tuple[str, str]:
        """Give the method and the address by which one of its comments is rewritten."""
        if self.kind is ForgeKind.GITLAB:
            return "PUT", f"{self.comments}/{number}"
        return "PATCH", f"{self.api}/repos/{quote(self.repository)}/issues/comments/{number}"

    def ask(self, method: str, url: str, content: Json = None) -> Json:
        """Ask the forge.

        Raises: DownloadError.
        """
        from reconciler.kernel.web_request import request

        words = {ForgeKind.GITHUB: "Bearer ", ForgeKind.GITEA: "token ", ForgeKind.GITLAB: ""}
        name = "PRIVATE-TOKEN" if self.kind is ForgeKind.GITLAB else "Authorization"
        headers = {name: f"{words[self.kind]}{self.token}", "Accept": "application/json", "User-Agent": "vectl"}
        body = None if content is None else json.dumps(content).encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer: Json = json.loads(request(method, url, headers=headers, body=body))
        except ValueError as err:
            raise DownloadError(f"ask {self.api}: expected JSON") from err
        return answer


def comment(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `vectl plan --from A -o markdown` printed.")],
    forge: Annotated[ForgeKind | None, typer.Option(help="Whose API; default: that of the CI job.")] = None,
    api: Annotated[str | None, typer.Option(metavar="URL", help="Its address; default: the CI job's.")] = None,
    repository: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the CI job's.")] = None,
    request: Annotated[str | None, typer.Option(metavar="NUMBER", help="Pull request; default: the CI job's.")] = None,
    author: Annotated[
        str | None, typer.Option(metavar="LOGIN", help="Who we are; default: the forge is asked.")
    ] = None,
) -> int:
    """Write a plan into the one comment of a pull request, with the token of VECTL_TOKEN."""
    text = _read(file)
    given = {"api": api, "repository": repository, "number": request}
    pull = _pull_request(os.environ, forge, {key: value for key, value in given.items() if value})
    marker = text.splitlines()[0]
    known = _find(pull, marker, author or _login(pull))
    if known is not None:
        method, url = pull.comment(known)
        pull.ask(method, url, {"body": text})
        output.words("the comment was rewritten")
    elif len(text.splitlines()) <= 2:
        output.words("nothing changes, so nothing is said")
    else:
        pull.ask("POST", pull.comments, {"body": text})
        output.words("the comment was written")
    return int(ExitCode.OK)


def _read(file: str) -> str:
    from reconciler.kernel.files import read_bytes_if_exists

    data = read_bytes_if_exists(file)
    text = (data or b"").decode(errors="replace")
    if _MARKER.match(text) is None or len(text) > _LENGTH_MAX:
        raise UsageError(f"read {file}: expected what `vectl plan --from A --to B -o markdown` printed")
    return text


def _pull_request(environment: Mapping[str, str], kind: ForgeKind | None, given: Mapping[str, str]) -> PullRequest:
    """Find the pull request of a CI job.

    Source: GitHub, "Variables", default environment variables, which Gitea's runner sets too; GitLab, "Predefined
    CI/CD variables".
    """
    kind = kind or _kind(environment)
    if kind is ForgeKind.GITLAB:
        names = {"api": "CI_API_V4_URL", "repository": "CI_PROJECT_ID", "number": "CI_MERGE_REQUEST_IID"}
        found = {key: environment.get(name, "") for key, name in names.items()}
    else:
        number = _PULL.match(environment.get("GITHUB_REF", ""))
        found = {"api": environment.get("GITHUB_API_URL", ""), "repository": environment.get("GITHUB_REPOSITORY", "")}
        found["number"] = number[1] if number else ""
    found |= given
    token = environment.get(_TOKEN, "").strip()
    if not token:
        raise UsageError(f"comment: expected a token in {_TOKEN}")
    for key, value in found.items():
        if not value:
            raise UsageError(f"comment: expected a CI job on a pull request, or --{key.replace('number', 'request')}")
    if not found["number"].isdecimal():
        raise UsageError(f"comment: expected the number of a pull request, got {found['number']!r}")
    return PullRequest(
        kind=kind, api=found["api"].rstrip("/"), repository=found["repository"], number=found["number"], token=token
    )


def _kind(environment: Mapping[str, str]) -> ForgeKind:
    known = {"GITLAB_CI": ForgeKind.GITLAB, "GITEA_ACTIONS": ForgeKind.GITEA, "GITHUB_ACTIONS": ForgeKind.GITHUB}
    for name, kind in known.items():
        if environment.get(name):
            return kind
    raise UsageError("comment: expected a CI job of GitHub, GitLab or Gitea, or --forge")


def _login(pull: PullRequest) -> str:
    user = pull.ask("GET", f"{pull.api}/user")
    return _name(user) if isinstance(user, dict) else ""


def _name(user: Json) -> str:
    found = user.get("login") or user.get("username") if isinstance(user, dict) else None
    return str(found or "")


def _find(pull: PullRequest, marker: str, author: str) -> int | None:
    """Find our comment: anybody could write one that begins like it, and not all tokens may change it."""
    for known in _comments(pull):
        by, number, body = _name(known.get("user") or known.get("author")), known.get("id"), known.get("body")
        ours = isinstance(body, str) and body.splitlines()[:1] == [marker]
        if ours and by == author and isinstance(number, int):
            return number
    return None


def _comments(pull: PullRequest) -> Iterator[dict[str, Json]]:
    """Give all comments; a forge that knows no pages gives all of them each time."""
    seen: set[str] = set()
    for page in range(1, _PAGES_MAX + 1):
        listed = pull.ask("GET", f"{pull.comments}?per_page=100&limit=50&page={page}")
        found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        new = [one for one in found if str(one.get("id")) not in seen]
        if not new:
            return
        seen |= {str(one.get("id")) for one in new}
        yield from new
