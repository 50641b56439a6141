"""Claims about removal: only on positive evidence, after a delay, into a trash from which a revert restores."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from reconciler.model.condition import ConditionType, Status
from reconciler.model.identity import VeName
from reconciler.state.conditions import SOURCE
from tests.support.fleet import Fleet, Value, network, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("agent-removal")

NAMES = ("a", "b", "c", "guarded")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    lan = network("lan", "10.191.3.0/24", gateway=["10.191.3.1"])
    with made_fleet(tmp_path_factory.getbasetemp(), lan) as made:
        for name in NAMES:
            describe(made, name)
        made.start_agent()
        made.await_ready(*NAMES)
        yield made


def describe(fleet: Fleet, name: str, **spec: Value) -> None:
    more: dict[str, Value] = {"protect": True} if name == "guarded" else {}
    fleet.put(f"{name}.yaml", ve(name, f"10.191.3.{11 + NAMES.index(name)}/24", **more, **spec))


@contextmanager
def nothing_happens(fleet: Fleet, names: Sequence[str] = NAMES) -> Iterator[None]:
    """Make sure that VEs go on as they are, and that the agent looked at them at least once more meanwhile."""
    before = {name: (fleet.ve(name), fleet.ve(name).init) for name in names}
    yield
    with fleet.puts_right("host/filter", "rules"):
        fleet.host("nft", "delete", "table", "bridge", fleet.instance.name)
    with fleet.puts_right("b", "memory.limit"):
        fleet.ve("b").memory_limit_file.write_text(str(32 << 20))
    assert {name: (fleet.ve(name), fleet.ve(name).init) for name in names} == before
    assert os.listdir(fleet.instance.trash) == []


def source(fleet: Fleet, kind: ConditionType) -> tuple[Status, str]:
    found = fleet.conditions(SOURCE)[kind]
    return found.status, found.reason


def test_a_broken_manifest_keeps_the_last_good_revision_in_force(fleet: Fleet) -> None:
    with nothing_happens(fleet):
        fleet.put_text(
            "a.yaml", "apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {name: a}\nspec: {memroy: 1}\n"
        )
        until(lambda: source(fleet, ConditionType.VALID) == (Status.FALSE, "Invalid"), "the mistake to be told")
    assert "a.yaml:4" in fleet.conditions(SOURCE)[ConditionType.VALID].message
    with nothing_happens(fleet):
        fleet.end_agent()
        fleet.start_agent()
        until(lambda: source(fleet, ConditionType.VALID) == (Status.FALSE, "Invalid"), "the mistake to be told")
    describe(fleet, "a")
    fleet.await_ready("a")


def test_a_broken_file_never_reads_as_a_removal(fleet: Fleet) -> None:
    with nothing_happens(fleet):
        fleet.put_text("a.yaml", "")
        fleet.put_text("c.yaml", "kind: [\n")
        until(lambda: source(fleet, ConditionType.VALID) == (Status.FALSE, "Invalid"), "the mistake to be told")
    describe(fleet, "a")
    describe(fleet, "c")
    fleet.await_ready("a", "c")


def test_a_directory_that_vanished_removes_nothing(fleet: Fleet) -> None:
    away = fleet.directory / "away"
    with nothing_happens(fleet):
        fleet.manifests.rename(away)
        until(lambda: source(fleet, ConditionType.FETCHED) == (Status.FALSE, "SourceVanished"), "that to be told")
    with nothing_happens(fleet):
        fleet.end_agent()
        fleet.start_agent()
        until(lambda: source(fleet, ConditionType.FETCHED) == (Status.FALSE, "SourceVanished"), "that to be told")
    away.rename(fleet.manifests)
    describe(fleet, "a", processes=55)
    fleet.await_ready("a")
    assert fleet.ve("a").limit("processes") == 55


def test_a_directory_that_was_emptied_removes_nothing(fleet: Fleet) -> None:
    kept = fleet.directory / "kept"
    shutil.copytree(fleet.manifests, kept)
    with nothing_happens(fleet):
        with fleet.in_one_moment():
            for file in fleet.manifests.iterdir():
                file.unlink()
        until(lambda: source(fleet, ConditionType.FETCHED) == (Status.FALSE, "SourceEmpty"), "that to be told")
    with fleet.in_one_moment():
        for file in kept.iterdir():
            file.rename(fleet.manifests / file.name)
    fleet.await_ready(*NAMES)


def test_the_removal_of_many_waits_for_consent(fleet: Fleet) -> None:
    with nothing_happens(fleet):
        with fleet.in_one_moment():
            for name in ("a", "c"):
                fleet.drop(f"{name}.yaml")
        for name in ("a", "c"):
            told = fleet.await_reason(name, "MassRemoval", ConditionType.STALLED)
            assert "approve" in told.message
    for name in ("a", "c"):
        describe(fleet, name)
    fleet.await_ready("a", "c")


def test_a_removal_counts_only_when_it_has_held_for_a_while(fleet: Fleet) -> None:
    known = json.loads(fleet.config.read_text())
    fleet.end_agent()
    fleet.config.write_text(json.dumps({**known, "pruneDelay": "1h"}))
    fleet.start_agent()
    try:
        with nothing_happens(fleet):
            fleet.drop("a.yaml")
            fleet.await_reason("a", "Waiting")
        describe(fleet, "a")
        fleet.await_ready("a")
    finally:
        fleet.end_agent()
        fleet.config.write_text(json.dumps(known))
        fleet.start_agent()


def test_what_is_removed_goes_to_the_trash_and_comes_back_with_its_data(fleet: Fleet) -> None:
    former = fleet.ve("a")
    init = former.init
    former.shell("echo precious > /root/data")
    bystanders = [fleet.ve(name).init for name in ("b", "c", "guarded")]
    fleet.drop("a.yaml")
    fleet.await_removed("a")
    assert not former.runs
    assert not former.cgroup.exists()
    assert former.link() not in fleet.host("ip", "link")
    assert [entry.split(".")[0] for entry in os.listdir(fleet.instance.trash)] == [former.uid]
    describe(fleet, "a")
    fleet.await_ready("a")
    assert fleet.ve("a") == former
    assert fleet.ve("a").init != init
    assert former.run("cat", "/root/data") == "precious\n"
    assert os.listdir(fleet.instance.trash) == []
    assert [fleet.ve(name).init for name in ("b", "c", "guarded")] == bystanders


def test_protection_outlives_the_manifest(fleet: Fleet) -> None:
    with nothing_happens(fleet):
        fleet.drop("guarded.yaml")
        told = fleet.await_reason("guarded", "Protected", ConditionType.STALLED)
        assert "unprotect guarded" in told.message
    with nothing_happens(fleet):
        fleet.end_agent()
        fleet.start_agent()
        fleet.await_reason("guarded", "Protected", ConditionType.STALLED)
    describe(fleet, "guarded")
    fleet.await_ready("guarded")


def test_removals_of_one_day_count_together(fleet: Fleet) -> None:
    fleet.drop("a.yaml")
    fleet.await_removed("a")
    fleet.drop("c.yaml")
    fleet.await_reason("c", "MassRemoval", ConditionType.STALLED)
    assert fleet.ve("c").runs
    describe(fleet, "a")
    describe(fleet, "c")
    fleet.await_ready("a", "c")


def test_what_was_let_go_is_not_removed(fleet: Fleet) -> None:
    """After `vectl forget` a VE came from no source, and the absence of its manifest says nothing."""
    with nothing_happens(fleet):
        fleet.ask("pause", ve="c", reason="let go", by="somebody")
        fleet.drop("c.yaml")
        until(lambda: fleet.conditions(SOURCE)[ConditionType.VALID].revision == fleet.revision(), "the edit to be seen")
        fleet.ask("forget", ve="c", by="somebody")
        fleet.ask("unpause", ve="c", by="somebody")
    assert fleet.records()[VeName("c")].source == ""
