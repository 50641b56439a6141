"""Claims about what cannot be done: it is said clearly, where it is wrong, and nothing else suffers from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.condition import ConditionType, Status
from reconciler.state.conditions import SOURCE
from tests.support.fleet import Document, Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("ve-errors")

LAN = network("lan", "10.191.16.0/24", gateway=["10.191.16.1"])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), LAN, ve("a", "10.191.16.11/24")) as made:
        made.start_agent()
        made.await_ready("a")
        yield made


def validity(fleet: Fleet) -> Status:
    return fleet.conditions(SOURCE)[ConditionType.VALID].status


INVALID: dict[str, tuple[Document, tuple[str, ...]]] = {
    "template": (ve("x", template="nosuch"), ("x.yaml", "template", "nosuch")),
    "network": (ve("x", "10.191.16.12/24", on="nosuch"), ("x.yaml", "network", "nosuch")),
    "address-taken": (ve("x", "10.191.16.11/24"), ("x.yaml", "10.191.16.11", "VE a")),
    "address-outside": (ve("x", "10.99.0.1/24"), ("x.yaml", "10.99.0.1", "10.191.16.0/24")),
    "name-taken": (ve("a"), ("x.yaml", "'a'")),
    "field": (ve("x", memroy={"limit": "1Gi"}), ("x.yaml", "memroy", "did you mean", "memory")),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_mistake_is_shown_where_it_is_and_the_last_good_revision_stays(fleet: Fleet, case: str) -> None:
    document, words = INVALID[case]
    init = fleet.ve("a").init
    fleet.put("x.yaml", document)
    try:
        said = fleet.complaint("validate", str(fleet.manifests))
        assert [word for word in words if word not in said] == []
        until(lambda: validity(fleet) is Status.FALSE, "the mistake to be told")
        with fleet.puts_right("a", "memory.limit"):
            fleet.ve("a").memory_limit_file.write_text(str(32 << 20))
        assert set(fleet.records()) == {"a"}
        assert fleet.ve("a").init == init
    finally:
        fleet.drop("x.yaml")
    until(lambda: validity(fleet) is Status.TRUE, "it to be valid again")


def test_a_template_that_cannot_be_built_stalls_its_ve_only(fleet: Fleet) -> None:
    broken = {
        "apiVersion": "ve/v1",
        "kind": "Template",
        "metadata": {"name": "broken"},
        "spec": {"source": {"tarball": {"path": "/nosuch.tar", "sha256": "0" * 64}}},
    }
    fleet.put("x.yaml", broken, ve("x", "10.191.16.12/24", template="broken"), ve("y", "10.191.16.13/24"))
    try:
        fleet.await_ready("y")
        told = until(lambda: fleet.conditions("x").get(ConditionType.STALLED), "x to be stalled")
        assert told is not None
        assert "tarball" in told.message
        reaches(fleet.ve("y"), "10.191.16.1")
    finally:
        fleet.put("x.yaml", ve("y", "10.191.16.13/24"))
    fleet.await_ready("a", "y")


def path_without(fleet: Fleet, *programs: str) -> str:
    """Give a search path on which everything of this machine is found but some programs."""
    directory = fleet.directory / "bin"
    directory.mkdir(exist_ok=True)
    for place in reversed(os.environ["PATH"].split(":")):
        for program in Path(place).glob("*"):
            link = directory / program.name
            link.unlink(missing_ok=True)
            if program.name not in programs:
                link.symlink_to(program)
    return str(directory)


def test_a_missing_program_is_named_with_the_package_that_has_it(fleet: Fleet) -> None:
    a = fleet.ve("a")
    init = a.init
    fleet.end_agent()
    fleet.start_agent(path=path_without(fleet, "runc"))
    try:
        fleet.put("z.yaml", ve("z", "10.191.16.14/24"))
        told = fleet.await_reason("z", "MissingToolError", ConditionType.STALLED)
        assert "runc" in told.message
        assert "install" in told.message
        with fleet.puts_right("a", "memory.limit"):
            a.memory_limit_file.write_text(str(32 << 20))
        assert a.init == init
    finally:
        fleet.end_agent()
    fleet.start_agent()
    fleet.await_ready("z")


def test_a_pool_that_does_not_fit_is_refused_before_anything_is_made(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    with made_fleet(base, LAN, ve("a", "10.191.16.11/24"), pool={"size": "10Ti"}) as made:
        said = made.complaint("agent", "--source", str(made.manifests))
        assert "10Ti do not fit" in said
        assert "pool.size" in said
        assert [path.name for path in Path(made.instance.state_dir).glob("pool.btrfs*")] == []
        made.config.write_text(made.config.read_text().replace("10Ti", "256Mi"))
        made.start_agent()
        made.await_ready("a")


def test_a_runtime_that_is_none_is_refused(fleet: Fleet) -> None:
    known = fleet.config.read_text()
    fleet.config.write_text(json.dumps({**json.loads(known), "runtime": "docker"}))
    try:
        said = fleet.complaint("get")
        assert "config.yaml:1" in said
        assert "docker" in said
    finally:
        fleet.config.write_text(known)
