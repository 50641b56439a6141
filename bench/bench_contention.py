"""How VEs and the rest of the host share one CPU while all of them burn: what is declared, what is guaranteed, what
they get."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from bench import common
from reconciler.kernel import cgroup_instance, cgroup_layout
from reconciler.model.identity import Uid
from tests.support import burning
from tests.support.inside import Ve

CPU_S = 6.0
"""CPU time that all have together in each case. Units: seconds."""

LOOPS = 3


@dataclass(frozen=True, slots=True)
class One:
    """A VE of a case."""

    name: str
    weight: int = 100
    guarantee: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """What burns at once. ``beside``: the weight of a cgroup beside all VEs, 0 for none; ``loose``: of processes in
    no cgroup of their own, how many."""

    ves: tuple[One, ...]
    beside: int = 0
    loose: int = 0


CASES = {
    "weights alone": Case((One("a"), One("b", 200), One("c", 700))),
    "weights alone, the host burns": Case((One("a"), One("b", 200), One("c", 700)), beside=100),
    "a guarantee beside the heaviest neighbour, the host burns": Case(
        (One("a", 1, 0.5), One("b", 10_000), One("c")), beside=100, loose=1
    ),
    "two guarantees, the host weighs all that is reckoned with": Case(
        (One("a", 100, 0.2), One("b", 100, 0.5), One("c", 10_000)), beside=200, loose=1
    ),
    "nearly all is guaranteed, the host burns": Case((One("a", 100, 0.3), One("b", 100, 0.6), One("c")), beside=100),
}


def main() -> None:
    """Measure case by case."""
    common.machine()
    with common.place("bncont", ves=0) as place:
        for title, case in CASES.items():
            sys.stdout.write(f"\n{title}\n")
            measure(place, case)


def measure(place: common.Place, case: Case) -> None:
    """Bring up the VEs of a case, let everybody burn, and print who got what."""
    cpu = burning.measured_cpu()
    (place.manifests / "ves.yaml").write_text("\n---\n".join(manifest(one, cpu) for one in case.ves))
    applied = place.vectl("apply", str(place.manifests), "--yes")
    assert applied.returncode == 0, applied.stderr
    items = json.loads(place.vectl("get", "-o", "json").stdout)["items"]
    ves = {item["name"]: Ve(place.instance, Uid(item["uid"])) for item in items}
    with ExitStack() as stack:
        meters = {name: burning.cpu_used(one.cgroup) for name, one in ves.items()}
        if case.beside:
            tree = stack.enter_context(burning.rival("bncont-rival", weight=case.beside, cpu=cpu, loops=LOOPS))
            meters[f"beside the VEs, weight {case.beside}"] = burning.cpu_used(tree)
        for number in range(case.loose):
            meters[f"in no cgroup, {number + 1}"] = stack.enter_context(burning.loose(cpu))
        for one in ves.values():
            stack.callback(burning.quench, one)
            burning.burn_inside(one, loops=LOOPS)
        show(place, case, ves, burning.shares(meters, cpu_s=CPU_S))


def manifest(one: One, cpu: int) -> str:
    """Give the manifest of a VE on the one CPU."""
    limits = {"cpus": str(cpu), "weight": one.weight, "guarantee": one.guarantee}
    spec = {"cpu": limits, "memory": {"limit": "64Mi"}, "disk": {"size": "64Mi"}}
    kind = {"apiVersion": "ve/v1", "kind": "VirtualEnvironment", "metadata": {"name": one.name}}
    return json.dumps({**kind, "spec": spec})


def show(place: common.Place, case: Case, ves: dict[str, Ve], got: dict[str, float]) -> None:
    """Print a case."""
    layout = cgroup_layout.detect()
    together = cgroup_instance.read_limits(layout, place.instance.cgroup)["cpu.weight"]
    sys.stdout.write(f"{'who':28} {'weight':>7} {'guarantee':>9} {'in force':>8} {'got':>6}\n")
    for one in case.ves:
        held = ves[one.name].limit("cpu.weight")
        met = "" if not one.guarantee else "  met" if got[one.name] >= one.guarantee else "  NOT MET"
        sys.stdout.write(f"{one.name:28} {one.weight:7} {one.guarantee:9.2f} {held!s:>8} {got[one.name]:6.1%}{met}\n")
    sys.stdout.write(f"{'all VEs':28} {'':7} {'':9} {together:8} {sum(got[one.name] for one in case.ves):6.1%}\n")
    for name in got.keys() - {one.name for one in case.ves}:
        sys.stdout.write(f"{name:28} {'':7} {'':9} {'':8} {got[name]:6.1%}\n")


if __name__ == "__main__":
    main()
