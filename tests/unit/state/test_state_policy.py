"""The policy file: strict, root's alone, and never widened by a mistake in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, RefusedError
from reconciler.model.action import Impact
from reconciler.model.policy import DEFAULT_POLICY, FEATURES, SAFE_DEVICES, DeviceRule, MountRule
from reconciler.state.policy import PolicyFile, load_policy, parse_policy

EVERYTHING = b"""\
mounts:
  - {source: /srv/data}
  - {source: /srv/iso, readOnly: true}
devices:
  - {path: /dev/net/tun}
  - {path: /dev/dri/*, access: r}
nics: [enp5s*]
features: [fuse]
addresses: [10.20.0.0/24, "fd00:20::/64"]
maxVEs: 3
"""


def test_without_a_file_the_policy_is_the_safe_one(tmp_path: Path) -> None:
    policy = load_policy(str(tmp_path / "none.yaml"))
    assert policy == DEFAULT_POLICY
    assert (policy.mounts, policy.nics, policy.devices, policy.features) == ((), (), SAFE_DEVICES, FEATURES)


def test_an_empty_file_says_nothing() -> None:
    assert parse_policy(b"", file="") == DEFAULT_POLICY


def test_every_rule_is_taken_with_its_line() -> None:
    policy = parse_policy(EVERYTHING, file="p.yaml")
    assert policy.mounts == (MountRule(source="/srv/data"), MountRule(source="/srv/iso", read_only=True))
    assert policy.devices == (DeviceRule(path="/dev/net/tun"), DeviceRule(path="/dev/dri/*", access="r"))
    assert (policy.nics, policy.features, policy.ves_max) == (("enp5s*",), frozenset({"fuse"}), 3)
    assert [str(network) for network in policy.addresses or ()] == ["10.20.0.0/24", "fd00:20::/64"]
    assert policy.lines == {"mounts": 1, "devices": 4, "nics": 7, "features": 8, "addresses": 9, "maxVEs": 10}


def test_a_review_is_asked_for_by_word() -> None:
    assert not DEFAULT_POLICY.require_reviewed
    policy = parse_policy(b"requireReviewed: true\nreviewedBelow: live\n", file="")
    assert (policy.require_reviewed, policy.reviewed_below) == (True, Impact.LIVE)
    assert parse_policy(b"reviewedBelow: none\n", file="").reviewed_below is None


def test_a_mistake_in_a_policy_takes_no_demand_for_reviews_back(tmp_path: Path) -> None:
    asking = PolicyFile(_written(tmp_path, "requireReviewed: treu\n"))
    assert asking.look().require_reviewed
    (tmp_path / "policy.yaml").write_text("maxVEs: 5x\n")
    assert not PolicyFile(str(tmp_path / "policy.yaml")).look().require_reviewed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mount: []", "mount: no such setting; did you mean 'mounts'?"),
        ("mounts: [/srv]", "mounts[0]: expected keys with values"),
        ("mounts: [{readOnly: true}]", "mounts[0].source: has to be set"),
        ("mounts: [{source: /srv/../etc}]", "expected an absolute path"),
        ("mounts: [{source: /srv, readonly: true}]", "did you mean 'readOnly'?"),
        ("mounts: [{source: /srv, readOnly: yes}]", "expected true or false"),
        ("devices: [{path: /srv/x}]", "expected a path below /dev"),
        ("devices: [{path: /dev/x, access: rx}]", "expected some of r, w, m"),
        ("features: [privileged]", "expected fuse or nesting"),
        ("addresses: [10.0.0.1/24]", "expected a network such as"),
        ("maxVEs: many", "expected a number from 0"),
        ("requireReviewed: yes", "expected true or false"),
        ("reviewedBelow: recreate", "expected one of none, live, live-risk, network, pause, restart"),
        ("nics: &a [eth0]", "expected plain YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"read p\.yaml:1:\d+: ") as caught:
        parse_policy(text.encode(), file="p.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize(("mode", "owner"), [(0o664, 0), (0o646, 0), (0o644, 12345)], ids=["group", "all", "owner"])
def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path, mode: int, owner: int) -> None:
    file = _written(tmp_path, "maxVEs: 3\n")
    os.chmod(file, mode)
    os.chown(file, owner, 0)
    with pytest.raises(RefusedError, match=r"expected a file that only root may write.*chown root .*chmod go-w"):
        load_policy(file)


def test_a_fifo_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    file = str(tmp_path / "policy.yaml")
    os.mkfifo(file)
    with pytest.raises(RefusedError):
        load_policy(file)


def test_a_policy_that_breaks_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    follower = PolicyFile(_written(tmp_path, "maxVEs: 3\n"))
    assert follower.look().ves_max == 3
    _written(tmp_path, "maxVEs: 5x\n")
    assert (follower.look().ves_max, "5x" in follower.problem) == (3, True)
    _written(tmp_path, "maxVEs: 4\n")
    assert (follower.look().ves_max, follower.problem) == (4, "")


def test_a_policy_that_was_never_good_allows_nothing(tmp_path: Path) -> None:
    follower = PolicyFile(_written(tmp_path, "maxVEs: 5x\n"))
    policy = follower.look()
    assert (policy.mounts, policy.devices, policy.nics, policy.addresses, policy.ves_max) == ((), (), (), (), 0)
    assert not policy.features
    assert "5x" in policy.broken
    _written(tmp_path, "nics: [eth1]\n")
    assert follower.look().allows_nic("eth1")


def _written(folder: Path, text: str) -> str:
    file = folder / "policy.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return str(file)
