"""Claims about what the root of a VE may do to what we look at and write in there: it is to his own harm at most."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.kernel import cgroup_layout
from reconciler.model.condition import ConditionType
from tests.support.fleet import Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = pytest.mark.xdist_group("ve-hostile")

GATEWAY = "10.191.31.1"
ADDRESS = "10.191.31.11"
NO_TEXT = r"""$(printf '\377\033[31m')"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (
        network("lan", "10.191.31.0/24", gateway=[GATEWAY]),
        ve("evil", f"{ADDRESS}/24", dns={"servers": [GATEWAY]}),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready("evil")
        yield made


@pytest.fixture
def evil(fleet: Fleet) -> Iterator[Ve]:
    yield fleet.ve("evil")
    assert '"pass.crashed"' not in fleet.log.read_text()


def test_a_link_whose_name_is_no_text_is_removed_and_ours_made_again(fleet: Fleet, evil: Ve) -> None:
    evil.shell(f'ip link set eth0 down; ip link set eth0 name "{NO_TEXT}"')
    until(lambda: evil.run("ls", "/sys/class/net").split() == ["eth0", "lo"], "our link alone")
    reaches(fleet, ADDRESS)
    assert "\033" not in fleet.vectl("events")


def test_a_hostname_that_is_no_text_is_put_right(fleet: Fleet, evil: Ve) -> None:
    evil.shell(f'hostname "{NO_TEXT}"')
    with fleet.puts_right("evil", "hostname"):
        fleet.ask("reconcile")
    assert evil.run("hostname") == "evil\n"
    assert r"\xff" in fleet.vectl("events")


def test_what_cannot_be_listed_delays_nothing_else_and_only_for_as_long_as_it_is_there(fleet: Fleet, evil: Ve) -> None:
    batch = fleet.directory / "addresses"
    batch.write_text("".join(f"addr add 10.20.{n // 250}.{n % 250 + 1}/32 dev lo\n" for n in range(10_001)))
    evil.net("ip", "-batch", str(batch))
    fleet.ask("reconcile")
    fleet.await_reason("evil", "ObservationUnknown", ConditionType.RECONCILING)
    with fleet.puts_right("host/filter", "rules"):
        fleet.host("nft", "delete", "table", "bridge", fleet.instance.name)
    evil.net("ip", "addr", "flush", "dev", "lo")
    fleet.ask("reconcile")
    until(lambda: fleet.conditions("evil")[ConditionType.READY].reason == "Converged", "evil to be known again")
    told = [line for line in fleet.log.read_text().splitlines() if '"key": "*"' in line]
    assert [line for line in told if "ObservationUnknown" in line] == []


def test_a_resolver_of_any_length_is_replaced_and_not_told(fleet: Fleet, evil: Ve) -> None:
    evil.shell(
        "f=/etc/resolv.conf; head -n1 $f > /root/r; yes 'nameserver 10.9.8.7' | head -n 3000 >> /root/r; mv /root/r $f"
    )
    with fleet.puts_right("evil", "dns"):
        fleet.ask("reconcile")
    assert GATEWAY in evil.run("cat", "/etc/resolv.conf")
    assert "10.9.8.7" not in fleet.vectl("events")


def test_a_lease_keeps_no_file_from_being_replaced(fleet: Fleet, evil: Ve) -> None:
    file = Path(f"/proc/{evil.pid}/root/etc/resolv.conf")
    before = file.stat().st_ino
    with leased(file):
        fleet.ask("reconcile")
        until(lambda: file.stat().st_ino != before, "another file")
    assert GATEWAY in file.read_text()


@contextmanager
def leased(file: Path) -> Iterator[None]:
    """Hold a file as one who is asked before anybody else opens it, and who does not answer."""
    former = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with file.open("rb+") as held:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            yield
    finally:
        signal.signal(signal.SIGIO, former)


def test_cgroups_as_deep_as_can_be_do_not_keep_a_ve_from_being_stopped(fleet: Fleet, evil: Ve) -> None:
    unified = cgroup_layout.detect().unified
    if unified is None:
        pytest.skip("needs cgroup v2: v1 is not delegated")
    directory = f"{unified}{fleet.instance.ve_cgroup(evil.uid)}"
    with dug(f"{directory}/ve"):
        fleet.vectl("stop", "evil")
        assert not os.path.exists(directory)
    fleet.vectl("start", "evil")


@contextmanager
def dug(top: str) -> Iterator[None]:
    """Make cgroups in each other until the kernel refuses; those that are left in the end are removed."""
    name = "d" * 250
    with ExitStack() as held:
        level = os.open(top, os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, level)
        for _ in range(30):
            try:
                os.mkdir(name, dir_fd=level)
            except BlockingIOError:
                break
            held.callback(_remove, name, level)
            level = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=level)
            held.callback(os.close, level)
        yield


def _remove(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=directory)
