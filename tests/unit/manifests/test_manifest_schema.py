"""The schema and the explanations are those of the models, and the files in the repository are up to date."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.manifests import explain, outputs, schema, yaml_reader
from reconciler.manifests.kinds import KINDS
from reconciler.model.action import Action, Impact, Operation, Origin, Reason, Refusal
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.facts import Json
from reconciler.model.fleet import Finding, Place
from tests.unit.manifests.cases import GOOD

FOLDER = Path(__file__).parents[3] / "schemas"


def test_the_files_in_the_repository_are_up_to_date() -> None:
    found = {str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.json")}
    assert found == schema.rendered(), "run `python -m reconciler.manifests.schema schemas`"


def test_the_files_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    schema.main(str(tmp_path))
    assert (tmp_path / "output" / "plan.json").exists()
    assert json.loads((tmp_path / "Network.json").read_text())["$id"] == "urn:vectl:ve:v1:Network"


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind: str) -> None:
    for field in explain.reference(kind):
        assert field.path.endswith("*") or field.description.endswith("."), field.path
        assert field.type not in ("", "None"), field.path


def test_names_of_package_hosts_are_not_in_the_schemas() -> None:
    text = "".join(schema.rendered().values())
    assert text.count("https://") == text.count("https://json-schema.org/draft/2020-12/schema")


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_written_as_they_may_be_written_in_a_manifest(kind: str) -> None:
    definitions = schema.json_schemas()[kind]["$defs"]
    assert isinstance(definitions, dict)
    for name, section in definitions.items():
        assert isinstance(section, dict)
        for field, described in _properties(section):
            if "default" in described:
                assert _fits(described["default"], dict(described), definitions), (name, field)


def _properties(section: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    properties = section.get("properties", {})
    assert isinstance(properties, dict)
    for name, field in properties.items():
        assert isinstance(field, dict)
        yield name, field


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def _fits(value: Json, rule: Json, definitions: Mapping[str, Json]) -> bool:
    """Judge a value by the part of JSON Schema that the manifests' schemas use, but for patterns and bounds."""
    assert isinstance(rule, dict)
    reference, choices, names, items = rule.get("$ref"), rule.get("anyOf"), rule.get("type"), rule.get("items")
    if isinstance(reference, str):
        return _fits(value, definitions[reference.rsplit("/", 1)[1]], definitions)
    if isinstance(choices, list):
        return any(_fits(value, choice, definitions) for choice in choices)
    if "const" in rule or "enum" in rule:
        words = rule.get("enum", [rule.get("const")])
        return isinstance(words, list) and value in words
    allowed = names if isinstance(names, list) else [names]
    if not any(isinstance(value, _TYPES[str(name)]) for name in allowed):
        return False
    if isinstance(value, list) and items is not None:
        return all(_fits(item, items, definitions) for item in value)
    properties = rule.get("properties")
    if isinstance(value, dict) and isinstance(properties, dict):
        required = rule.get("required", [])
        assert isinstance(required, list)
        return set(required) <= set(value) <= set(properties) and all(
            _fits(item, properties[key], definitions) for key, item in value.items()
        )
    return True


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.file)
def test_editors_find_nothing_wrong_with_what_is_right(case: object) -> None:
    schemas = schema.json_schemas()
    for document in yaml_reader.read(getattr(case, "data", b"")).documents:
        assert isinstance(document.value, dict)
        rules = schemas[str(document.value["kind"])]
        definitions = rules["$defs"]
        assert isinstance(definitions, dict)
        assert _fits(document.value, rules, definitions)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("memory.limit", ("VirtualEnvironment", "spec.memory.limit", "size or unlimited", "512Mi")),
        ("ve.spec.cpu.weight", ("VirtualEnvironment", "spec.cpu.weight", "whole number", "100")),
        ("cpu.limit", ("VirtualEnvironment", "spec.cpu.limit", "CPUs or unlimited", "unlimited")),
        ("cpu.guarantee", ("VirtualEnvironment", "spec.cpu.guarantee", "CPUs", "0")),
        ("boot.stopTimeout", ("VirtualEnvironment", "spec.boot.stopTimeout", "duration", "30s")),
        ("processes", ("VirtualEnvironment", "spec.processes", "number or unlimited", "4096")),
        ("interfaces[0].mtu", ("VirtualEnvironment", "spec.interfaces[].mtu", "whole number", "")),
        ("interfaces.eth0.routes[1].via", ("VirtualEnvironment", "spec.interfaces[].routes[].via", "address", "")),
        ("metadata.labels.tier", ("VirtualEnvironment", "metadata.labels.*", "text", "")),
        ("Network.spec.mtu", ("Network", "spec.mtu", "whole number", "1500")),
        ("template.spec.init", ("Template", "spec.init", "path or list of words", "[/sbin/init]")),
        ("HOST", ("Host", "", "map", "")),
    ],
)
def test_a_field_is_explained_with_type_and_default(path: str, found: tuple[str, str, str, str]) -> None:
    doc = explain.describe(path)
    assert (doc.kind, doc.path, doc.type, doc.default) == found


