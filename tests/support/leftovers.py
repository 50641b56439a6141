"""What an instance leaves behind: looked for after it was taken down, and swept away if that failed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from reconciler.errors import KeeperError, VectlError
from reconciler.host import lxcfs
from reconciler.host.keeper.client import KeeperClient
from reconciler.kernel import cgroup_layout
from reconciler.kernel.cgroup import CgroupTree
from reconciler.model.identity import filter_table
from reconciler.model.instance import Instance
from tests.support import scratch


def find(instance: Instance, namespace: int) -> list[str]:
    """Name everything of an instance that is still on this machine. ``namespace``: of the network it lived in."""
    return [
        *(path for path in (instance.state_dir, instance.run_dir) if os.path.lexists(path)),
        *(f"mount {target}" for target in _mounts(instance)),
        *(f"loop device of {file}" for file in _loop_files(instance)),
        *(f"cgroup {path}" for path in cgroups(instance)),
        *(f"link {name}" for name in _links(instance, namespace)),
        *(f"table {name}" for name in _tables(instance, namespace)),
        *(f"process {line}" for line in processes(instance)),
    ]


def _mounts(instance: Instance) -> list[str]:
    return [target for path in (instance.state_dir, instance.run_dir) for target in scratch.mounts_below(path)]


def _loop_files(instance: Instance) -> list[str]:
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached meanwhile
            found.append(file.read_text().strip())
    ours = [path for path in found if path.startswith((f"{instance.state_dir}/", f"{instance.run_dir}/"))]
    return [] if ours and _is_mounted_elsewhere(instance) else ours


def _is_mounted_elsewhere(instance: Instance) -> bool:
    """Say whether a mount namespace that somebody copied meanwhile holds our mounts: what it holds is freed with it."""
    directory = os.path.dirname(instance.state_dir)
    for file in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):  # it has ended
            if f" {directory}/" in file.read_text(errors="replace"):
                return True
    return False


def cgroups(instance: Instance) -> list[str]:
    """Give the directories of an instance in all hierarchies."""
    paths = (hierarchy.path(instance.cgroup) for hierarchy in cgroup_layout.detect().hierarchies())
    return [path for path in paths if os.path.exists(path)]


def _links(instance: Instance, namespace: int) -> list[str]:
    shown = json.loads(_in(namespace, "ip", "-j", "link") or "[]")
    mark = f"{instance.name}:"
    return [
        link["ifname"]
        for link in shown
        if link.get("ifalias", "").startswith(mark) or link["ifname"].startswith(f"{instance.name}-")
    ]


def _tables(instance: Instance, namespace: int) -> list[str]:
    name = filter_table(instance.name)
    return [line for line in _in(namespace, "nft", "list", "tables").splitlines() if line.split()[-1] == name]


def _in(namespace: int, *argv: str) -> str:
    enter = ["nsenter", f"--net=/proc/self/fd/{namespace}", "--", *argv]
    return subprocess.run(
        enter, pass_fds=(namespace,), stdout=subprocess.PIPE, text=True, check=True, timeout=30.0
    ).stdout


def processes(instance: Instance) -> list[str]:
    """Give the processes whose command line names the instance's directory: its keeper, its agent."""
    found, directory = [], os.path.dirname(instance.run_dir)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            words = entry.read_bytes().decode(errors="replace").replace("\0", " ")
            if f"{directory}/" in words:
                found.append(f"{entry.parent.name}: {words}")
    return found


def sweep(instance: Instance) -> None:
    """Remove what a failed end left, so that it disturbs no other test: processes, mounts, cgroups, directories."""
    layout = cgroup_layout.detect()
    for name in {entry.name for path in cgroups(instance) for entry in Path(path).iterdir() if entry.is_dir()}:
        with suppress(VectlError):
            tree = CgroupTree(layout, f"{instance.cgroup}/{name}")
            tree.kill()
            tree.remove()
    with suppress(KeeperError, OSError):
        asyncio.run(_end_keeper(instance.run_dir))
    with suppress(VectlError):
        lxcfs.end(instance)
    for path in cgroups(instance):
        with suppress(OSError):
            os.rmdir(path)
    for path in (instance.state_dir, instance.run_dir):
        scratch.unmount_below(path)
        shutil.rmtree(path, ignore_errors=True)


async def _end_keeper(run_dir: str) -> None:
    async with await KeeperClient.connect(run_dir) as keeper:
        await keeper.shut_down(force=True)
