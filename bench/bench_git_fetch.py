"""Looking at a repository of 2,000 VEs: that nothing is new, and what five changed files bring, beside `git fetch`."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import common
from reconciler.agent.clock import SystemClock
from reconciler.agent.pulling import Puller
from reconciler.kernel.git import ISOLATED
from reconciler.kernel.git_remote import Remote, environment
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from reconciler.state.location import GitLocation
from tests.support import gitserver
from tests.support.gitrepo import Clone, bare

VES, ROUNDS, CHANGED = 2000, 15, 5
GOAL_S = 0.050
MAIN = "refs/heads/main"


def main() -> None:
    """Measure over a path, http and ssh."""
    common.machine()
    with _scratch() as scratch:
        clone = _repository(scratch)
        origin = scratch / "served/fleet.git"
        measure(scratch, clone, "a path", GitLocation(urls=(str(origin),)))
        with gitserver.http(scratch / "served") as http:
            measure(scratch, clone, "http", GitLocation(urls=(http.url("fleet.git"),)))
        with gitserver.ssh(scratch / "ssh", scratch / "served") as ssh:
            paths = (str(ssh.key), str(ssh.known_hosts))
            location = GitLocation(urls=(ssh.url("fleet.git"),), ssh_key=paths[0], known_hosts=paths[1])
            measure(scratch, clone, "ssh", location)


@contextmanager
def _scratch() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="vectl-bench-fetch-", dir="/var/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _repository(scratch: Path) -> Clone:
    bare(scratch / "served" / "fleet.git")
    clone = Clone(scratch / "clone")
    common.write_manifests(clone.path / "fleet", VES)
    clone.commit({})
    clone.push(scratch / "served/fleet.git")
    return clone


def measure(scratch: Path, clone: Clone, way: str, location: GitLocation) -> None:
    """Alternate ours and git's own, and print what ours costs beside it."""
    place = scratch / way.replace(" ", "-")
    instance = Instance(name="bnfetch", host=HostName("bench"), state_dir=str(place), run_dir=str(place), cgroup="/b")
    puller, alone = Puller(location, instance, clock=SystemClock()), _alone(location, place / "alone.git")
    head = [asyncio.run(puller.pull("")).revision]
    alone()

    def ours() -> None:
        head.append(asyncio.run(puller.pull(head[-1])).revision)

    _report(f"over {way}: nothing new", *_samples(ours, alone, lambda: None), goal_s=GOAL_S)
    _report(f"over {way}: {CHANGED} files of {VES}", *_samples(ours, alone, lambda: _change(scratch, clone)))


def _alone(location: GitLocation, path: Path) -> Callable[[], object]:
    """Give git's own fetch of the same, as a person would have it done."""
    remote = Remote(url=location.urls[0], ssh_key=location.ssh_key, known_hosts=location.known_hosts)
    env = {**os.environ, **environment(remote)}
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], env={**os.environ, **ISOLATED}, check=True)
    argv = ["git", "--git-dir", str(path), "fetch", "--quiet", "--no-tags", remote.url, f"+{MAIN}:{MAIN}"]
    return lambda: subprocess.run(argv, env=env, check=True, timeout=60)


def _samples(
    ours: Callable[[], object], alone: Callable[[], object], before: Callable[[], object]
) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = [], []
    for number in range(ROUNDS):
        before()
        pair = list(zip((ours, alone), found, strict=True))
        for work, samples in reversed(pair) if number % 2 else pair:
            samples.append(common.timed(work))
    return found


def _change(scratch: Path, clone: Clone) -> None:
    for file in sorted((clone.path / "fleet").glob("ve*.yaml"))[:CHANGED]:
        file.write_text(file.read_text() + "# touched\n")
    clone.commit({})
    clone.push(scratch / "served/fleet.git")


def _report(what: str, ours: list[float], alone: list[float], *, goal_s: float | None = None) -> None:
    mine, git = statistics.median(ours), statistics.median(alone)
    value = f"{mine * 1000:.0f} ms, git {git * 1000:.0f} ms"
    goal = f"+{goal_s * 1000:.0f} ms" if goal_s is not None else "none"
    beside = f"{(mine - git) * 1000:+.0f} ms, {mine / git:.2f}x"
    common.report(what, f"{value} ({beside})", goal, met=None if goal_s is None else mine - git <= goal_s)


if __name__ == "__main__":
    main()
