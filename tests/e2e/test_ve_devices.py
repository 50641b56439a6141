"""Claims about devices of the host in VEs: those that were given work, as far as was said, and no others do."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.host.bundle import BASE_DEVICES
from reconciler.kernel import cgroup_layout, device_rules, loop
from reconciler.kernel.device_rules import DeviceId
from tests.support.fleet import Fleet, Value, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-devices")

REFUSED = "Operation not permitted"
TTY = "/dev/tty20"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    base = tmp_path_factory.getbasetemp()
    policy = base / "devices-policy.yaml"
    nodes = ("/dev/net/tun", "/dev/fuse", "/dev/loop*", TTY, "/dev/no-such")
    policy.write_text(f"devices: [{', '.join(f'{{path: {path}}}' for path in nodes)}]\nnics: ['spare*']\n")
    policy.chmod(0o600)
    with made_fleet(base, ve("web1"), policy=str(policy), resync="1s") as made:
        made.start_agent()
        made.await_ready("web1")
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A block device of the host, with a few letters on it."""
    image = tmp_path / "image"
    image.write_bytes(b"letters".ljust(1 << 20, b"\0"))
    with loop.attached(str(image), read_only=False) as device:
        yield device


def give(fleet: Fleet, *devices: Value) -> Ve:
    """Have a VE that runs have these devices, and see that it took no restart."""
    one = fleet.ve("web1")
    before = one.init
    fleet.put("all.yaml", ve("web1", devices=list(devices)))
    fleet.await_ready("web1")
    assert one.init == before
    return one


def as_its_root(one: Ve, *command: str) -> str:
    """Run an applet in the VE's mounts and cgroup as its root, without a filter; give what it said."""
    enter = ["nsenter", f"--target={one.pid}", "--user", "--mount", "--setuid=0", "--setgid=0", "--root", "--wd"]
    joined = f'for f in {" ".join(one.cgroup.inner_directories())}; do echo $$ > "$f/cgroup.procs"; done; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", joined, "sh", *enter, "/bin/busybox", *command], capture_output=True, text=True, timeout=30
    )
    return done.stdout + done.stderr


def owner_and_mode(path: str) -> tuple[int, int, int]:
    info = os.stat(path)
    return info.st_uid, info.st_gid, info.st_mode


def test_a_tunnel_can_be_made_with_a_device_that_came_live(fleet: Fleet) -> None:
    assert give(fleet).try_run("tunctl", "-t", "tun7")[0] != 0
    one = give(fleet, {"path": "/dev/net/tun"})
    one.run("tunctl", "-t", "tun7")
    assert "tun7" in one.run("ip", "link", "show", "dev", "tun7")


def test_a_character_device_can_be_opened(fleet: Fleet) -> None:
    one = give(fleet, {"path": "/dev/fuse"}, {"path": TTY})
    one.shell(": <> /dev/fuse")
    assert "speed" in one.run("stty", "-F", TTY, "-a")


def test_what_a_ve_may_do_with_a_device_changes_live(fleet: Fleet, disk: str) -> None:
    one = give(fleet, {"path": disk, "access": "r"})
    assert one.run("head", "-c", "7", disk) == "letters"
    assert REFUSED in one.shell(f"echo LETTERS > {disk}", status=1)
    one = give(fleet, {"path": disk, "access": "rw"})
    one.shell(f"echo LETTERS > {disk} && sync")
    assert Path(disk).read_bytes()[:7] == b"LETTERS"
    one = give(fleet, {"path": disk, "access": "r"})
    assert REFUSED in one.shell(f"echo again > {disk}", status=1)


def test_the_ves_root_owns_its_node_and_not_the_hosts(fleet: Fleet, disk: str) -> None:
    before = owner_and_mode(disk)
    one = give(fleet, {"path": disk, "access": "r"})
    one.run("chmod", "666", disk)
    one.run("chown", "7:7", disk)
    assert owner_and_mode(disk) == before
    assert REFUSED in one.shell(f"echo no > {disk}", status=1)


def test_a_device_that_was_taken_away_cannot_be_opened_by_a_copy(fleet: Fleet, disk: str) -> None:
    one = give(fleet, {"path": disk})
    as_its_root(one, "touch", "/copy")
    as_its_root(one, "mount", "-o", "bind", disk, "/copy")
    assert as_its_root(one, "head", "-c", "7", "/copy") == "letters"
    give(fleet)
    assert one.try_run("test", "-b", disk)[0] != 0
    assert REFUSED in as_its_root(one, "head", "-c", "7", "/copy")
    as_its_root(one, "umount", "/copy")


def test_what_was_not_given_cannot_be_opened(fleet: Fleet, disk: str) -> None:
    one = give(fleet, {"path": "/dev/fuse"})
    assert "no such file" in one.shell(f": < {disk}", status=1).lower()
    number = os.stat(disk).st_rdev
    assert as_its_root(one, "mknod", "/mine", "b", str(os.major(number)), str(os.minor(number)))


