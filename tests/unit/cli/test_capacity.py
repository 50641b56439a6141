"""Claims about the capacity of hosts: what manifests ask for is added up offline, and what is too much is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli import capacity, plans
from reconciler.cli.capacity import Format
from reconciler.cli.forms import ValidateFormat
from reconciler.sources.revision import Revisions
from reconciler.sources.snapshot import snapshot_of
from tests.support.outputs import misfits
from tests.support.rig import text_of, ve

HOST = """
kind: Host
metadata: {name: node-a}
spec:
  capacity: {memory: 4Gi, cpu: 4}
  reserve: {memory: 1Gi, cpu: 1}
  overcommit: {cpu: 2}
"""
WEB = ve("web1", "memory: {guarantee: 1Gi, limit: 2Gi}, cpu: {guarantee: 0.5}")
DB = ve("db1", "memory: {guarantee: 2.5Gi, limit: unlimited}, cpu: {limit: 1}")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_bytes(text_of(HOST, WEB, DB))
    return tmp_path


def test_more_than_a_host_has_is_a_mistake_with_the_arithmetic_and_its_place(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plans.validate(str(written), ValidateFormat.JSON) == 1
    found = json.loads(capsys.readouterr().out)
    assert misfits("validate", found) == []
    (error,) = found["errors"]
    assert (error["file"], error["line"], error["path"]) == (str(written / "a.yaml"), 6, "spec.capacity.memory")
    assert error["message"] == (
        "guarantees of memory 3.5Gi + reserve 1Gi > 4Gi of node-a: db1 2.5Gi (a.yaml:15), web1 1Gi (a.yaml:10)"
    )
    assert error["hint"] == "lower memory.guarantee of one of them, or give one another host"


def test_it_does_not_keep_the_revision_from_coming_into_force(written: Path) -> None:
    revisions = Revisions(settle_s=0.0, prune_delay_s=0.0, keep=lambda _snapshot: None)
    revisions.take(snapshot_of("dir", {"a.yaml": (written / "a.yaml").read_bytes()}), known=(), now=0.0)
    assert revisions.in_force is not None
    assert revisions.findings == ()


def test_a_host_that_does_not_say_what_it_has_is_judged_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(text_of("kind: Host\nmetadata: {name: node-a}\n", WEB, DB))
    assert plans.validate(str(tmp_path), ValidateFormat.TEXT) == 0


def test_manifests_are_added_up_offline(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.capacity(str(written), Format.TABLE) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["node-a", "memory", "4Gi", "1Gi", "3.5Gi", "0", "6Gi", "-", "-", "-"],
        ["node-a", "cpu", "4", "1", "0.5", "2.5", "5", "2", "1", "-"],
        ["node-a", "disk", "-", "0", "0", "-", "16Gi", "-", "-", "-"],
    ]


def test_the_document_for_scripts_is_as_its_schema_says(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capacity.capacity(str(written), Format.JSON)
    found = json.loads(capsys.readouterr().out)
    assert misfits("capacity", found) == []
    (host,) = found["hosts"]
    assert (host["host"], host["ves"]) == ("node-a", 2)
    assert {one["resource"]: one["guaranteed_free"] for one in host["resources"]} == {
        "memory": 0,
        "cpu": 2.5,
        "disk": None,
    }


def test_ves_of_each_host_are_added_up_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "kind: Host\nmetadata: {name: node-b}\n"
    here, there = ve("a", "host: node-a, cpu: {guarantee: 1}"), ve("b", "host: node-b, cpu: {guarantee: 2}")
    (tmp_path / "a.yaml").write_bytes(text_of(HOST, other, here, there))
    capacity.capacity(str(tmp_path), Format.TABLE)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[4]) for row in rows if row[1] == "cpu"] == [("node-a", "1"), ("node-b", "2")]
