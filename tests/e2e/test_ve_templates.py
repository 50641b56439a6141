"""Claims about what VEs are made from: archives and images of whatever kind run beside each other, built once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kernel import busybox
from reconciler.model.instance import DEFAULT_LIB
from tests.support.archives import http_server, oci_layout, sha256, simplestreams
from tests.support.fleet import Document, Fleet, Value, until, ve
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
    images = [name for name in os.listdir(fleet.instance.templates) if name.endswith(".erofs")]
    assert len(images) == 4


def test_a_template_that_cannot_be_built_keeps_only_its_own_ve_down(fleet: Fleet, tmp_path: Path) -> None:
    bad = template("bad", tarball={"path": f"{tmp_path}/none.tar", "sha256": "0" * 64})
    fleet.put("bad.yaml", bad, ve("of-bad", template="bad"), ve("of-good", template="tarball"))
    fleet.await_ready("of-good")
    assert "none.tar" in fleet.await_reason("of-bad", "TemplateError").message
    fleet.drop("bad.yaml")


def listed(fleet: Fleet) -> dict[str, dict[str, Value]]:
    return {item["name"]: item for item in json.loads(fleet.vectl("template", "list", "-o", "json"))["items"]}


def test_what_templates_there_are_is_listed(fleet: Fleet) -> None:
    fleet.await_ready("by-tarball", "by-oci", "by-simplestreams", "by-busybox")
    items = listed(fleet)
    assert items.keys() == {"tarball", "oci", "simplestreams", "busybox"}
    for name, item in items.items():
        assert f"by-{name}" in item["usedBy"]
    image = Path(fleet.instance.templates) / f"{items['oci']['digest']}.erofs"
    assert image.stat().st_size == items["oci"]["size"]
    header, *lines = fleet.vectl("template", "list").splitlines()
    assert header.split() == ["NAME", "SOURCE", "DIGEST", "SIZE", "USED", "BY", "AGE"]
    assert [line.split()[0] for line in lines] == sorted(items)


def test_a_template_is_built_exported_and_removed_by_hand(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    data = packed(tmp_path, "by-hand")
    (tmp_path / "root.tar").write_bytes(data)
    manifest = template("by-hand", tarball={"path": f"{tmp_path}/root.tar", "sha256": sha256(data)})
    (tmp_path / "extra/template.yaml").write_text(json.dumps(manifest))
    digest = fleet.vectl("template", "build", "by-hand", "--manifests", f"{tmp_path}/extra").strip()
    assert listed(fleet)["by-hand"]["digest"] == digest
    fleet.vectl("template", "export", "by-hand", f"{tmp_path}/out.tar.gz")
    who = subprocess.run(["tar", "-xOzf", f"{tmp_path}/out.tar.gz", "./etc/who"], stdout=subprocess.PIPE, check=True)
    assert who.stdout == b"by-hand"
    fleet.vectl("template", "rm", digest[:12])
    assert "by-hand" not in listed(fleet)


def test_an_image_that_nobody_used_for_long_goes_by_itself(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    data = packed(tmp_path, "forgotten")
    (tmp_path / "root.tar").write_bytes(data)
    manifest = template("forgotten", tarball={"path": f"{tmp_path}/root.tar", "sha256": sha256(data)})
    (tmp_path / "extra/template.yaml").write_text(json.dumps(manifest))
    digest = fleet.vectl("template", "build", "forgotten", "--manifests", f"{tmp_path}/extra").strip()
    image = Path(fleet.instance.templates) / f"{digest}.erofs"
    fleet.put("more.yaml", ve("more"))
    fleet.await_ready("more")
    assert image.exists()
    os.utime(image, (0, 0))
    fleet.drop("more.yaml")
    until(lambda: not image.exists(), "the image to be gone")
    told = (f"template/forgotten@{digest[:12]}", "TemplateUnused")
    until(lambda: told in [(event.ve, event.reason) for event in fleet.events()], "the event of it")


def test_a_template_in_use_is_not_removed_by_hand(fleet: Fleet) -> None:
    fleet.await_ready("by-oci")
    assert "VE by-oci uses it" in fleet.complaint("template", "rm", "oci")
    assert "oci" in listed(fleet)


def test_what_is_no_template_is_told_with_what_there_is(fleet: Fleet) -> None:
    assert "there is " in fleet.complaint("template", "rm", "nothing")
    assert "declare no such template; they declare busybox" in fleet.complaint("template", "build", "nothing")
    assert "expected VE@SNAPSHOT" in fleet.complaint("template", "build", "x", "--from-ve", "web1", code=64)


def test_each_step_of_a_build_is_an_event(fleet: Fleet) -> None:
    fleet.await_ready("by-oci")
    told = [event.message for event in fleet.events() if event.ve == "template/oci"]
    assert any(text.startswith("unpacking image oci:") for text in told)
    assert any(text.startswith("built in ") for text in told)


def test_a_template_is_made_of_a_snapshot_of_a_ve(fleet: Fleet) -> None:
    model = ve("model", template="tarball", snapshots=[{"name": "golden"}])
    fleet.put("model.yaml", ve("model", template="tarball"))
    fleet.await_ready("model")
    fleet.ve("model").shell("echo golden >/etc/who; rm /etc/motd 2>/dev/null; mkdir /opt/app")
    fleet.put("model.yaml", model)
    until(lambda: "golden" in os.listdir(fleet.instance.snapshots_dir(fleet.ve("model").uid)), "the snapshot")
    fleet.ve("model").shell("echo later >/etc/who")
    digest = fleet.vectl("template", "build", "gold", "--from-ve", "model@golden").strip()
    fleet.put("gold.yaml", template("gold", image=digest), ve("copy", template="gold"))
    fleet.await_ready("copy")
    assert fleet.ve("copy").run("cat", "/etc/who") == "golden\n"
    assert fleet.ve("copy").run("ls", "/opt") == "app\n"
    assert "it has no snapshot silver" in fleet.complaint("template", "build", "gold", "--from-ve", "model@silver")
    assert listed(fleet)["gold"]["usedBy"] == ["copy"]
