"""Owners moved to another range of ids: everything that names one goes along, and nothing else changes."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from reconciler.host import image as volumes
from reconciler.kernel import btrfs, image, quota
from reconciler.kernel.shift import Shift, shift_owners, shifted_access_list, shifted_capability
from tests.support import storage

pytestmark = pytest.mark.kernel

BEFORE, AFTER = 300_000, 700_000
SHIFT = Shift(before=BEFORE, after=AFTER, count=65536)
MIB = 1 << 20


def access_list(user: int) -> bytes:
    """An access list that names a user and a group."""
    entries = (
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 6, user),
        (0x04, 5, 0xFFFFFFFF),
        (0x08, 4, user + 1),
        (0x10, 7, 0xFFFFFFFF),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *it) for it in (*entries, (0x20, 4, 0xFFFFFFFF)))


def capability(root: int) -> bytes:
    """The capabilities of a program in a user namespace."""
    return struct.pack("<IIIIII", 0x03000000, 1 << 10, 0, 0, 0, root)


def fill(root: Path) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("deep", "deep/er"):
        os.chown(root / name, BEFORE, BEFORE + 5)
    program = root / "deep/program"
    program.write_text("x")
    os.chown(program, BEFORE + 33, BEFORE + 34)
    program.chmod(0o6755)
    os.setxattr(program, "security.capability", capability(BEFORE))
    os.setxattr(program, "system.posix_acl_access", access_list(BEFORE + 7))
    os.link(program, root / "deep/er/linked")
    os.symlink("program", root / "deep/link")
    os.chown(root / "deep/link", BEFORE + 1, BEFORE + 1, follow_symlinks=False)
    (root / "ours").write_text("the host's")
    (root / "beyond").write_text("x")
    os.chown(root / "beyond", BEFORE + 65536, BEFORE - 1)


def test_all_that_names_an_owner_is_moved_and_a_second_time_nothing(tmp_path: Path) -> None:
    with storage.pool(str(tmp_path)) as pool:
        btrfs.create_subvolume(f"{pool}/v")
        volumes.create(f"{pool}/v/disk.img", size=32 * MIB, room=None, owner=BEFORE)
        with image.opened(f"{pool}/v/disk.img", quotas=quota.missing() is None) as descriptor:
            root = Path(f"/proc/self/fd/{descriptor}")
            fill(root)
            mode = (root / "deep/program").stat().st_mode
            assert mode & 0o6000 == 0o6000
            for _ in range(2):
                shift_owners(descriptor, SHIFT, path="the image")
            owners = {
                str(path.relative_to(root)): (path.lstat().st_uid - AFTER, path.lstat().st_gid - AFTER)
                for path in (root / "upper", root / "deep", *(root / "deep").rglob("*"))
            }
            assert owners == {
                "upper": (0, 0),
                "deep": (0, 5),
                "deep/er": (0, 5),
                "deep/program": (33, 34),
                "deep/er/linked": (33, 34),
                "deep/link": (1, 1),
            }
            program = root / "deep/program"
            assert program.stat().st_mode == mode
            assert program.stat().st_nlink == 2
            assert os.getxattr(program, "security.capability") == capability(AFTER)
            assert os.getxattr(program, "system.posix_acl_access") == access_list(AFTER + 7)
            assert (root / "ours").stat().st_uid == 0
            assert ((root / "beyond").stat().st_uid, (root / "beyond").stat().st_gid) == (BEFORE + 65536, BEFORE - 1)


def test_capabilities_of_the_host_and_lists_that_name_nobody_stay() -> None:
    of_the_host = struct.pack("<IIIII", 0x02000000, 1 << 10, 0, 0, 0)
    assert shifted_capability(of_the_host, SHIFT) == of_the_host
    assert shifted_capability(capability(5), SHIFT) == capability(5)
    assert shifted_access_list(access_list(5), SHIFT) == access_list(5)
