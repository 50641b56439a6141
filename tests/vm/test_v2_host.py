"""Claims about vectl on a stock Debian 13 host: cgroup v2 alone, kernel 6.12, no network but loopback."""

import json
import pathlib
import sys
from xml.etree import ElementTree

import pytest

from tests.support import skips
from tests.vm import guest, prepared

SUITE_SECONDS = 7200.0
# Software emulation runs Python ten to thirty times slower.
TEST_SECONDS = 1200
FLEET_SECONDS = 900.0
ALLOWED = [folder / "allowed_skips.txt" for folder in pathlib.Path(__file__).parents[:2]]

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2 * SUITE_SECONDS)]


def test_the_host_has_cgroup_v2_alone(host: guest.Guest) -> None:
    mounted = host.check("awk '$3 ~ /^cgroup/ {print $3, $2}' /proc/mounts", 60)
    assert mounted.splitlines() == ["cgroup2 /sys/fs/cgroup"]


def test_the_example_fleet_is_applied_and_stays(host: guest.Guest) -> None:
    try:
        applied = vectl(host, "apply desired/ --yes -o json")
        assert json.loads(applied.splitlines()[-1])["converged"] is True
        shown = json.loads(vectl(host, "get -o json"))
        ready = {item["name"]: item["conditions"][0]["status"] for item in shown["items"]}
        assert ready
        assert set(ready.values()) == {"True"}
        again = vectl(host, "apply desired/ --yes -o json")
        assert json.loads(again.splitlines()[-1])["effects"] == 0
    finally:
        down = host.run(f"{prepared.ENTER}; vectl down --yes", FLEET_SECONDS)
    assert down.status == 0, down.output


def test_tests_on_the_kernel_pass_on_cgroup_v2(host: guest.Guest, tmp_path: pathlib.Path) -> None:
    run = f"pytest tests/kernel tests/e2e -m 'not long and not vm' -n 2 --dist loadgroup --timeout {TEST_SECONDS}"
    run += " --junitxml /root/junit.xml"
    status = host.run(f"{prepared.ENTER}; {run}", SUITE_SECONDS, echo=sys.stdout.buffer).status
    assert status == 0
    host.copy_out("/root/junit.xml", tmp_path / "junit.xml")
    cases = ElementTree.parse(tmp_path / "junit.xml").findall(".//testcase")
    skipped = [skip for case in cases for skip in skipped_in(case)]
    allowed = [line for path in ALLOWED for line in skips.load_allowed(path)]
    assert len(cases) > len(skipped)
    assert [skip for skip in skipped if not any(line.covers(skip) for line in allowed)] == []


def vectl(host: guest.Guest, arguments: str) -> str:
    """Run vectl in the tree; what it says to people goes to a file, and its data is given."""
    return host.check(
        f"{prepared.ENTER}; vectl {arguments} 2>/root/said || {{ s=$?; cat /root/said; exit $s; }}", FLEET_SECONDS
    )


def skipped_in(case: ElementTree.Element) -> list[skips.Skip]:
    """Give the skips of a case; an expected failure is none."""
    name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
    found = [skip for skip in case.findall("skipped") if skip.get("type") == "pytest.skip"]
    return [skips.Skip(name, skip.get("message", "")) for skip in found]
