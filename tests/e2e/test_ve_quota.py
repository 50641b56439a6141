"""Claims about quotas inside a VE: the kernel holds its users to them, and its root when he gives files away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.kernel import loop, quota
from tests.support.fleet import Fleet, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = [pytest.mark.xdist_group("ve-quota"), pytest.mark.timeout(1200)]

MIB = 1 << 20
USER, GROUP = 1000, 50
OVER = "Disk quota exceeded"
WITHOUT = quota.missing()
needs_quotas = pytest.mark.skipif(WITHOUT is not None, reason="this kernel has no quota format for ext4")

LIMITS = {"id": USER, "soft": "2Mi", "hard": "4Mi", "softFiles": 20, "hardFiles": 30, "grace": "1h"}
DISK = {"size": "96Mi", "inodes": 500, "users": [LIMITS], "groups": [{"id": GROUP, "hard": "6Mi"}]}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (ve("office", disk=DISK), ve("plain"))
    with made_fleet(tmp_path_factory.getbasetemp(), *documents, pool={"size": "1Gi"}) as made:
        made.start_agent()
        made.await_ready("plain")
        yield made


@pytest.fixture
def office(fleet: Fleet) -> Ve:
    """The VE, as its manifest says, with an empty directory that everybody may write into."""
    fleet.put("all.yaml", ve("office", disk=DISK), ve("plain"))
    fleet.await_ready("office")
    one = fleet.ve("office")
    one.shell(f"grep -q ^u: /etc/passwd || echo u:x:{USER}:{USER}::/:/bin/sh >> /etc/passwd")
    one.shell("rm -rf /all; mkdir /all; chmod 777 /all")
    return one


def as_user(one: Ve, script: str) -> str:
    """Run a script as the user who has limits; give all that it printed."""
    return one.try_run("su", "u", "-c", script)[1]


def size(one: Ve, path: str) -> int:
    return int(one.run("stat", "-c", "%s", path))


def device(one: Ve) -> str:
    """The device that the VE's image is attached to."""
    (found,) = loop.find(f"{one.instance.volume(one.uid)}/disk.img")
    return found


def host_id(fleet: Fleet, number: int) -> int:
    return next(record.id_base for record in fleet.records().values() if record.name == "office") + number


def told(fleet: Fleet) -> dict[tuple[str, int], dict[str, Any]]:
    """What `vectl quota` tells, by kind and id."""
    found = json.loads(fleet.vectl("quota", "office", "-o", "json"))
    return {(item["kind"], item["id"]): item for item in found["items"]}


@pytest.mark.skipif(WITHOUT is None, reason="this kernel has the quota format of ext4")
def test_a_kernel_without_quotas_refuses_a_ve_that_asks_for_them(fleet: Fleet) -> None:
    condition = fleet.await_reason("office", "NotOnThisHost")
    assert "CONFIG_QFMT_V2" in condition.message
    assert "office" not in fleet.records()


@needs_quotas
def test_a_user_is_stopped_at_the_hard_limit_and_nobody_else(office: Ve) -> None:
    assert OVER in as_user(office, "dd if=/dev/zero of=/all/f bs=64k count=128 2>&1; sync")
    assert 3 * MIB < size(office, "/all/f") <= 4 * MIB
    office.shell("dd if=/dev/zero of=/all/mine bs=1M count=8 2>&1")


@needs_quotas
def test_a_user_has_no_more_files_than_the_limit(office: Ve) -> None:
    said = as_user(office, "cd /all; i=0; while [ $i -lt 40 ]; do : > f$i; i=$((i + 1)); done 2>&1")
    assert OVER in said
    assert int(office.shell("ls /all | wc -l")) == 30


@needs_quotas
def test_root_of_a_ve_gives_no_user_more_than_his_limit(office: Ve) -> None:
    office.shell("dd if=/dev/zero of=/all/gift bs=1M count=6 2>&1; sync")
    assert OVER in office.shell(f"chown {USER} /all/gift 2>&1; true")
    office.shell("dd if=/dev/zero of=/all/more bs=1M count=5 2>&1; sync")
    assert OVER in office.shell(f"chgrp {GROUP} /all/gift 2>&1; chgrp {GROUP} /all/more 2>&1; true")


@needs_quotas
def test_a_ve_sees_its_own_size_and_number_of_files(office: Ve) -> None:
    blocks, files = (
        int(line.split()[1]) for line in (office.shell(f"df {option} / | tail -1") for option in ("-k", "-i"))
    )
    assert 80 << 10 < blocks < 96 << 10
    assert files == 500
    said = office.shell("cd /all; i=0; while [ $i -lt 600 ]; do true > f$i; i=$((i + 1)); done 2>&1; true")
    assert "quota exceeded" in said.lower() or "No space left" in said
    assert int(office.shell("ls /all | wc -l")) < 500


