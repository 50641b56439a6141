"""Whom the agent tells what: what is not said has its default, what is wrong is told with its place."""

from __future__ import annotations

import pytest

from reconciler.errors import ConfigError
from reconciler.state.config import Config, Overrides, parse_config
from reconciler.state.notify import Forge, SlackTarget, StatusTarget, Topic, WebhookTarget

TEXT = """\
notify:
  - webhook: {url: "https://ops.example/hook?team=a", secretFile: /etc/vectl/hook.secret, ca: /etc/vectl/ca.pem}
    on: [failure, recovery, applied]
  - webhook: {urlFile: /etc/vectl/hook.url}
  - slack: {urlFile: /etc/vectl/slack.url}
    on: [failure]
  - status: {forge: github, repository: org/fleet, tokenFile: /etc/vectl/token}
  - status: {forge: gitlab, api: "https://git.example/api/v4/", repository: a/b/c, tokenFile: /etc/vectl/token}
  - status: {forge: gitea, api: "http://127.0.0.1:3000/api/v1", repository: a/b, tokenFile: /etc/vectl/token}
"""


def parse(text: str, overrides: Overrides | None = None) -> Config:
    return parse_config(text.encode(), file="c.yaml", overrides=overrides or Overrides(host="node-a"))


def test_every_target_is_taken() -> None:
    token = "/etc/vectl/token"
    assert parse(TEXT).notify == (
        WebhookTarget(
            url="https://ops.example/hook?team=a",
            secret_file="/etc/vectl/hook.secret",
            topics=frozenset(Topic),
            ca="/etc/vectl/ca.pem",
        ),
        WebhookTarget(url_file="/etc/vectl/hook.url"),
        SlackTarget(url_file="/etc/vectl/slack.url", topics=frozenset({Topic.FAILURE})),
        StatusTarget(forge=Forge.GITHUB, api="https://api.github.com", repository="org/fleet", token_file=token),
        StatusTarget(forge=Forge.GITLAB, api="https://git.example/api/v4", repository="a/b/c", token_file=token),
        StatusTarget(forge=Forge.GITEA, api="http://127.0.0.1:3000/api/v1", repository="a/b", token_file=token),
    )
    assert parse("").notify == ()
    assert parse("notify: []").notify == ()


def test_another_instance_of_the_machine_tells_nobody() -> None:
    assert parse(TEXT, Overrides(host="node-a", instance="lab")).notify == ()


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("{}", r"notify\[0\].webhook: has to be set"),
        ("{mail: {to: a@b}}", r"no such setting"),
        (
            "{slack: {urlFile: /a}, webhook: {url: 'https://a'}}",
            "expected one of webhook, slack, status, got 'webhook'",
        ),
        ("{webhook: {}}", r"notify\[0\].webhook.url: has to be set"),
        ("{webhook: {url: 'https://a', urlFile: /b}}", "expected either 'url' or 'urlFile'"),
        ("{webhook: {url: 'http://ops.example/'}}", "expected https:// and a name"),
        ("{webhook: {url: 'https://me:secret@ops.example/'}}", "without a password"),
        ("{webhook: {url: 'http://127.0.0.1.evil.example/'}}", "expected https:// and a name"),
        ("{webhook: {url: 'file:///etc/shadow'}}", "expected https:// and a name"),
        ("{webhook: {url: 'https://a/b c'}}", "expected https:// and a name"),
        ("{webhook: {url: 'https://a'}, on: [disaster]}", "expected one of failure, recovery, applied, got 'disaster'"),
        ("{slack: {url: 'https://a'}}", "urlFile: has to be set"),
        ("{status: {repository: a/b, tokenFile: /t}}", "forge: has to be set"),
        ("{status: {forge: svn, repository: a/b, tokenFile: /t}}", "expected one of github, gitlab, gitea"),
        ("{status: {forge: gitea, repository: a/b, tokenFile: /t}}", "api: has to be set"),
        ("{status: {forge: github, repository: ../b, tokenFile: /t}}", "expected an owner and a name"),
        ("{status: {forge: github, repository: a/b, tokenFile: /t}, on: [failure]}", "no such setting"),
    ],
)
def test_a_mistake_is_told_with_its_place(item: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"c\.yaml:1:\d+: .*{problem}") as caught:
        parse(f"notify: [{item}]")
    assert "secret@" not in str(caught.value)
