"""User namespaces as id maps, and acting under an id without losing what root may."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import userns
from reconciler.kernel.syscalls import checked, libc
from tests.support.storage import in_child, read

pytestmark = pytest.mark.kernel

BASE = 1_000_000


def status(key: str) -> list[str]:
    lines = read("/proc/thread-self/status").splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{key}:"))


def credentials() -> tuple[list[str], list[str], list[str]]:
    return status("Uid"), status("Gid"), status("CapEff")


def test_a_namespace_maps_the_range_and_leaves_no_process() -> None:
    def open_and_enter() -> tuple[str, str]:
        fd = userns.open_user_namespace(BASE, 65536)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        checked(libc.setns(fd, 0), "enter", "user namespace")
        return read("/proc/self/uid_map"), read("/proc/self/gid_map")

    users, groups = in_child(open_and_enter)
    assert users.split() == groups.split() == ["0", str(BASE), "65536"]


def test_only_the_namespaces_descriptor_is_left_open() -> None:
    def opened() -> set[str]:
        before = set(os.listdir("/proc/self/fd"))
        fd = userns.open_user_namespace(BASE, 65536)
        return set(os.listdir("/proc/self/fd")) - before - {str(fd)}

    assert in_child(opened) == set()


def test_a_map_that_the_kernel_refuses_is_an_error_and_leaves_no_process() -> None:
    def refused() -> str:
        with pytest.raises(KernelError) as caught:
            userns.open_user_namespace((1 << 32) - 1, 65536)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        return str(caught.value)

    assert in_child(refused) == "map ids 4294967295 to 4295032830: Invalid argument"


def test_files_are_made_as_the_id_with_roots_rights_and_everything_is_as_before_afterwards(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)

    def act() -> tuple[object, object]:
        before = credentials()
        with userns.acting_as(BASE, BASE + 1):
            with open(f"{tmp_path}/f", "w"):
                os.chown(f"{tmp_path}/f", 5, -1)
            (_, _, _, fs_user), (_, _, _, fs_group), _ = credentials()
            assert (fs_user, fs_group) == (str(BASE), str(BASE + 1))
        return before, credentials()

    before, after = in_child(act)
    assert before == after
    info = os.stat(tmp_path / "f")
    assert (info.st_uid, info.st_gid) == (5, BASE + 1)


def test_no_capability_is_lost_within_the_block() -> None:
    def masks() -> tuple[list[str], list[str]]:
        before = status("CapEff")
        with userns.acting_as(BASE, BASE):
            return before, status("CapEff")

    before, within = in_child(masks)
    assert within == before


def test_an_exception_in_the_block_gives_the_ids_back() -> None:
    def act() -> tuple[object, object, str]:
        before = credentials()
        try:
            with userns.acting_as(BASE, BASE):
                raise LookupError("inside")
        except LookupError as err:
            return before, credentials(), str(err)

    before, after, message = in_child(act)
    assert (before, message) == (after, "inside")


def test_a_program_run_afterwards_does_not_inherit_the_securebits() -> None:
    def securebits() -> tuple[int, int]:
        before = libc.prctl(27, 0, 0, 0, 0)
        with userns.acting_as(BASE, BASE):
            pass
        return before, libc.prctl(27, 0, 0, 0, 0)

    before, after = in_child(securebits)
    assert before == after
