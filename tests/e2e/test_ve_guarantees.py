"""Claims about guarantees under full contention: who is promised CPU time gets it, whoever else burns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.kernel import cgroup_instance, cgroup_layout
from tests.support import burning
from tests.support.fleet import Document, Fleet, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("ve-guarantees")

CPU = burning.measured_cpu()
GUARANTEE = 0.5


def pinned(name: str, **cpu: object) -> Document:
    return ve(name, cpu={"cpus": str(CPU), **cpu})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    documents = (pinned("loud", weight=10_000), pinned("plain"))
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        made.start_agent()
        made.await_ready("loud", "plain")
        yield made


@pytest.fixture
def firm(fleet: Fleet) -> Iterator[None]:
    """Promise a third VE half of the CPU on which all are."""
    fleet.put("firm.yaml", pinned("firm", guarantee=GUARANTEE, weight=1))
    fleet.await_ready("firm", "loud", "plain")
    yield
    fleet.put("firm.yaml", pinned("firm", weight=1))
    fleet.await_ready("firm", "loud", "plain")
    fleet.settle()


def weights(fleet: Fleet) -> dict[str, object]:
    return {name: fleet.ve(name).limit("cpu.weight") for name in ("loud", "plain")}


def instance_limits(fleet: Fleet) -> dict[str, int]:
    return cgroup_instance.read_limits(cgroup_layout.detect(), fleet.instance.cgroup)


def instance_weight_file(fleet: Fleet) -> Path:
    layout = cgroup_layout.detect()
    files = cgroup_instance.limit_paths(layout, fleet.instance.cgroup)
    return next(Path(file) for file in files if "cpu" in Path(file).name)


def changes_of_ves(fleet: Fleet) -> list[str]:
    """Give the passes over VEs that did something; what all VEs weigh follows whatever else comes and goes here."""
    return [told for told in fleet.actions() if not told.startswith("*")]


@pytest.mark.usefixtures("firm")
def test_a_guarantee_holds_against_heavier_ves_and_the_rest_of_the_host(fleet: Fleet) -> None:
    ves = {name: fleet.ve(name) for name in ("firm", "loud", "plain")}
    with ExitStack() as stack:
        beside = stack.enter_context(burning.rival(f"{fleet.instance.name}-rival", weight=100, cpu=CPU, loops=4))
        rootless = stack.enter_context(burning.loose(CPU))
        for name, one in ves.items():
            stack.callback(burning.quench, one)
            burning.burn_inside(one, loops=1 if name == "firm" else 4)
        meters = {name: burning.cpu_used(one.cgroup) for name, one in ves.items()}
        got = burning.shares({**meters, "beside": burning.cpu_used(beside), "loose": rootless})
    assert got["firm"] >= GUARANTEE, got
    assert got["loud"] > got["plain"], got


def test_a_guarantee_of_one_changes_the_weights_of_others_as_a_rule_and_not_as_drift(fleet: Fleet) -> None:
    assert weights(fleet) == {"loud": 10_000, "plain": 100}
    fleet.put("firm.yaml", pinned("firm", guarantee=GUARANTEE))
    fleet.await_ready("firm", "loud", "plain")
    until(lambda: weights(fleet)["loud"] != 10_000, "the others to make room")
    assert instance_limits(fleet)["cpu.weight"] > 100
    fleet.settle()
    assert f"10000, {weights(fleet)['loud']} beside the others" in fleet.vectl("describe", "loud")
    done = changes_of_ves(fleet)
    fleet.ask("reconcile")
    fleet.settle()
    assert changes_of_ves(fleet) == done
    with fleet.puts_right("loud", "cpu.weight"):
        fleet.ve("loud").limit_file("cpu.shares", "cpu.weight", controller="cpu").write_text("77")
    with fleet.puts_right("host/cgroup", "cpu.weight"):
        instance_weight_file(fleet).write_text("99")
    fleet.put("firm.yaml", pinned("firm"))
    until(lambda: weights(fleet) == {"loud": 10_000, "plain": 100}, "the declared weights to be in force again")
    until(lambda: instance_limits(fleet)["cpu.weight"] == 100, "the instance to have its default weight again")
    fleet.settle()
    told = [event for event in fleet.events() if event.ve == "loud" and "cpu.weight" in event.message]
    assert [event.reason for event in told[-3:]] == ["GuaranteesChanged", "Drifted", "GuaranteesChanged"]