@needs_quotas
def test_limits_follow_the_manifest_while_the_ve_runs(fleet: Fleet, office: Ve) -> None:
    init = office.init
    more = {**DISK, "users": [{**LIMITS, "soft": "6Mi", "hard": "8Mi"}], "groups": [], "inodes": 600}
    fleet.put("all.yaml", ve("office", disk=more), ve("plain"))
    fleet.await_ready("office")
    assert OVER in as_user(office, "dd if=/dev/zero of=/all/f bs=64k count=256 2>&1; sync")
    assert 7 * MIB < size(office, "/all/f") <= 8 * MIB
    assert quota.read(device(office), quota.Kind.GROUP, host_id(fleet, GROUP)).limits == quota.Limits()
    assert office.init == init


@needs_quotas
def test_limits_set_by_hand_are_put_right(fleet: Fleet, office: Ve) -> None:
    by_hand = quota.Limits(hard=64 * MIB)
    quota.set_limits(device(office), quota.Kind.USER, host_id(fleet, USER), by_hand)
    quota.set_limits(device(office), quota.Kind.USER, host_id(fleet, 7), by_hand)
    fleet.ask("reconcile")
    until(lambda: quota.read(device(office), quota.Kind.USER, host_id(fleet, 7)).limits == quota.Limits(), "no limit")
    until(lambda: quota.read(device(office), quota.Kind.USER, host_id(fleet, USER)).limits.hard == 4 * MIB, "the limit")


@needs_quotas
def test_what_is_used_is_told(fleet: Fleet, office: Ve) -> None:
    as_user(office, "dd if=/dev/zero of=/all/f bs=1M count=3 2>&1; sync")
    told_of = told(fleet)[("users", USER)]
    assert told_of["used"] >= 3 * MIB
    assert (told_of["soft"], told_of["hard"], told_of["softFiles"]) == (2 * MIB, 4 * MIB, 20)
    assert told_of["graceEnds"] is not None
    assert told_of["graceEndsFiles"] is None
    assert told(fleet)[("groups", GROUP)]["hard"] == 6 * MIB
    assert "unlimited" in fleet.vectl("quota", "office")
    assert "it has none" in fleet.complaint("quota", "plain")


@needs_quotas
def test_a_disk_grows_while_it_is_in_use_and_shrinks_only_while_it_is_not(fleet: Fleet, office: Ve) -> None:
    init, image = office.init, f"{office.instance.volume(office.uid)}/disk.img"
    fleet.put("all.yaml", ve("office", disk={**DISK, "size": "160Mi"}), ve("plain"))
    fleet.await_ready("office")
    assert int(office.shell("df -k / | tail -1").split()[1]) > 128 << 10
    assert office.init == init
    fleet.put("all.yaml", ve("office", disk=DISK), ve("plain"))
    fleet.await_reason("office", "ShrinkNeedsStop")
    fleet.put("all.yaml", ve("office", disk=DISK, power="stopped"), ve("plain"))
    until(lambda: not office.runs and quiet(image), "the VE to be down and its device to be let go")
    until(lambda: Path(image).stat().st_size == 96 << 20, "the file system to be smaller")
    fleet.put("all.yaml", ve("office", disk=DISK), ve("plain"))
    fleet.await_ready("office")
    assert int(office.shell("df -k / | tail -1").split()[1]) < 96 << 10


@needs_quotas
def test_the_program_quota_tells_a_user_inside_his_limits(office: Ve) -> None:
    as_user(office, "dd if=/dev/zero of=/all/f bs=1M count=1 2>&1; sync")
    program = shutil.which("quota")
    assert program is not None, "the package quota is not installed"
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=30).stdout
    root = Path(f"/proc/{office.pid}/root")
    for path in [program, *(word for word in listed.split() if word.startswith("/"))]:
        copied = root / path.lstrip("/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), copied)
    said = as_user(office, f"{program} -v -w -p").splitlines()
    told = next((line.split() for line in said if line.split()[0] == device(office)), said)
    assert told[0] == device(office)
    assert int(told[1].rstrip("*")) >= 1024
    assert told[2:4] == ["2048", "4096"]
    assert told[6:8] == ["20", "30"]
    assert office.try_run("dd", f"if={device(office)}", "of=/dev/null", "count=1")[0] != 0, "it can be read raw"
    assert office.try_run("touch", "/dev/quota/x")[0] != 0


def quiet(image: str) -> bool:
    return not loop.find(image)
