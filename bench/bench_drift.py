"""From a change by hand to the desired value read again, as a second process sees it: 50 VEs, resync one hour."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench import common
from reconciler.kernel import address, cgroup_layout, netns, pidfd
from reconciler.kernel.rtnlsocket import RtnlSocket

COUNT = 50
SAMPLES = 200
DEADLINE_S = 30.0


def main() -> None:
    """Run an agent, spoil one thing after the other, and time the mending."""
    common.machine()
    with common.place("bndrift", ves=COUNT) as place, common.agent(place) as pid:
        ves = _all_running(place)
        _memory(pid)
        _limits(place, ves)
        _addresses(place, ves)
        _inits(place, ves)


def _all_running(place: common.Place) -> list[str]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        listed = place.vectl("get", "-o", "json")
        items = json.loads(listed.stdout)["items"] if listed.returncode == 0 else []
        ready = [item["uid"] for item in items if item["power"] == "running" and _ready(item)]
        if len(ready) == COUNT:
            time.sleep(2)  # let the last passes end
            return ready
        time.sleep(0.5)
    raise TimeoutError("the VEs do not become ready")


def _ready(item: dict[str, list[dict[str, str]]]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in item["conditions"])


def _memory(pid: int) -> None:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
    common.report(f"resident memory of the agent at {COUNT} VEs", f"{rss:.0f} MB", "<= 60 MB", met=rss <= 60)


def _measure(name: str, goal_s: float, spoil_and_wait: Callable[[int], float]) -> None:
    samples = [spoil_and_wait(number) for number in range(SAMPLES)]
    middle = statistics.median(samples)
    print(f"{name}: {common.distribution(samples)}")
    goal = f"median <= {goal_s * 1000:.0f} ms"
    common.report(f"{name}: change by hand to desired again", f"{middle * 1000:.1f} ms", goal, met=middle <= goal_s)


def _wait(is_right: Callable[[], bool]) -> float:
    started = time.perf_counter()
    while not is_right():
        if time.perf_counter() - started > DEADLINE_S:
            raise TimeoutError("not put right")
        time.sleep(0.0005)
    return time.perf_counter() - started


def _limits(place: common.Place, ves: list[str]) -> None:
    hierarchy = cgroup_layout.detect().of("pids")
    assert hierarchy is not None
    files = [f"{hierarchy.path(f'{place.instance.cgroup}/{uid}')}/pids.max" for uid in ves]

    def one(number: int) -> float:
        descriptor = os.open(files[number % COUNT], os.O_RDWR)
        try:
            right = os.pread(descriptor, 64, 0)
            os.pwrite(descriptor, str(random.randint(100, 200)).encode(), 0)
            return _wait(lambda: os.pread(descriptor, 64, 0) == right)
        finally:
            os.close(descriptor)

    _measure("limit", 0.02, one)


def _init(place: common.Place, uid: str) -> int:
    record = json.loads(Path(f"{place.instance.run_dir}/ves/{uid}/init.json").read_text())
    return int(record["init"]["pid"])


def _addresses(place: common.Place, ves: list[str]) -> None:
    sockets = []
    for uid in ves:
        pid = _init(place, uid)
        descriptor = os.pidfd_open(pid)
        namespace = netns.open_of(pid, pidfd=descriptor)
        sockets.append(RtnlSocket.open_in(namespace))
        os.close(descriptor)
        os.close(namespace)
    extra = ipaddress.ip_interface("10.99.99.99/24")

    def one(number: int) -> float:
        sock = sockets[number % COUNT]
        index = next(link.index for link in sock.dump_links() if link.name == "eth0")
        address.add_address(sock, index, extra)
        return _wait(lambda: all(found.interface != extra for found in sock.dump_addresses(index=index)))

    try:
        _measure("address", 0.02, one)
    finally:
        for sock in sockets:
            sock.close()


def _inits(place: common.Place, ves: list[str]) -> None:
    def one(number: int) -> float:
        uid = ves[number % COUNT]
        before = _init(place, uid)
        os.kill(before, signal.SIGKILL)
        return _wait(lambda: _runs_again(place, uid, before))

    _measure("killed init", 0.2, one)


def _runs_again(place: common.Place, uid: str, before: int) -> bool:
    """Running again: another init, which was let go."""
    pid = _init(place, uid)
    if pid == before or pidfd.identify(pid) is None:
        return False
    return not Path(f"{place.instance.run_dir}/runtime/{uid}/exec.fifo").exists()


if __name__ == "__main__":
    main()
