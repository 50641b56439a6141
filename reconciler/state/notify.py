"""Whom the agent tells what, as the configuration says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, TypeVar

from reconciler.state import scalars
from reconciler.state.settings import Section


class Topic(StrEnum):
    """What somebody may want to hear of."""

    FAILURE = "failure"
    RECOVERY = "recovery"
    APPLIED = "applied"


class Forge(StrEnum):
    """Forges whose commits can have statuses."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"


DEFAULT_TOPICS = frozenset({Topic.FAILURE, Topic.RECOVERY})

_APIS: Mapping[Forge, str] = {Forge.GITHUB: "https://api.github.com", Forge.GITLAB: "https://gitlab.com/api/v4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTarget:
    """A server that is sent JSON. ``url_file``: where the address itself is secret. ``secret_file``: to sign with.

    ``ca``: the path of a PEM file of the authorities that are believed, None for those of the system.
    """

    url: str = ""
    url_file: str | None = None
    secret_file: str | None = None
    topics: frozenset[Topic] = DEFAULT_TOPICS
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackTarget:
    """An incoming webhook of Slack, or of what understands the same. Its address is the secret."""

    url_file: str
    topics: frozenset[Topic] = DEFAULT_TOPICS
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTarget:
    """The statuses of a repository's commits."""

    forge: Forge
    api: str
    repository: str
    token_file: str
    ca: str | None = None


Target: TypeAlias = WebhookTarget | SlackTarget | StatusTarget

_W = TypeVar("_W", bound=StrEnum)

_KINDS = ("webhook", "slack", "status")


def parse_notify(top: Section) -> tuple[Target, ...]:
    """Take ``notify`` from the configuration: a list, each of ``webhook``, ``slack`` or ``status``."""
    found = (_target(one) for one in top.sections("notify") or ())
    return tuple(target for target in found if target is not None)


def _word(kind: type[_W]) -> Callable[[str], _W]:
    def parse(text: str) -> _W:
        try:
            return kind(text)
        except ValueError as err:
            raise ValueError(f"expected one of {', '.join(kind)}, got {text!r}") from err

    return parse


def _target(section: Section) -> Target | None:
    given = [kind for kind in _KINDS if section.setting(kind) is not None]
    for kind in given[1:]:
        section.refuse(kind, f"expected one of {', '.join(_KINDS)}, got {given[0]!r} too")
    if not given:
        section.require("webhook")
        section.end()
        return None
    body = section.section(given[0])
    made = _status(body) if given[0] == "status" else _message(given[0], body, section)
    body.end()
    section.end()
    return made


def _message(kind: str, body: Section, section: Section) -> WebhookTarget | SlackTarget:
    topics = section.values("on", _word(Topic))
    chosen = DEFAULT_TOPICS if topics is None else frozenset(topics)
    url_file = body.value("urlFile", scalars.absolute_path)
    ca = body.value("ca", scalars.absolute_path)
    if kind == "slack":
        body.require("urlFile")
        return SlackTarget(url_file=url_file or "", topics=chosen, ca=ca)
    url = body.value("url", scalars.http_url) or ""
    if body.setting("urlFile") is None:
        body.require("url")
    elif url:
        body.refuse("urlFile", "expected either 'url' or 'urlFile', got both")
    secret = body.value("secretFile", scalars.absolute_path)
    return WebhookTarget(url=url, url_file=url_file, secret_file=secret, topics=chosen, ca=ca)


def _status(body: Section) -> StatusTarget:
    for key in ("forge", "repository", "tokenFile"):
        body.require(key)
    forge = body.value("forge", _word(Forge)) or Forge.GITHUB
    api = body.value("api", scalars.http_url) or _APIS.get(forge, "")
    if not api:
        body.require("api")
    return StatusTarget(
        forge=forge,
        api=api.rstrip("/"),
        repository=body.value("repository", scalars.repository) or "",
        token_file=body.value("tokenFile", scalars.absolute_path) or "",
        ca=body.value("ca", scalars.absolute_path),
    )
