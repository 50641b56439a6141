"""How risky changes are made, as the configuration says it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from reconciler.errors import ConfigError
from reconciler.model.host_risk import DEFAULT_RISK, PingCheck, RiskSettings, TcpCheck
from reconciler.state.config import Overrides, parse_config


def parse(text: str) -> RiskSettings:
    return parse_config(text.encode(), file="config.yaml", overrides=Overrides(instance="t", host="here")).risk


def test_without_a_word_a_minute_is_given_to_confirm() -> None:
    assert parse("") == DEFAULT_RISK


def test_all_of_it() -> None:
    text = "hostRisk:\n  management: [192.0.2.11, 2001:db8::11]\n  confirm: 90s\n  hold: 5s\n"
    text += "  check: ['tcp://192.0.2.1:22', 'tcp://[2001:db8::1]:443', tcp://gw.example.org:80, ping 192.0.2.1]\n"
    found = parse(text)
    assert found.management == {ip_address("192.0.2.11"), ip_address("2001:db8::11")}
    assert (found.confirm_s, found.hold_s) == (90, 5)
    assert found.checks == (
        TcpCheck(host="192.0.2.1", port=22),
        TcpCheck(host="2001:db8::1", port=443),
        TcpCheck(host="gw.example.org", port=80),
        PingCheck(address=ip_address("192.0.2.1")),
    )
    assert [str(check) for check in found.checks][1:] == [
        "tcp://[2001:db8::1]:443",
        "tcp://gw.example.org:80",
        "ping 192.0.2.1",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("management: [eno1]", "expected an IP address"),
        ("check: ['udp://192.0.2.1:53']", "expected a check such as"),
        ("check: ['tcp://192.0.2.1']", "expected a check such as"),
        ("check: ['tcp://192.0.2.1:0']", "expected a check such as"),
        ("check: [ping gw]", "expected an IP address"),
        ("{confirm: 5s, hold: 5s, check: [ping 192.0.2.1]}", "shorter than 'confirm'"),
        ("{confirm: 5s, check: [ping 192.0.2.1]}", "shorter than 'confirm'"),
        ("confirms: 5s", "did you mean 'confirm'"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(f"hostRisk:\n  {text}\n")