def test_a_node_that_the_ves_root_unmounted_is_put_back(fleet: Fleet) -> None:
    one = give(fleet, {"path": "/dev/fuse"})
    assert as_its_root(one, "umount", "/dev/fuse") == ""
    until(lambda: one.try_run("test", "-c", "/dev/fuse")[0] == 0, "the device to be put back")
    one.shell(": <> /dev/fuse")


def test_rules_that_were_changed_by_hand_are_put_right(fleet: Fleet) -> None:
    one = give(fleet, {"path": "/dev/fuse"})
    hierarchy = cgroup_layout.detect().of("devices")
    assert hierarchy is not None
    directory = hierarchy.path(one.cgroup.inner)
    with fleet.in_one_moment():
        if hierarchy.unified:
            device_rules.load(directory, BASE_DEVICES)
        else:
            device_rules.change_listed(directory, DeviceId(major=10, minor=229), "")
        assert one.try_run("sh", "-c", ": <> /dev/fuse")[0] != 0
    until(lambda: one.try_run("sh", "-c", ": <> /dev/fuse")[0] == 0, "the rule to be put right")


def test_a_boot_brings_the_devices(fleet: Fleet) -> None:
    one = give(fleet, {"path": "/dev/fuse"})
    before = one.init
    fleet.vectl("restart", "web1")
    fleet.await_ready("web1")
    assert one.init != before
    one.shell(": <> /dev/fuse")


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({"path": "/dev/mem"}, "/dev/mem (rw) is none of"),
        ({"path": "/dev/no-such"}, "this host has none"),
        ({"nic": "eno1"}, "eno1 is none of"),
        ({"nic": "spare9"}, "this host has no such interface"),
    ],
)
def test_what_may_not_or_cannot_be_given_is_refused(fleet: Fleet, device: Value, said: str) -> None:
    fleet.put("all.yaml", ve("web1", devices=[device]))
    until(lambda: said in str(fleet.conditions("web1").values()), f"a condition to say {said!r}")
    give(fleet)


@pytest.fixture
def nic(fleet: Fleet) -> Iterator[str]:
    """An interface of the host that nobody uses, with its other end on the host, too."""
    give(fleet)
    fleet.host("ip", "link", "add", "spare0", "type", "veth", "peer", "name", "other0")
    fleet.host("ip", "link", "set", "spare0", "up")
    yield "spare0"
    give(fleet)
    fleet.host("ip", "link", "del", "other0", check=False)


def names(fleet: Fleet) -> dict[str, bool]:
    """Give the links of the host, and whether each is up."""
    return {link["ifname"]: "UP" in link["flags"] for link in fleet.host_json("ip", "-j", "link", "show")}


def test_an_interface_moves_in_and_returns_as_it_was(fleet: Fleet, nic: str) -> None:
    one = give(fleet, {"nic": nic})
    assert nic in one.run("ip", "link", "show")
    assert nic not in names(fleet)
    give(fleet)
    assert names(fleet)[nic]
    assert nic not in one.run("ip", "link", "show")


def test_an_interface_returns_however_its_ve_ends(fleet: Fleet, nic: str) -> None:
    one = give(fleet, {"nic": nic})
    one.run("ip", "link", "set", nic, "name", "renamed")
    fleet.put("all.yaml", ve("web1", devices=[{"nic": nic}], power="stopped"))
    until(lambda: names(fleet).get(nic), "the interface to return at a stop")
    fleet.put("all.yaml", ve("web1", devices=[{"nic": nic}]))
    fleet.await_ready("web1")
    assert nic in one.run("ip", "link", "show")
    before = one.init
    fleet.put("all.yaml", ve("web1", devices=[{"nic": nic}], boot={"restart": "never"}))
    fleet.await_ready("web1")
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: names(fleet).get(nic), "the interface to return when init is killed")
    fleet.put("all.yaml", ve("web1"))
    fleet.await_ready("web1")


def test_a_link_that_the_ves_root_made_instead_never_comes_to_the_host(fleet: Fleet, nic: str) -> None:
    one = give(fleet, {"nic": nic})
    number = one.net_json("ip", "-j", "link", "show", "dev", nic)[0]["ifindex"]
    with fleet.in_one_moment():
        one.net("ip", "link", "del", nic)
        one.net("ip", "link", "add", nic, "index", str(number), "type", "veth", "peer", "name", "mine")
        fleet.put("all.yaml", ve("web1", power="stopped"))
    until(lambda: not one.runs, "the VE to stop")
    fleet.settle()
    assert names(fleet).keys() == {"lo"}
    fleet.put("all.yaml", ve("web1"))
    fleet.await_ready("web1")


def test_an_interface_that_the_host_uses_stays(fleet: Fleet, nic: str) -> None:
    fleet.host("ip", "addr", "add", "192.0.2.7/24", "dev", nic)
    fleet.put("all.yaml", ve("web1", devices=[{"nic": nic}]))
    said = "the host has 192.0.2.7/24 on it"
    until(lambda: said in str(fleet.conditions("web1").values()), f"a condition to say {said!r}")
    assert nic in names(fleet)
