"""What is sent to whom: JSON of our own, the form of Slack, and the statuses of three forges.

Source: GitHub REST API "Create a commit status"; GitLab API "Set commit pipeline status"; Gitea API
"repoCreateStatus"; Slack "Sending messages using incoming webhooks" and "Formatting text".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import assert_never
from urllib.parse import quote

from reconciler.agent.notices import Notice
from reconciler.agent.standing import Phase, Progress
from reconciler.errors import ConfigError
from reconciler.kernel.secret import read_secret
from reconciler.model.facts import Json
from reconciler.plan.words import printable
from reconciler.state import scalars
from reconciler.state.notify import Forge, SlackTarget, StatusTarget, Topic, WebhookTarget
from reconciler.web.client import Message

FORMAT = 1
NOTICES_MAX = 50
"""How many notices one message of ours lists; of the others their number is told."""

_LINES_MAX = 15
_TEXT_MAX = 500
_DESCRIPTION_MAX = 140
_SHOWN_REVISION = 12

_SIGNS = {Topic.FAILURE: ":red_circle:", Topic.RECOVERY: ":large_green_circle:", Topic.APPLIED: ":rocket:"}
_WORDS: Mapping[Forge, Mapping[Phase, str]] = {
    Forge.GITHUB: {
        Phase.PENDING: "pending",
        Phase.SUCCESS: "success",
        Phase.FAILURE: "failure",
        Phase.SUPERSEDED: "error",
    },
    Forge.GITLAB: {
        Phase.PENDING: "pending",
        Phase.SUCCESS: "success",
        Phase.FAILURE: "failed",
        Phase.SUPERSEDED: "canceled",
    },
    Forge.GITEA: {
        Phase.PENDING: "pending",
        Phase.SUCCESS: "success",
        Phase.FAILURE: "failure",
        Phase.SUPERSEDED: "warning",
    },
}


def webhook(target: WebhookTarget, host: str, notices: Sequence[Notice]) -> Message:
    """Give notices in our own form, signed where there is a secret.

    Raises: ConfigError, RefusedError, KernelError, if a secret cannot be read.
    """
    items: list[Json] = [_short(notice) for notice in notices[:NOTICES_MAX]]
    body = _json({"format": FORMAT, "host": host, "notices": items, "more": max(0, len(notices) - NOTICES_MAX)})
    headers = {}
    if target.secret_file is not None:
        digest = hmac.new(read_secret(target.secret_file).encode(), body, hashlib.sha256).hexdigest()
        headers["X-Vectl-Signature"] = f"sha256={digest}"
    url = target.url if target.url_file is None else _url(target.url_file)
    return Message(url=url, body=body, headers=headers, ca=target.ca)


def slack(target: SlackTarget, host: str, notices: Sequence[Notice]) -> Message:
    """Give notices as a text that Slack shows.

    Raises: ConfigError, RefusedError, KernelError, if the address cannot be read.
    """
    lines = [_line(host, notice) for notice in notices[:_LINES_MAX]]
    if len(notices) > _LINES_MAX:
        lines.append(f"and {len(notices) - _LINES_MAX} more: `vectl get` on {_escaped(host)}")
    return Message(url=_url(target.url_file), body=_json({"text": "\n".join(lines)}), ca=target.ca)


def status(target: StatusTarget, host: str, progress: Progress) -> Message:
    """Give how far a commit is on a host as its status.

    Raises: ConfigError, RefusedError, KernelError, if the token cannot be read.
    """
    token = read_secret(target.token_file)
    context, word = f"vectl/applied/{host}", _WORDS[target.forge][progress.phase]
    description = _cut(progress.summary, _DESCRIPTION_MAX)
    fields: dict[str, Json] = {"state": word, "description": description}
    match target.forge:
        case Forge.GITHUB:
            path = f"/repos/{target.repository}/statuses/{progress.revision}"
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
            fields["context"] = context
        case Forge.GITLAB:
            path = f"/projects/{quote(target.repository, safe='')}/statuses/{progress.revision}"
            headers = {"PRIVATE-TOKEN": token}
            fields["name"] = context
        case Forge.GITEA:
            path = f"/repos/{target.repository}/statuses/{progress.revision}"
            headers = {"Authorization": f"token {token}"}
            fields["context"] = context
        case _:
            assert_never(target.forge)
    return Message(url=target.api + path, body=_json(fields), headers=headers, ca=target.ca)


def is_as_told(target: StatusTarget, text: str) -> bool:
    """Say whether a forge refuses a status because the commit has it already.

    Source: GitLab, CommitStatus, "Cannot transition status via :enqueue from :pending".
    """
    return target.forge is Forge.GITLAB and "Cannot transition status" in text


def _url(path: str) -> str:
    try:
        return scalars.http_url(read_secret(path))
    except ValueError as err:
        raise ConfigError(f"read {path}: {err}") from err


def _short(notice: Notice) -> dict[str, Json]:
    return {**notice.to_json(), "message": _cut(notice.message, _TEXT_MAX)}


def _line(host: str, notice: Notice) -> str:
    revision = f" (revision {notice.revision[:_SHOWN_REVISION]})" if notice.topic is Topic.APPLIED else ""
    subject = host if notice.subject == host else f"{host}/{notice.subject}"
    text = f"{notice.reason}: {_cut(notice.message, _TEXT_MAX)}{revision}"
    return f"{_SIGNS[notice.topic]} *{_escaped(subject)}* {_escaped(text)}"


def _escaped(text: str) -> str:
    """Keep a text from being a link, a mention or a style: parts of it a VE or a stranger wrote."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"{char}\u200b" if char in "*_~`@" else char for char in plain)


def _cut(text: str, most: int) -> str:
    line = printable(text.replace("\n", " "))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _json(value: dict[str, Json]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
