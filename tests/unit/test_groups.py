"""A claim about the test runner: tests that share a fixture by their group run on one worker, in their order."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

GROUPED = """
    import pytest

    pytestmark = pytest.mark.xdist_group("one")
    seen = []

    @pytest.mark.parametrize("number", range(8))
    def test_all_before_ran_here(number):
        assert seen == list(range(number))
        seen.append(number)
"""


def test_a_group_stays_on_one_worker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(GROUPED)
    arguments = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-n", "2", "--dist", "loadgroup")
    assert pytester.runpytest(*arguments).ret == pytest.ExitCode.OK
