"""What `make test` tries of cgroup v2, on a guest that `make test-vm` has made before."""

import json
from collections.abc import Iterator

import pytest

from tests.vm import cache, guest, prepared, saved

COMMAND_SECONDS = 600.0
MIB = 1 << 20
OUT_OF_MEMORY = 137
FILL = "dd if=/dev/zero of=/dev/null bs={} count=1"
FLOOD = "i=0; while [ $i -lt 150 ]; do sleep 60 & i=$((i + 1)); done"

pytestmark = [pytest.mark.vm_smoke, pytest.mark.xdist_group("vm"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def host() -> Iterator[guest.Guest]:
    """Run a guest if that takes seconds."""
    try:
        state = saved.saved_state(cache.found)
    except cache.NotCachedError:
        pytest.skip("nothing was tried on cgroup v2, no guest is cached for this tree: run `make test-vm` to make one")
    with saved.restored(state) as restored:
        yield restored


@pytest.fixture(scope="module")
def fleet(host: guest.Guest) -> guest.Guest:
    """Apply the example fleet: `web` may have 96 MiB of memory, `app` 64 MiB, both 100 processes."""
    applied = host.check(f"{prepared.ENTER}; vectl apply desired/ --yes -o json 2>&1", COMMAND_SECONDS)
    assert json.loads(applied.splitlines()[-1])["converged"] is True
    return host


def test_the_host_has_cgroup_v2_alone(host: guest.Guest) -> None:
    mounted = host.check("awk '$3 ~ /^cgroup/ {print $3, $2}' /proc/mounts", COMMAND_SECONDS)
    assert mounted.splitlines() == ["cgroup2 /sys/fs/cgroup"]


def test_memory_above_the_limit_is_not_to_be_had(fleet: guest.Guest) -> None:
    web = cgroup(fleet, 96 * MIB)
    assert inside(fleet, "web", FILL.format("200M")).status == OUT_OF_MEMORY
    assert "oom_kill 1" in fleet.check(f"cat {web}/memory.events", COMMAND_SECONDS).splitlines()


def test_processes_above_the_limit_are_not_to_be_had(fleet: guest.Guest) -> None:
    app = cgroup(fleet, 64 * MIB)
    assert "can't fork" in inside(fleet, "app", FLOOD).output
    refused = fleet.check(f"cat {app}/pids.events", COMMAND_SECONDS)
    assert refused.split() != ["max", "0"]


def cgroup(host: guest.Guest, memory: int) -> str:
    """Find the cgroup of the VE that may have so much memory."""
    files = host.check(f"grep -lx {memory} /sys/fs/cgroup/vectl/*/memory.max", COMMAND_SECONDS)
    return files.removesuffix("/memory.max\n")


def inside(host: guest.Guest, name: str, script: str) -> guest.Done:
    """Run a script in a VE."""
    return host.run(f"{prepared.ENTER}; vectl exec {name} -- sh -c '{script}'", COMMAND_SECONDS)
