"""Claims about manifests that the commands write, for VEs that are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from reconciler.model.identity import VeName
from tests.support.fleet import Document, Fleet, network, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = pytest.mark.xdist_group("writing-back")

LAN = network("lan", "10.187.1.0/24", gateway=["10.187.1.1"])
STAYS = ve("stays")
OLD1 = VeName("old1")
OLD = ve("old1", "10.187.1.11/24", metadata={"labels": {"tier": "web"}}, boot={"dependsOn": ["stays"], "order": 3})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), LAN, STAYS, OLD) as made:
        made.vectl("apply", str(made.manifests), "--yes")
        yield made


@pytest.fixture
def fleet(host: Fleet) -> Fleet:
    """A host with a VE that no manifest names and no source owns."""
    for file in host.manifests.iterdir():
        file.unlink()
    put(host, LAN, STAYS)
    if host.records()[OLD1].source:
        host.vectl("apply", str(host.manifests), "--yes")
        host.vectl("forget", "old1")
    return host


def put(fleet: Fleet, *documents: Document) -> None:
    fleet.put_text("all.yaml", "\n---\n".join(json.dumps(document) for document in documents))


def test_what_it_stands_on_is_written_beside_it_where_nobody_declares_it(fleet: Fleet) -> None:
    put(fleet, STAYS)
    where = fleet.directory / "elsewhere"
    where.mkdir()
    os.chown(where, 1234, 1234)
    file = where / "old1.yaml"
    fleet.vectl("adopt", "old1", "--to", str(file))
    assert "kind: Network" in file.read_text()
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (1234, 0o644)
    fleet.vectl("validate", str(where))


def test_the_manifest_is_printed_where_no_file_is_named(fleet: Fleet) -> None:
    printed = fleet.vectl("adopt", "old1")
    assert printed.startswith("# old1 as it was on ")
    assert "kind: Network" not in printed


def test_no_file_is_overwritten_and_no_stranger_adopted(fleet: Fleet) -> None:
    assert "is there already" in fleet.complaint("adopt", "old1", "--to", str(fleet.manifests / "all.yaml"), code=64)
    assert "no VE of that name" in fleet.complaint("adopt", "nobody")
    (fleet.manifests / "broken.yaml").write_text("kind: [\n")
    file = fleet.manifests / "old1.yaml"
    fleet.complaint("adopt", "old1", "--to", str(file))
    assert not file.exists()


def test_a_ve_that_is_adopted_is_taken_in_as_it_is(fleet: Fleet) -> None:
    before, record = fleet.ve("old1").init, fleet.records()[OLD1]
    assert record.source == ""
    file = fleet.manifests / "old1.yaml"
    assert "as it is now; the next apply takes it in\n" in fleet.complaint("adopt", "old1", "--to", str(file), code=0)
    text = file.read_text()
    assert f"uid: {record.uid}" in text
    assert "dependsOn:\n    - stays\n" in text
    assert "kind: Network" not in text

    assert fleet.vectl("plan", str(fleet.manifests), "--detailed-exitcode") == "No changes.\n"
    fleet.vectl("apply", str(fleet.manifests), "--yes")
    assert fleet.ve("old1").init == before
    assert fleet.records()[OLD1].source == f"dir:{fleet.manifests}"
    assert "a manifest names it already" in fleet.complaint("adopt", "old1", code=4)
