"""Claims about the examination of a host: what is lost there is a warning that says how to get it back."""

from __future__ import annotations

import pytest

from reconciler.host import probes
from reconciler.kernel import cgroup_file, cgroup_layout, sysctl
from reconciler.kernel.cgroup_layout import Layout
from reconciler.model.probe import Level, Probe

V2 = Layout(unified="/sys/fs/cgroup", unified_controllers=frozenset({"cpu", "memory"}), legacy={})
HYBRID = Layout(unified="/cg/unified", unified_controllers=frozenset(), legacy={"memory": "/cg/memory"})


def guarantees(monkeypatch: pytest.MonkeyPatch, layout: Layout, options: str) -> Probe:
    line = f"24 1 0:21 / {layout.unified} rw,nosuid shared:4 - cgroup2 cgroup2 {options}\n"
    monkeypatch.setattr(cgroup_layout, "detect", lambda: layout)
    monkeypatch.setattr(cgroup_file, "read", lambda path: line)
    (found,) = (probe for probe in probes.examine_memory_protection())
    return found


def test_a_cgroup2_that_was_mounted_anew_without_passing_protection_down_is_a_warning_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = guarantees(monkeypatch, V2, "rw,nsdelegate")
    assert found.level is Level.WARN
    assert "without memory_recursiveprot" in found.found
    assert "`mount -o remount,nsdelegate,memory_recursiveprot /sys/fs/cgroup`" in found.remedy


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        pytest.param(V2, "rw,nsdelegate,memory_recursiveprot", id="passed"),
        pytest.param(HYBRID, "rw", id="memory-on-v1"),
    ],
)
def test_where_protection_is_passed_down_or_is_none_nothing_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, options: str
) -> None:
    assert guarantees(monkeypatch, layout, options).level is Level.OK


@pytest.mark.parametrize(("instances", "level"), [("128\n", Level.WARN), ("8192\n", Level.OK)])
def test_few_inotify_instances_for_everybody_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, instances: str, level: Level
) -> None:
    monkeypatch.setattr(sysctl, "read", lambda name: instances.strip())
    [found] = probes.examine_inotify()
    assert found.level is level
    assert instances.strip() in found.found
