"""The built-in template: complete, and alive as an environment with a user namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import MissingToolError
from reconciler.kernel import btrfs, busybox, overlay, rootfs, userns
from reconciler.kernel.overlay import OverlayMount
from tests.support.storage import in_private_namespace, pool, read, template

pytestmark = pytest.mark.kernel

BASE = 1_000_000
IDS = 65536
DEADLINE_S = 60.0
NOWHERE = "/nonexistent"

# What an environment's init ends with, as its parent sees it: runc adds the signal to 128.
REBOOTED = 128 + signal.SIGHUP
HALTED = 128 + signal.SIGINT

CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "SETGID", "SETUID"),
        *("SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT"),
    )
]

# Starts after the services' first round, waits for each of them to serve, says so, and goes on with what is asked.
PROBE = """\
#!/bin/sh
(
    ifconfig lo up
    until wget -q -O /page http://127.0.0.1/; do sleep 0.05; done
    until [ -S /dev/log ]; do sleep 0.05; done
    logger -t probe "hello from inside"
    until grep -q "hello from inside" /var/log/messages; do sleep 0.05; done
    until pidof crond; do sleep 0.05; done
    stat -c %u /proc/$(pidof httpd) >/httpd-user
    {end}
) >/probe.log 2>&1 &
"""


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    directory = str(tmp_path_factory.mktemp("busybox"))
    with (
        template(directory, lambda tree: busybox.build_tree(tree, programs=NOWHERE)) as lower,
        pool(directory) as upper,
    ):
        yield lower, upper


@pytest.fixture
def spec(layers: tuple[str, str], tmp_path: Path) -> Iterator[OverlayMount]:
    lower, upper = layers
    volume = f"{upper}/{tmp_path.name}"
    btrfs.create_subvolume(volume)
    overlay.make_layers(volume)
    # The runtime looks the path up as the environment's root, whom pytest's own directories keep out.
    with tempfile.TemporaryDirectory() as target:
        os.chmod(target, 0o711)
        yield OverlayMount(lower=lower, volume=volume, target=target, id_base=BASE, id_count=IDS, nfs_export=True)
    btrfs.delete_subvolume(volume)


def bundle(spec: OverlayMount, directory: Path) -> None:
    """Write the smallest bundle that boots an init in a user namespace."""
    ids = [{"containerID": 0, "hostID": spec.id_base, "size": spec.id_count}]
    tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
    config = {
        "ociVersion": "1.0.2",
        "hostname": "ve",
        "root": {"path": spec.target},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/sbin/init"],
            "cwd": "/",
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            *({"destination": f"/{name}", **tmpfs} for name in ("dev", "run", "tmp")),
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network", "user")],
            "uidMappings": ids,
            "gidMappings": ids,
            "cgroupsPath": f"/vectl-busybox-{os.getpid()}/{directory.name}",
        },
    }
    (directory / "config.json").write_text(json.dumps(config))


def boot(spec: OverlayMount, directory: Path, end: str, meanwhile: Callable[[int], None] | None = None) -> int:
    """Boot the environment, with a probe that ends with a command, and give the status it ended with."""
    bundle(spec, directory)

    def run() -> int:
        overlay.mount_overlay(spec)
        root = os.open(spec.target, os.O_PATH)
        with userns.acting_as(BASE, BASE):
            probe = PROBE.replace("{end}", end).encode()
            rootfs.write_in_root(root, "/etc/init.d/S99probe", probe, mode=0o755, uid=BASE, gid=BASE)
        os.close(root)
        return run_bundle(directory, meanwhile)

    return in_private_namespace(run)


def run_bundle(directory: Path, meanwhile: Callable[[int], None] | None) -> int:
    runc = ["runc", "--root", f"{directory}/runc", "--log", f"{directory}/runc.log"]
    name = f"vectl-busybox-{os.getpid()}"
    command = [*runc, "run", "--bundle", str(directory), "--pid-file", f"{directory}/pid", name]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if meanwhile:
            wait_for(f"{directory}/pid", process)
            meanwhile(int(read(f"{directory}/pid")))
        return process.wait(DEADLINE_S)
    finally:
        if process.poll() is None:
            subprocess.run([*runc, "delete", "--force", name], timeout=DEADLINE_S, check=True)
            process.wait(DEADLINE_S)


def wait_for(path: str, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not (os.path.exists(path) and os.path.getsize(path)):
        assert time.monotonic() < deadline, f"{path} did not appear"
        assert process is None or process.poll() is None, "the runtime ended early"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_cgroups_left() -> Iterator[None]:
    yield
    for controller in os.listdir("/sys/fs/cgroup"):
        path = f"/sys/fs/cgroup/{controller}/vectl-busybox-{os.getpid()}"
        if os.path.isdir(path):
            os.rmdir(path)
    path = f"/sys/fs/cgroup/vectl-busybox-{os.getpid()}"
    if os.path.isdir(path):
        os.rmdir(path)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("/sbin/reboot", REBOOTED),
        ("/sbin/halt", HALTED),
        ("/sbin/poweroff", HALTED),
        ("/sbin/reboot -f", REBOOTED),
        ("busybox poweroff", HALTED),
    ],
)
def test_its_services_serve_and_it_ends_as_it_is_told(
    spec: OverlayMount, tmp_path: Path, end: str, status: int
) -> None:
    assert boot(spec, tmp_path, end) == status
    upper = f"{spec.volume}/upper"
    assert read(f"{upper}/page") == read(f"{spec.lower}/www/index.html")
    assert read(f"{upper}/httpd-user") == "33\n"
    assert "probe: hello from inside" in read(f"{upper}/var/log/messages")
    assert os.stat(f"{upper}/var/log/messages").st_uid == 0


def test_from_outside_it_is_stopped_by_its_signal_after_its_services_ended(spec: OverlayMount, tmp_path: Path) -> None:
    upper = f"{spec.volume}/upper"

    def stop(init: int) -> None:
        wait_for(f"{upper}/ready")
        os.kill(init, signal.SIGINT)

    assert boot(spec, tmp_path, "echo yes >/ready", stop) == HALTED
    assert "syslogd exiting" in read(f"{upper}/var/log/messages")


def test_a_process_that_does_not_heed_the_request_to_end_does_not_hold_it_up_for_ever(
    spec: OverlayMount, tmp_path: Path
) -> None:
    deaf = "sh -c 'trap \"\" TERM HUP; touch /deaf; sleep 1000; sleep 1000' & until [ -e /deaf ]; do sleep 0.05; done"
    assert boot(spec, tmp_path, f"{deaf}; /sbin/poweroff") == HALTED
    # Nor is any service started again while it is waited for.
    assert read(f"{spec.volume}/upper/var/log/messages").count("syslogd started") == 1


def test_a_user_becomes_root_by_su(spec: OverlayMount, tmp_path: Path) -> None:
    no_password = "sed -i s/^root:x:/root::/ /etc/passwd"
    become_root = "start-stop-daemon -S -c nobody -x /usr/bin/su -- -c 'id -u >/su-user'"
    assert boot(spec, tmp_path, f"{no_password}; {become_root}; /sbin/halt") == HALTED
    assert read(f"{spec.volume}/upper/su-user") == "0\n"


def test_it_has_a_place_for_everything_the_runtime_mounts(layers: tuple[str, str]) -> None:
    lower, _ = layers
    modes = {name: stat.S_IMODE(os.stat(f"{lower}/{name}").st_mode) for name in ("proc", "sys", "dev", "run", "tmp")}
    assert modes == {"proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755, "tmp": 0o1777}


def test_nobody_can_log_in_and_nothing_listens_but_the_web_server(layers: tuple[str, str]) -> None:
    lower, _ = layers
    users = [line.split(":")[0] for line in read(f"{lower}/etc/passwd").splitlines()]
    locked = [line.split(":")[0] for line in read(f"{lower}/etc/shadow").splitlines() if line.split(":")[1] == "*"]
    assert users == locked
    assert "getty" not in read(f"{lower}/etc/inittab")
    assert stat.S_IMODE(os.stat(f"{lower}/etc/shadow").st_mode) == 0o600


def test_every_link_in_it_leads_to_something_in_it(layers: tuple[str, str]) -> None:
    lower, _ = layers
    root = os.open(lower, os.O_PATH)
    try:
        for top, directories, names in os.walk(lower):
            for name in directories + names:
                path = os.path.relpath(f"{top}/{name}", lower)
                if os.path.islink(f"{lower}/{path}") and path != "etc/mtab":  # leads into /proc
                    os.close(rootfs.open_in_root(root, path, os.O_PATH))
    finally:
        os.close(root)


def test_a_busybox_that_needs_libraries_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamic = shutil.which("mkfs.btrfs")
    assert dynamic
    assert busybox.is_static(busybox.find_static_busybox(NOWHERE))
    assert not busybox.is_static(dynamic)
    assert not busybox.is_static("/etc/hostname")
    monkeypatch.setattr(busybox, "_CANDIDATES", (dynamic, "/etc/hostname"))
    monkeypatch.setenv("PATH", NOWHERE)
    with pytest.raises(MissingToolError, match=f"{dynamic} needs libraries.*install the Debian package busybox-static"):
        busybox.find_static_busybox(NOWHERE)
    monkeypatch.setattr(busybox, "_CANDIDATES", ())
    with pytest.raises(MissingToolError, match=r"there is none; install the Debian package busybox-static"):
        busybox.find_static_busybox(NOWHERE)


def test_a_static_busybox_of_our_own_comes_first_and_a_dynamic_one_last(tmp_path: Path) -> None:
    systems = busybox.find_static_busybox(NOWHERE)
    own = tmp_path / "busybox"
    shutil.copy(systems, own)
    assert busybox.find_static_busybox(str(tmp_path)) == str(own)
    own.write_bytes(b"#!/bin/sh\n")
    assert busybox.find_static_busybox(str(tmp_path)) == systems
