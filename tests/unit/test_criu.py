"""Claims about what criu is told, and what its log is understood to say."""

from __future__ import annotations

import itertools

import pytest

from reconciler.kernel import criu
from reconciler.kernel.criu import DumpSpec, RestoreSpec, parse_error

DUMP = DumpSpec(
    program="/p/criu", pid=7, images="/i", work="/w", freezer="/f/a", externals={"/dev/null": "/dev/null"}, hook="/h"
)
RESTORE = RestoreSpec(
    program="criu", images="/i", work="/w", root="/r", externals={"/a": "/dev/null"}, hook="/h", cgroup="/v/u/ve"
)

NOISE = """(00.038609) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.04) Dumping task (pid: 4711 comm: my (odd) name)
"""
TAIL = "(00.05) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"


def pairs(argv: tuple[str, ...]) -> set[tuple[str, str]]:
    return set(itertools.pairwise(argv))


def test_a_dump_names_the_frozen_cgroup_and_what_is_the_hosts() -> None:
    told = pairs(criu.dump_argv(DUMP))
    assert {("--freeze-cgroup", "/f/a"), ("--external", "mnt[/dev/null]:/dev/null"), ("--tree", "7")} <= told
    assert "--leave-running" not in criu.dump_argv(DUMP)


def test_a_restore_gives_what_is_the_hosts_and_is_not_waited_for() -> None:
    argv = criu.restore_argv(RESTORE)
    assert {("--root", "/r"), ("--external", "mnt[/a]:/dev/null"), ("--action-script", "/h")} <= pairs(argv)
    assert "--restore-detached" in argv


def test_a_restore_puts_a_ve_in_its_cgroup_wherever_it_was_dumped() -> None:
    assert ("--cgroup-root", "/v/u/ve") in pairs(criu.restore_argv(RESTORE))


@pytest.mark.parametrize("argv", [criu.dump_argv(DUMP), criu.restore_argv(RESTORE)])
def test_both_read_no_options_of_the_host_and_keep_connections(argv: tuple[str, ...]) -> None:
    assert {"--no-default-config", "--tcp-established", "--file-locks", "--link-remap"} <= set(argv)
    assert "--manage-cgroups=soft" in argv


def test_the_process_that_a_dump_had_come_to_is_named() -> None:
    text = f"{NOISE}(00.05) Error (criu/files.c:9): Can't dump file 3 of that type\n{TAIL}"
    assert parse_error(text, {}) == "process 4711 (my (odd) name): Can't dump file 3 of that type"


def test_a_process_that_is_spoken_of_is_named() -> None:
    text = "(00.05) Error (criu/namespaces.c:9): Can't dump nested uts namespace for 24742\n"
    assert parse_error(text, {"24742": "sleep", "5": "x"}) == (
        "process 24742 (sleep): Can't dump nested uts namespace for 24742"
    )


def test_the_process_that_speaks_in_a_restore_is_named() -> None:
    text = "(00.04)      1: Error (criu/image.c:635): Unable to open tty-info.img: Permission denied\n"
    assert parse_error(text, {"1": "init"}) == "process 1 (init): Unable to open tty-info.img: Permission denied"


@pytest.mark.parametrize("text", ["", NOISE, NOISE + TAIL, "(00.1) Warn  (criu/x.c:1): odd\n"])
def test_what_is_said_at_the_end_of_any_failure_is_no_reason(text: str) -> None:
    assert parse_error(text, {}) is None
