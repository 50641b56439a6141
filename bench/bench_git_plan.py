"""Plan between two revisions of a large repository, beside git alone and beside parsing and comparing everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import common

VES = 2000
MANY = 10_000
CHANGED = 5
HOSTS = 20
ROUNDS = 5
PLAN_GOAL_S = 0.5
COLD_GOAL_S = 4.0

_SHARED = """apiVersion: ve/v1
kind: Network
metadata: {name: lan}
spec: {subnets: [10.64.0.0/10], gateway: [10.64.0.1]}
---
apiVersion: ve/v1
kind: Profile
metadata: {name: small}
spec: {processes: 200, dns: {servers: [10.64.0.1]}}
"""

_EVERYTHING = """
import subprocess, sys
from deepdiff import DeepDiff
from ruamel.yaml import YAML
def load(revision):
    names = subprocess.run(["git", "-C", sys.argv[1], "ls-tree", "-r", "--name-only", revision], capture_output=True)
    objects = "".join(f"{revision}:{name}\\n" for name in names.stdout.decode().split()).encode()
    batch = subprocess.run(["git", "-C", sys.argv[1], "cat-file", "--batch"], input=objects, capture_output=True).stdout
    found, at = {}, 0
    for name in names.stdout.decode().split():
        end = batch.index(b"\\n", at)
        size = int(batch[at:end].split()[2])
        found[name] = list(YAML(typ="rt").load_all(batch[end + 1 : end + 1 + size].decode()))
        at = end + size + 2
    return found
print(len(DeepDiff(load("main"), load("change"))))
"""


def main() -> None:
    """Print each figure with its goal."""
    with tempfile.TemporaryDirectory(prefix="vectl-bench-git-", dir="/var/tmp") as scratch:
        _between(Path(scratch))
        _cold(Path(scratch))


def _between(scratch: Path) -> None:
    repository = _repository(scratch / "fleet", VES)
    ours = _command(scratch, "plan", str(repository), "--from", "main", "--to", "change", "--detailed-exitcode")
    first = _best(lambda: _run(ours, 2), rounds=1)
    again = _best(lambda: _run(ours, 2))
    change = min((_change(scratch, repository, ours) for _ in range(ROUNDS)), key=lambda cost: cost.wall_s)
    git = _best(lambda: _git(repository, "diff", "main", "change"))
    everything = _best(lambda: _run([sys.executable, "-c", _EVERYTHING, str(repository)], 0), rounds=1)
    print(f"plan between two revisions of {VES} VEs, {CHANGED} files changed, with the start of the process:")
    print(f"  nothing kept from before  {first}")
    print(f"  all but the changed kept  {change} (goal {PLAN_GOAL_S} s)")
    print(f"  all files kept            {again} (goal {PLAN_GOAL_S} s)")
    print(f"  `git diff` alone          {git}, ratio {again.wall_s / git.wall_s:.0f}")
    print(f"  ruamel and DeepDiff       {everything}, ratio 1/{everything.wall_s / again.wall_s:.0f}")


def _change(scratch: Path, repository: Path, ours: list[str]) -> _Cost:
    """Plan a change that nobody has seen, where the revision that it comes from is known."""
    shutil.rmtree(scratch / "cache")
    _run(_command(scratch, "plan", str(repository), "--from", "main", "--to", "main"), 0)
    return _cost(lambda: _run(ours, 2))


def _cold(scratch: Path) -> None:
    directory = scratch / "many"
    _write(directory, MANY)
    cold = _best(lambda: _run(_command(scratch, "validate", str(directory)), 0), rounds=2)
    print(f"{MANY} manifests, cold: {cold} (goal {COLD_GOAL_S} s)")


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of the quickest of some runs. Units: seconds; ``cpu_s`` of all its processes."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        """Give it in words; on a machine that does something else as well, CPU time says more."""
        return f"{self.wall_s:6.2f} s, {self.cpu_s:6.2f} s of CPU"


def _best(work: Callable[[], None], *, rounds: int = ROUNDS) -> _Cost:
    return min((_cost(work) for _ in range(rounds)), key=lambda cost: cost.wall_s)


def _cost(work: Callable[[], None]) -> _Cost:
    before = os.times()
    wall = common.timed(work)
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return _Cost(wall, spent)


def _repository(path: Path, ves: int) -> Path:
    _write(path, ves)
    _git(path, "init", "--quiet", "--initial-branch=main")
    _commit(path, "all of it")
    _git(path, "checkout", "--quiet", "-b", "change")
    for number in range(0, ves, ves // CHANGED):
        file = path / _name(number)
        file.write_text(file.read_text().replace("limit: 512Mi", "limit: 1Gi"))
    _commit(path, "some of it")
    _git(path, "gc", "--quiet")
    return path


def _write(path: Path, ves: int) -> None:
    hosts = (f"apiVersion: ve/v1\nkind: Host\nmetadata: {{name: node-{host}}}\n" for host in range(HOSTS))
    path.mkdir(parents=True)
    (path / "shared.yaml").write_text(_SHARED)
    (path / "hosts.yaml").write_text("---\n".join(hosts))
    for number in range(ves):
        file = path / _name(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_manifest(number))


def _name(number: int) -> str:
    return f"ves/{number % 50:02d}/web{number}.yaml"


def _manifest(number: int) -> str:
    address = f"10.{65 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}/10"
    return (
        f"# one of many\napiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata:\n  name: web{number}\n"
        f"  labels: {{tier: web, rack: r{number % 7}}}\nspec:\n  host: node-{number % HOSTS}\n  profile: [small]\n"
        f"  description: shop front end {number}\n  cpu: {{limit: 1.5}}\n  memory: {{limit: 512Mi, guarantee: 64Mi}}\n"
        f"  disk: {{size: 4Gi}}\n  interfaces:\n    - name: eth0\n      network: lan\n      addresses: [{address}]\n"
    )


def _command(scratch: Path, *arguments: str) -> list[str]:
    config = scratch / "config.yaml"
    config.write_text("host: node-0\n")
    return ["env", f"XDG_CACHE_HOME={scratch}/cache", *common.VECTL, "--config", str(config), *arguments]


def _commit(path: Path, message: str) -> None:
    _git(path, "add", "--all")
    _git(path, "-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "--quiet", "-m", message)


def _git(path: Path, *arguments: str) -> None:
    _run(["git", "-C", str(path), *arguments], 0)


def _run(command: list[str], status: int) -> None:
    """Run a program as it is once it is installed: with its bytecode kept."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stderr[-2000:]}"


if __name__ == "__main__":
    main()
