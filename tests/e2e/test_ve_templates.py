"""Claims about what VEs are made from: archives and images of whatever kind run beside each other, built once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import busybox
from reconciler.model.instance import DEFAULT_LIB
from tests.support.archives import http_server, oci_layout, sha256, simplestreams
from tests.support.fleet import Document, Fleet, Value, ve
from tests.support.fleet import fleet as made_fleet

pytestmark = [pytest.mark.xdist_group("ve-templates"), pytest.mark.timeout(180)]


def template(name: str, **source: Value) -> Document:
    return {"apiVersion": "ve/v1", "kind": "Template", "metadata": {"name": name}, "spec": {"source": source}}


def packed(directory: Path, name: str) -> bytes:
    """Pack a small system that says of itself what it came from."""
    tree = directory / name
    tree.mkdir()
    busybox.build_tree(str(tree), programs=f"{DEFAULT_LIB}/bin")
    (tree / "etc/who").write_text(name)
    words = ["tar", "-C", str(tree), "--sort=name", "--mtime=@0", "-c", "."]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    base = tmp_path_factory.getbasetemp()
    made = tmp_path_factory.mktemp("images")
    tarball, image, metadata = packed(made, "tarball"), packed(made, "simplestreams"), b"metadata"
    (made / "root.tar").write_bytes(tarball)
    digest = oci_layout(made / "oci", packed(made, "oci"))
    fingerprint = sha256(metadata + image)
    items = [
        {"ftype": "lxd.tar.xz", "path": "meta", "combined_rootxz_sha256": fingerprint},
        {"ftype": "root.tar.xz", "path": "root"},
    ]
    answers = {**simplestreams({"1": items}), "/meta": metadata, "/root": image}
    with made_fleet(base) as fleet, http_server(answers, namespace=fleet.namespace) as server:
        fleet.put(
            "all.yaml",
            template("tarball", tarball={"path": f"{made}/root.tar", "sha256": sha256(tarball)}),
            template("oci", oci={"image": f"oci:{made}/oci:latest", "digest": digest}),
            template("simplestreams", simplestreams={"server": server, "alias": "tiny/1", "fingerprint": fingerprint}),
            *(ve(f"by-{kind}", template=kind) for kind in ("tarball", "oci", "simplestreams", "busybox")),
        )
        fleet.start_agent()
        yield fleet


def test_images_of_all_kinds_run_beside_each_other(fleet: Fleet) -> None:
    names = [f"by-{kind}" for kind in ("tarball", "oci", "simplestreams", "busybox")]
    fleet.await_ready(*names)
    for name in names[:-1]:
        assert fleet.ve(name).run("cat", "/etc/who") == name.removeprefix("by-")
    assert len(os.listdir(fleet.instance.templates)) == 4 + len(("index.json", "index.lock"))


def test_a_template_that_cannot_be_built_keeps_only_its_own_ve_down(fleet: Fleet, tmp_path: Path) -> None:
    bad = template("bad", tarball={"path": f"{tmp_path}/none.tar", "sha256": "0" * 64})
    fleet.put("bad.yaml", bad, ve("of-bad", template="bad"), ve("of-good", template="tarball"))
    fleet.await_ready("of-good")
    assert "none.tar" in fleet.await_reason("of-bad", "KernelError").message
    fleet.drop("bad.yaml")
