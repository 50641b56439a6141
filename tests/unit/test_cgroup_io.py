"""Claims about the files that hold the limits of disk traffic, by the texts that the kernel prints."""

from __future__ import annotations

import pytest

from reconciler.kernel import cgroup_io
from reconciler.kernel.cgroup_layout import Layout
from reconciler.kernel.cgroup_values import LimitValue
from reconciler.kernel.disks import Disks, Sharing

TWO = Disks(numbers=("8:0", "8:16"), sharing=Sharing.BFQ)
PURE = Layout(unified="/u", unified_controllers=frozenset({"io"}), legacy={}, disks=TWO)
HYBRID = Layout(unified="/u", unified_controllers=frozenset(), legacy={"blkio": "/b"}, disks=TWO)


def decoded(layout: Layout, limit: str, text: str) -> LimitValue:
    (files,) = (files for name, _, files in cgroup_io.files(layout) if name == limit)
    return files.decode((text,))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("8:0 rbps=max wbps=9 riops=max wiops=max\n", cgroup_io.DIFFERING),
        ("8:0 rbps=1 wbps=9 riops=max wiops=max\n8:16 rbps=max wbps=9 riops=max wiops=max\n", 9),
        ("7:0 rbps=max wbps=4 riops=max wiops=max\n", None),
    ],
)
def test_a_limit_on_v2_is_what_all_disks_have(text: str, value: LimitValue) -> None:
    assert decoded(PURE, "io.write", text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("8:0 9\n", cgroup_io.DIFFERING), ("8:0 9\n8:16 9\n7:0 3\n", 9), ("7:0 3\n", None)],
)
def test_a_limit_on_v1_is_what_all_disks_have(text: str, value: LimitValue) -> None:
    assert decoded(HYBRID, "io.readOps", text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100\n", 100),
        ("default 250\n", 250),
        ("default 250\n8:0 300\n", cgroup_io.DIFFERING),
        ("default 250\n8:0 300\n8:16 300\n7:0 1\n", 300),
    ],
)
def test_a_weight_is_what_all_disks_share_by(text: str, value: LimitValue) -> None:
    assert decoded(PURE, "io.weight", text) == value


def test_without_disks_or_a_controller_nothing_is_limited() -> None:
    assert list(cgroup_io.files(Layout(unified="/u", unified_controllers=frozenset({"io"}), legacy={}))) == []
    assert list(cgroup_io.files(Layout(unified="/u", unified_controllers=frozenset(), legacy={}, disks=TWO))) == []


def test_without_a_scheduler_that_shares_there_is_no_weight() -> None:
    plain = Layout(unified="/u", unified_controllers=frozenset({"io"}), legacy={}, disks=Disks(numbers=("8:0",)))
    assert "io.weight" not in {name for name, _, _ in cgroup_io.files(plain)}
