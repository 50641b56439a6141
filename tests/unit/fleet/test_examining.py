"""What members of etcd are worth, by what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.fleet.examining import is_safe, judge
from reconciler.model.kv import StoreStatus
from reconciler.model.probe import Level

WELL = StoreStatus(endpoint="https://a", version="3.5.30", cluster="c1", revision=7, healthy=True, answered_in_s=0.002)
AWAY = replace(WELL, endpoint="https://b", healthy=False, problem="no answer within 2 s")


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.4.44", False),
        ("3.5.29", False),
        ("3.5.30", True),
        ("3.5.30-rc.1", True),
        ("3.6.0", False),
        ("3.6.10", False),
        ("3.6.11", True),
        ("3.7.0", True),
        ("4.0.0", True),
        ("", False),
    ],
)
def test_old_releases_are_known(version: str, safe: bool) -> None:
    assert is_safe(version) is safe


@pytest.mark.parametrize(
    ("statuses", "level", "told"),
    [
        pytest.param((WELL, WELL, WELL), Level.OK, "cluster c1, 3 of 3 endpoints", id="well"),
        pytest.param((WELL, AWAY, WELL), Level.OK, "2 of 3 endpoints answer for a quorum", id="one-away"),
        pytest.param((AWAY,), Level.FAIL, "no member answers for a quorum", id="none"),
        pytest.param((WELL, replace(WELL, cluster="c2")), Level.FAIL, "2 clusters: c1, c2", id="two-clusters"),
    ],
)
def test_a_cluster_is_judged_by_its_quorum(statuses: tuple[StoreStatus, ...], level: Level, told: str) -> None:
    *_, whole = judge(statuses)
    assert (whole.name, whole.level) == ("coordinator", level)
    assert told in whole.found


@pytest.mark.parametrize(
    ("status", "told", "remedy"),
    [
        pytest.param(AWAY, "no answer within 2 s", "the way to it", id="away"),
        pytest.param(replace(WELL, version="3.5.16"), "etcd 3.5.16, in which users", "3.5.30", id="old"),
        pytest.param(replace(WELL, answered_in_s=0.9), "900 ms", "a disk and a network of its own", id="slow"),
        pytest.param(replace(WELL, clock_ahead_s=-7.2), "7 s behind this host's", "chrony", id="clock"),
        pytest.param(replace(WELL, problem="ALARM NOSPACE"), "ALARM NOSPACE", "alarm disarm", id="full"),
    ],
)
def test_a_member_is_warned_of_with_a_remedy(status: StoreStatus, told: str, remedy: str) -> None:
    member, *_ = judge((status,))
    assert (member.name, member.level) == (f"coordinator {status.endpoint}", Level.WARN)
    assert told in member.found
    assert remedy in member.remedy
