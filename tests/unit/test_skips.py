"""Claims about the guard that keeps skips from hiding what was not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import skips

pytest_plugins = ["pytester"]

QUICKLY = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--assert", "plain")

SKIPPED = """
    import pytest

    def test_runs(): pass

    @pytest.mark.skipif(True, reason="no such device here")
    def test_skips(): pass
"""


def run(pytester: pytest.Pytester, code: str, *allowed: str, strict: bool, arguments: tuple[str, ...] = ()) -> int:
    """Run tests under a guard and return the status that the run ends with."""
    listed = pytester.makefile(".txt", allowed="\n".join(allowed))
    pytester.makeconftest(f"""
        from pathlib import Path
        from tests.support import skips

        def pytest_configure(config):
            if not hasattr(config, "workerinput"):
                allowed = skips.load_allowed(Path({str(listed)!r}))
                config.pluginmanager.register(skips.SkipGuard(allowed, strict={strict}))
    """)
    pytester.makepyfile(test_it=code)
    return int(pytester.runpytest(*QUICKLY, *arguments).ret)


def test_a_skip_that_nobody_allowed_fails_in_ci(pytester: pytest.Pytester) -> None:
    assert run(pytester, SKIPPED, strict=True) == pytest.ExitCode.TESTS_FAILED


def test_a_skip_that_nobody_allowed_fails_in_ci_on_workers_and_in_groups(pytester: pytest.Pytester) -> None:
    code = SKIPPED.replace("@pytest.mark.skipif", "@pytest.mark.xdist_group('one')\n    @pytest.mark.skipif")
    parallel = ("-n", "2", "--dist", "loadgroup")
    assert run(pytester, code, strict=True, arguments=parallel) == pytest.ExitCode.TESTS_FAILED
    listed = "test_it.py::test_skips | no such device*"
    assert run(pytester, code, listed, strict=True, arguments=parallel) == pytest.ExitCode.OK


def test_a_skip_at_home_is_no_failure(pytester: pytest.Pytester) -> None:
    assert run(pytester, SKIPPED, strict=False) == pytest.ExitCode.OK


def test_an_allowed_skip_passes_and_is_shown_with_its_reason(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(pytester, SKIPPED, "# why", "test_it.py::* | no such device here", strict=True) == pytest.ExitCode.OK
    assert "allowed: test_it.py::test_skips: no such device here" in capsys.readouterr().out


def test_the_same_skip_for_another_reason_is_not_allowed(pytester: pytest.Pytester) -> None:
    listed = "test_it.py::test_skips | requires cgroup v2"
    assert run(pytester, SKIPPED, listed, strict=True) == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("arguments", [(), ("-n", "1")], ids=["alone", "on a worker"])
def test_a_module_that_skips_itself_is_seen(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    pytester.makepyfile(test_module="import pytest\npytest.skip('no such kernel', allow_module_level=True)")
    runs = "def test_runs(): pass"
    assert run(pytester, runs, strict=True, arguments=arguments) == pytest.ExitCode.TESTS_FAILED
    listed = "test_module.py | no such kernel"
    assert run(pytester, runs, listed, strict=True, arguments=arguments) == pytest.ExitCode.OK


def test_a_run_of_allowed_skips_alone_fails_in_ci(pytester: pytest.Pytester) -> None:
    code = "import pytest\ndef test_skips(): pytest.skip('why')"
    assert run(pytester, code, "* | *", strict=True) == pytest.ExitCode.TESTS_FAILED
    assert run(pytester, code, "* | *", strict=False) == pytest.ExitCode.OK


def test_an_expected_failure_is_no_skip(pytester: pytest.Pytester) -> None:
    code = "import pytest\ndef test_runs(): pass\n@pytest.mark.xfail\ndef test_fails(): assert False"
    assert run(pytester, code, strict=True) == pytest.ExitCode.OK


def test_a_failed_run_stays_failed(pytester: pytest.Pytester) -> None:
    assert run(pytester, "def test_fails(): assert False", strict=True) == pytest.ExitCode.TESTS_FAILED
    assert run(pytester, "", strict=True) == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize(
    ("value", "strict"), [("true", True), ("1", True), ("false", False), ("", False), (None, False)], ids=repr
)
def test_ci_says_so_in_its_environment(value: str | None, *, strict: bool) -> None:
    assert skips.is_strict({} if value is None else {"CI": value}) is strict


def test_brackets_in_a_pattern_are_brackets() -> None:
    allowed = skips.Allowed("a.py::test[*]", "*")
    assert allowed.covers(skips.Skip("a.py::test[x-1]", "why"))
    assert not allowed.covers(skips.Skip("a.py::testx", "why"))


@pytest.mark.parametrize("line", ["a.py::test", "a.py::test |", "| why"])
def test_a_line_without_test_or_reason_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "allowed.txt"
    path.write_text(line)
    with pytest.raises(pytest.UsageError, match=r"expected 'test \| reason'"):
        skips.load_allowed(path)
