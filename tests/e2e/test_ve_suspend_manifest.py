"""Claims about VEs that are suspended and resumed by their manifests: they go on where they were, or say why not."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from reconciler.kernel import netns
from reconciler.model.condition import ConditionType
from tests.support.fleet import Document, Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve

pytestmark = [pytest.mark.xdist_group("ve-suspend"), pytest.mark.timeout(300)]

SUBNET = "10.191.61"
SUBNET6, ROUTED = "fd91:61::/64", "10.191.62.0/24"
PORT = 7000
MIB = 1 << 20
LONG = pytest.mark.long
_WORK = f"""
cat > /root/server <<'END'
#!/bin/sh
read line
echo "$line answered by the one that was asked"
END
chmod +x /root/server
setsid nc -ll -p {PORT} -e /root/server >/dev/null 2>&1 </dev/null &
cat > /root/counter <<'END'
exec 3>>/root/log
i=0
while :; do i=$((i+1)); echo $i >&3; sleep 0.05; done
END
setsid sh /root/counter >/dev/null 2>&1 </dev/null &
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    lan = network("lan", f"{SUBNET}.0/24", SUBNET6, gateway=[f"{SUBNET}.1", "fd91:61::1"])
    venet = network("venet", ROUTED, mode="routed")
    base = tmp_path_factory.getbasetemp()
    policy = base / "suspend-policy.yaml"
    policy.write_text(f"mounts: [{{source: {base}/lent}}]\ndevices: [{{path: /dev/net/tun}}, {{path: /dev/fuse}}]\n")
    policy.chmod(0o600)
    for name in "abc":
        (base / "lent" / name).mkdir(parents=True, exist_ok=True)
        (base / "lent" / name / "f").write_text(f"in {name}")
    with made_fleet(base, lan, venet, policy=str(policy)) as made:
        describe(made, "sleeper")
        describe(made, "bystander")
        made.start_agent()
        made.await_ready("sleeper", "bystander")
        made.ve("sleeper").shell(_WORK)
        yield made
        suspend(made)  # and so it is taken down, with nothing left of its memory


@pytest.fixture
def sleeper(fleet: Fleet) -> Iterator[Ve]:
    """The VE that is suspended, awake before and after, the same one throughout."""
    one, bystander = fleet.ve("sleeper"), fleet.ve("bystander").init
    until(lambda: counted(one) > 2, "the counter to count")
    yield one
    describe(fleet, "sleeper")
    fleet.await_ready("sleeper", "bystander")
    goes_on(one, counted(one))
    assert fleet.ve("bystander").init == bystander


def describe(fleet: Fleet, name: str, **spec: Value) -> None:
    number = {"sleeper": 11, "bystander": 12}[name]
    fleet.put(f"{name}.yaml", ve(name, f"{SUBNET}.{number}/24", **spec))


def suspend(fleet: Fleet, **spec: Value) -> None:
    describe(fleet, "sleeper", power="suspended", **spec)
    fleet.await_ready("sleeper")


def counted(one: Ve) -> int:
    """Give the last number that the counter wrote: it holds the file open, and begins at 1 if it is begun again."""
    return int((one.upper / "root/log").read_text().split()[-1])


def log_of(one: Ve) -> list[int]:
    return [int(line) for line in (one.upper / "root/log").read_text().split()]


def goes_on(one: Ve, before: int) -> None:
    """Wait until the counter counts on; every number is there once, in order."""
    until(lambda: counted(one) > before, f"the counter to count on from {before}")
    numbers = log_of(one)[:-1]
    assert numbers == list(range(1, len(numbers) + 1))


def ask_server(fleet: Fleet, question: str) -> str:
    """Ask the server in the VE, which listens since before it was suspended."""
    return fleet.host("sh", "-c", f"echo {question} | busybox nc -w 10 {SUBNET}.11 {PORT}")


def is_suspended(fleet: Fleet, one: Ve) -> bool:
    there = Path(fleet.instance.suspended_dir(one.uid)).exists()
    assert there is not one.runs
    return there


def test_a_suspended_ve_has_no_processes_and_goes_on_where_it_was(fleet: Fleet, sleeper: Ve) -> None:
    assert ask_server(fleet, "before") == "before answered by the one that was asked\n"
    init = sleeper.pid
    suspend(fleet)
    assert not Path(f"/proc/{init}").exists()
    assert not sleeper.cgroup.exists()
    stood_at = counted(sleeper)
    fleet.vectl("wait", "sleeper", "--for", "power=suspended")
    assert re.search(r"suspended since \S+, [0-9.]+[KM]i of memory on disk", fleet.vectl("describe", "sleeper"))
    assert counted(sleeper) == stood_at
    describe(fleet, "sleeper")
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)
    assert ask_server(fleet, "after") == "after answered by the one that was asked\n"


def test_a_suspended_ve_stays_so_over_the_end_of_the_agent(fleet: Fleet, sleeper: Ve) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    fleet.end_agent()
    fleet.start_agent()
    fleet.await_ready("sleeper")
    assert is_suspended(fleet, sleeper)
    fleet.end_agent()
    describe(fleet, "sleeper")
    fleet.start_agent()
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)


