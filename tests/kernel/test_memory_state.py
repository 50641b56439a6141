"""Claims about what a suspended VE keeps: what its processes hold, and what of the host they were shown."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.host import compute
from reconciler.host.host import RealHost
from reconciler.kernel import device_rules
from reconciler.kernel.device_rules import DeviceId
from reconciler.model.devices import AddDevice, DevicesObservation
from reconciler.model.effects import Effect
from reconciler.model.mounts import AddMount, MountsObservation, MountSpec
from reconciler.model.volume import CreateVolume
from tests.support.inside import PROGRAM_S, Ve
from tests.support.real_host import on_real_host, perform
from tests.support.suspended import ASLEEP, RESUMED, shell, until
from tests.support.twins import ADDRESS, A, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SOURCE = Path(__file__).parent / "state" / "hold.c"
PORT = 7000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program that holds state."""
    built, compiler = tmp_path_factory.mktemp("hold") / "hold", shutil.which("gcc")
    command = [compiler or "gcc", "-O1", "-static", "-o", str(built), str(SOURCE)]
    if not compiler or subprocess.run(command, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("needs gcc and the static C library; install build-essential")
    return built.read_bytes()


@contextmanager
def connected() -> Iterator[socket.socket]:
    with socket.create_connection((str(ADDRESS.ip), PORT), timeout=PROGRAM_S) as made:
        yield made


async def ask(connection: socket.socket) -> str:
    def asked() -> str:
        connection.sendall(b"?\n")
        return connection.recv(4096).decode().strip()

    return await asyncio.to_thread(asked)


async def start(host: RealHost, program: bytes) -> None:
    """Start the program in a VE, and wait until it serves."""
    put = "cat >/bin/hold && chmod 755 /bin/hold && mkdir /root/state"
    await asyncio.to_thread(Ve(host.site.instance, A).as_host, "sh", "-c", put, given=program)
    await shell(host, "hold /root/state </dev/null >/dev/null 2>&1")
    await until(host, f"netstat -ltn | grep -q :{PORT}")


IN_IMAGE = tuple(replace(it, is_image=True) if isinstance(it, CreateVolume) else it for it in running(A))


@pytest.mark.parametrize("made", [running(A), IN_IMAGE], ids=["directory", "image"])
def test_whatever_processes_hold_is_there_again_and_connections_go_on(program: bytes, made: tuple[Effect, ...]) -> None:
    async def story(host: RealHost) -> list[str]:
        await perform(host, *made)
        await start(host, program)
        with connected() as connection:
            answers = [await ask(connection)]
            for _ in range(2):
                await perform(host, *ASLEEP, *RESUMED)
                answers.append(await ask(connection))
        return answers

    assert on_real_host(story) == ["1", "2", "3"]


def device_rules_of(host: RealHost) -> object:
    """Give what the VE may do with devices, which on cgroup v2 is nothing that can be read."""
    hierarchy = host.site.layout.of("devices")
    assert hierarchy is not None
    directory = hierarchy.path(compute.tree(host.site, A).inner)
    if hierarchy.unified:
        return len(device_rules.loaded(directory))
    tunnels = DeviceId(major=10, minor=200)  # which one of the runtimes always allows, and we do not
    return {device: access for device, access in device_rules.listed(directory).items() if device != tunnels}


def test_what_of_the_host_was_shown_is_shown_again_with_its_owners_and_is_known() -> None:
    async def story(host: RealHost) -> None:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "f").write_text("mine")
            await perform(
                host,
                *running(A),
                AddMount(uid=A, target="/data", mount=MountSpec(source=directory)),
                AddMount(uid=A, target="/seen", mount=MountSpec(source=directory, read_only=True)),
                AddDevice(uid=A, path="/dev/fuse", access="rw"),
            )
            before, rules = (await host.observe()).ves[A], device_rules_of(host)
            await shell(host, "setsid sh -c 'exec 3</data/f; sleep 600' </dev/null >/dev/null 2>&1 &")
            await until(host, "ls -l /proc/[0-9]*/fd/ 2>/dev/null | grep -q /data/f")
            await perform(host, *ASLEEP, *RESUMED)
            after = (await host.observe()).ves[A]
            assert isinstance(after.mounts, MountsObservation)
            assert isinstance(after.devices, DevicesObservation)
            assert device_rules_of(host) == rules
            assert (after.mounts, after.devices) == (before.mounts, before.devices)
            assert await shell(host, "stat -c %u /data/f; cat /seen/f") == "0\nmine"
            assert "Read-only" in await shell(
                host, "echo x 2>&1 >/seen/f; mount -o remount,rw /seen 2>&1; echo >/seen/f 2>&1; true"
            )
            await shell(host, "echo changed >/data/f")
            assert Path(directory, "f").read_text() == "changed\n"

    on_real_host(story)