def test_a_section_is_explained_with_the_fields_below_it() -> None:
    assert [field.name for field in explain.describe("memory").fields] == ["limit", "barrier", "guarantee", "swap"]
    assert explain.describe("power").values == ("running", "stopped", "suspended")
    assert "net.ipv4.ip_forward" in explain.describe("sysctls").values
    assert [field.name for field in explain.describe("Template").fields] == ["apiVersion", "kind", "metadata", "spec"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("memry.limit", "no field 'memry' in spec .did you mean 'memory'?"),
        ("memory.limt", "no field 'limt' in spec.memory .did you mean 'limit'?"),
        ("Netwrk", "did you mean 'Network'?"),
        ("ve.spec.interfaces.adresses", "did you mean 'addresses'?"),
        ("processes.x", "nothing is below it"),
        ("", "no field ''"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_nearest(path: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        explain.describe(path)


def _required(command: str, *path: str) -> set[str]:
    rule: Json = outputs.json_schemas()[command]
    for part in path:
        assert isinstance(rule, dict)
        rule = rule[part]
    assert isinstance(rule, dict)
    required = rule["required"]
    assert isinstance(required, list)
    return {str(name) for name in required}


def test_outputs_have_the_fields_of_the_values_that_are_printed() -> None:
    action = Action(
        ve="a",
        uid=None,
        op=Operation.CREATE,
        path="",
        before=None,
        after=None,
        reason=Reason.NEW_MANIFEST,
        impact=Impact.NONE,
        origin=Origin.GIT,
    )
    refusal = Refusal(ve="a", rule="R", message="m")
    condition = Condition(type=ConditionType.READY, status=Status.TRUE, reason="R")
    finding = Finding(place=Place(file="f", line=1), path="", message="m")
    assert set(action.to_json()) == _required("plan", "properties", "actions", "items")
    assert set(refusal.to_json()) == _required("plan", "properties", "refused", "items")
    assert set(condition.to_json()) == _required(
        "get", "properties", "items", "items", "properties", "conditions", "items"
    )
    assert set(finding.to_json()) == _required("validate", "properties", "errors", "items")


def test_outputs_have_the_fields_that_scripts_were_promised() -> None:
    assert _required("plan") == {
        "format",
        "host",
        "revision",
        "action_hash",
        "summary",
        "actions",
        "refused",
        "unknown",
    }
    assert _required("plan", "properties", "summary") == {
        "create", "update", "restart", "recreate", "destroy", "restore", "drift"
    }  # fmt: skip
    assert _required("get") == {"format", "host", "revision", "items"}
    assert _required("get", "properties", "items", "items") == {
        "name", "uid", "host", "power", "conditions", "desired", "observed", "runtime", "unknown"
    }  # fmt: skip
    assert _required("validate") == {"format", "valid", "errors"}