def test_a_limit_that_was_changed_while_a_ve_was_suspended_holds_when_it_goes_on(fleet: Fleet, sleeper: Ve) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    describe(fleet, "sleeper", power="suspended", memory={"limit": "48Mi"}, processes=60)
    fleet.await_ready("sleeper")
    describe(fleet, "sleeper", memory={"limit": "48Mi"}, processes=60)
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)
    assert (sleeper.limit("memory.limit"), sleeper.limit("processes")) == (48 * MIB, 60)
    assert sleeper.try_run("dd", "if=/dev/zero", "of=/dev/null", "bs=60M", "count=1")[0] != 0


@contextmanager
def called(fleet: Fleet, one: Ve, address: str) -> Iterator[socket.socket]:
    """Call the server in the VE from the host, and wait until it has taken the call."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(netns.open_socket_in(fleet.namespace, family, socket.SOCK_STREAM)) as call:
        call.settimeout(30.0)
        call.connect((address, PORT))
        until(lambda: "/root/server" in one.run("ps"), "the connection to be taken")
        yield call


@pytest.mark.parametrize("address", [f"{SUBNET}.11", "fd91:61::11", "10.191.62.11"], ids=["v4", "v6", "routed"])
def test_a_connection_outlives_the_suspension_of_the_ve_that_serves_it(fleet: Fleet, sleeper: Ve, address: str) -> None:
    fleet.put("sleeper.yaml", on_networks("running", address))
    fleet.await_ready("sleeper")
    with called(fleet, sleeper, address) as call:
        for power in ("suspended", "running"):
            fleet.put("sleeper.yaml", on_networks(power, address))
            fleet.await_ready("sleeper")
        call.sendall(b"still there?\n")
        assert call.recv(100).startswith(b"still there? answered")


def on_networks(power: str, address: str) -> Document:
    """Give the manifest of the VE with an address of its own on the kind of network that one belongs to."""
    addresses = [f"{SUBNET}.11/24", "fd91:61::11/64"]
    name = "venet" if address not in [own.split("/")[0] for own in addresses] else "lan"
    link = {"name": "eth0", "network": name, "addresses": addresses if name == "lan" else [f"{address}/24"]}
    return ve("sleeper", power=power, interfaces=[link])


def test_a_ve_is_connected_under_its_new_address_when_that_changed_while_it_was_suspended(
    fleet: Fleet, sleeper: Ve
) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    fleet.put("sleeper.yaml", ve("sleeper", f"{SUBNET}.21/24", power="suspended"))
    fleet.await_ready("sleeper")
    fleet.put("sleeper.yaml", ve("sleeper", f"{SUBNET}.21/24"))
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)
    assert sleeper.addresses() == {f"{SUBNET}.21/24"}
    fleet.host("busybox", "ping", "-c", "1", "-W", "5", f"{SUBNET}.21")


def kill_at(fleet: Fleet, point: str, power: str) -> None:
    """Let an agent die on the way to a state of the VE, and another one go on from there."""
    fleet.end_agent()
    describe(fleet, "sleeper", power=power)
    fleet.start_agent("--enable-failpoints", failpoints=f"{point}=kill", wait=False)
    assert fleet.await_agent_end() == -signal.SIGKILL
    fleet.start_agent()
    fleet.await_ready("sleeper")


@pytest.mark.parametrize(
    "point",
    [
        "SuspendRuntime:after",
        *(pytest.param(point, marks=LONG) for point in ("SuspendRuntime:before", "RemoveCgroup:before")),
    ],
)
def test_a_suspension_is_taken_up_where_it_was_cut_off(fleet: Fleet, sleeper: Ve, point: str) -> None:
    stood_at = counted(sleeper)
    kill_at(fleet, point, "suspended")
    assert is_suspended(fleet, sleeper)
    assert counted(sleeper) >= stood_at


@pytest.mark.parametrize(
    "point",
    [
        "StartRuntime:after",
        *(
            pytest.param(point, marks=LONG)
            for point in ("CreateRuntime:before", "CreateRuntime:after", "AttachInterface:before")
        ),
    ],
)
def test_a_resume_is_taken_up_where_it_was_cut_off(fleet: Fleet, sleeper: Ve, point: str) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    kill_at(fleet, point, "running")
    goes_on(sleeper, stood_at)
    assert not is_suspended(fleet, sleeper)


def test_a_suspended_ve_is_shut_down_by_its_manifest_as_one_that_runs(fleet: Fleet, sleeper: Ve) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    describe(fleet, "sleeper", power="stopped")
    fleet.await_ready("sleeper")
    assert not sleeper.runs
    assert not Path(fleet.instance.suspended_dir(sleeper.uid)).exists()
    assert counted(sleeper) >= stood_at
    describe(fleet, "sleeper")
    fleet.await_ready("sleeper")
    sleeper.shell("rm /root/log; " + _WORK)
    until(lambda: counted(sleeper) > 2, "the counter to count anew")


@pytest.mark.parametrize("file", ["core-1.img", pytest.param("ve.json", marks=LONG)])
def test_a_damaged_memory_is_kept_and_given_up_only_on_request(fleet: Fleet, sleeper: Ve, file: str) -> None:
    suspend(fleet)
    damaged = Path(fleet.instance.suspended_dir(sleeper.uid), "memory", file)
    damaged.write_bytes(b"nonsense")
    describe(fleet, "sleeper")
    found = fleet.await_reason("sleeper", "ResumeFailed", ConditionType.STALLED)
    assert damaged.name in found.message
    assert "vectl start sleeper --cold" in found.message
    assert is_suspended(fleet, sleeper)
    assert fleet.is_ready("bystander")
    fleet.vectl("start", "sleeper", "--cold")
    fleet.await_ready("sleeper")
    assert "MemoryDiscarded" in fleet.told("sleeper")
    sleeper.shell("rm /root/log; " + _WORK)
    until(lambda: counted(sleeper) > 2, "the counter to count anew")


@pytest.mark.long
def test_a_memory_of_which_only_the_description_is_damaged_is_taken_up(fleet: Fleet, sleeper: Ve) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    Path(fleet.instance.suspended_dir(sleeper.uid), "meta.json").write_bytes(b"nonsense")
    describe(fleet, "sleeper")
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)


def test_a_suspended_ve_comes_back_from_the_trash_as_it_was(fleet: Fleet, sleeper: Ve) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    fleet.drop("sleeper.yaml")
    fleet.await_removed("sleeper")
    describe(fleet, "sleeper")
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)


def test_a_ve_with_a_connection_is_resumed_under_another_address_and_the_connection_is_lost(
    fleet: Fleet, sleeper: Ve
) -> None:
    with called(fleet, sleeper, f"{SUBNET}.11"):
        suspend(fleet)
        stood_at = counted(sleeper)
        fleet.put("sleeper.yaml", ve("sleeper", f"{SUBNET}.21/24"))
        fleet.await_ready("sleeper")
        goes_on(sleeper, stood_at)
        assert sleeper.addresses() == {f"{SUBNET}.21/24"}


@pytest.fixture
def lent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{tmp_path_factory.getbasetemp()}/lent"


def test_what_a_ve_is_lent_and_set_is_as_its_manifest_says_when_it_goes_on(
    fleet: Fleet, sleeper: Ve, lent: str
) -> None:
    before: dict[str, Value] = {
        "mounts": [{"source": f"{lent}/a", "target": "/srv/a"}, {"source": f"{lent}/b", "target": "/srv/b"}],
        "devices": [{"path": "/dev/net/tun"}],
        "sysctls": {"net.ipv4.ip_forward": "1"},
        "ipc": {"shmall": "16Mi"},
        "hostname": "one",
    }
    after: dict[str, Value] = {
        "mounts": [
            {"source": f"{lent}/a", "target": "/srv/a", "readOnly": True},
            {"source": f"{lent}/c", "target": "/srv/c"},
        ],
        "sysctls": {"net.ipv4.ip_forward": "0"},
        "ipc": {"shmall": "32Mi"},
        "hostname": "two",
        "features": {"fuse": True},
    }
    describe(fleet, "sleeper", **before)
    fleet.await_ready("sleeper")
    suspend(fleet, **before)
    stood_at = counted(sleeper)
    describe(fleet, "sleeper", **after)
    fleet.await_ready("sleeper")
    goes_on(sleeper, stood_at)
    assert (sleeper.run("cat", "/srv/a/f"), sleeper.run("cat", "/srv/c/f")) == ("in a", "in c")
    assert "Read-only file system" in sleeper.shell("touch /srv/a/made 2>&1; true")
    assert "/srv/b" not in sleeper.run("cat", "/proc/self/mountinfo")
    assert sleeper.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert sleeper.run("cat", "/proc/sys/kernel/shmall") == f"{32 * MIB // 4096}\n"
    assert sleeper.run("hostname") == "two\n"
    assert sleeper.try_run("test", "-e", "/dev/net/tun")[0] != 0
    assert sleeper.try_run("test", "-c", "/dev/fuse")[0] == 0


def test_what_needs_a_restart_is_changed_by_one_after_the_ve_went_on(fleet: Fleet, sleeper: Ve) -> None:
    suspend(fleet)
    stood_at = counted(sleeper)
    fleet.put("sleeper.yaml", ve("sleeper", f"{SUBNET}.11/24", rlimits={"nofile": 99}))
    fleet.await_ready("sleeper")
    assert counted(sleeper) >= stood_at
    assert re.search(r"Max open files +99 +99 ", sleeper.run("cat", "/proc/1/limits"))
    describe(fleet, "sleeper")
    fleet.await_ready("sleeper")
    sleeper.shell("rm /root/log; " + _WORK)
    until(lambda: counted(sleeper) > 2, "the counter to count anew")
