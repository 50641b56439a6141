"""Loading as a whole: one answer for one content, in whatever order, with or without a memory of the last time."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifests import merge, parse, resolve
from reconciler.manifests.kinds import KINDS
from reconciler.manifests.kinds.base import Manifest, Section
from reconciler.manifests.load import Loaded, ParseCache, load_fleet
from reconciler.model.compute import ComputeSpec
from reconciler.model.facts import Json
from reconciler.model.fleet import Place
from reconciler.model.identity import VeName
from reconciler.model.network import NetworkSpec, VeNetworkSpec
from reconciler.model.power import Power, PowerSpec, RestartPolicy
from reconciler.model.volume import VolumeSpec
from tests.unit.manifests.cases import BAD, GOOD, PATIENT, headlines, load_text

FLEET = {
    "net/lan.yaml": b"apiVersion: ve/v1\nkind: Network\nmetadata: {name: lan}\nspec: {subnets: [10.20.0.0/16]}\n",
    "profiles.yaml": b"apiVersion: ve/v1\nkind: Profile\nmetadata: {name: small}\nspec: {processes: 100}\n",
    **{
        f"ve/web{number}.yaml": (
            f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: web{number}}}\n"
            f"spec:\n  profile: [small]\n"
            f"  interfaces: [{{name: eth0, network: lan, addresses: [10.20.1.{number}/16]}}]\n"
        ).encode()
        for number in range(1, 9)
    },
}


def _load(files: dict[str, bytes], cache: ParseCache | None = None) -> Loaded:
    return load_fleet(files, revision="r1", cache=cache)


LOADED = _load(FLEET)
WRONG = {case.file: case.data for case in BAD}
PARSED = ParseCache()
"""Of the bad files: parsing 90 of them a hundred times took a minute, and each is parsed alone in any case."""


@cache
def told_of_all() -> Loaded:
    """Load the bad files in their own order, without a memory."""
    return _load(WRONG)


def test_no_files_are_an_empty_fleet_with_the_template_that_is_always_there() -> None:
    loaded = _load({})
    assert loaded.findings == ()
    assert loaded.fleet is not None
    assert loaded.fleet.revision == "r1"
    assert not loaded.fleet.ves
    assert list(loaded.fleet.templates) == ["busybox"]


def test_the_defaults_are_those_of_the_documentation() -> None:
    loaded = load_text("kind: VirtualEnvironment\nmetadata: {name: a}")
    assert loaded.fleet is not None
    ve = loaded.fleet.ves[VeName("a")]
    assert ve.power.state is Power.RUNNING
    assert ve.power.restart is RestartPolicy.ON_FAILURE
    assert ve.compute.cpu_weight == 100
    assert ve.compute.memory_limit == 512 << 20
    assert ve.compute.swap == 0
    assert ve.compute.processes == 4096
    assert ve.volume.size == 8 << 30
    assert not ve.protect
    unlimited = (ve.compute.cpu_limit_us, ve.compute.memory_barrier, ve.compute.cpus, ve.compute.nodes)
    assert unlimited == (None, None, None, None)
    assert (ve.power, ve.compute) == (PowerSpec(), ComputeSpec())
    assert ve.volume == VolumeSpec(template=ve.volume.template)
    assert ve.network == VeNetworkSpec(hostname="a")


def test_a_network_has_the_defaults_of_the_model() -> None:
    loaded = load_text("kind: Network\nmetadata: {name: lan}")
    assert loaded.fleet is not None
    (network,) = loaded.fleet.networks.values()
    assert network == NetworkSpec(name=network.name)


@PATIENT
@given(st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter(order: random.Random) -> None:
    names = list(FLEET)
    order.shuffle(names)
    assert _load({name: FLEET[name] for name in names}) == LOADED


@PATIENT
@given(st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter_for_what_is_wrong(order: random.Random) -> None:
    names = list(WRONG)
    order.shuffle(names)
    assert _load({name: WRONG[name] for name in names}, PARSED) == told_of_all()


def test_the_order_of_documents_does_not_matter() -> None:
    documents = [data.decode() for data in FLEET.values()]
    for seed in range(5):
        random.Random(seed).shuffle(documents)
        loaded = _load({"all.yaml": "---\n".join(documents).encode()})
        assert loaded.fleet is not None
        assert loaded.fleet == _load(FLEET).fleet


def test_everything_wrong_in_all_files_is_told_at_once() -> None:
    files = {case.file: case.data for case in BAD}
    told = {finding.place.file for finding in _load(files).findings}
    # Within one fleet, what is unknown in a case of its own may be declared by another case.
    assert told >= {file for file in files if file.startswith(("yaml-", "kind-", "name", "unknown-fields", "sizes"))}


def test_a_document_in_a_file_of_its_own_may_be_named_from_another_file() -> None:
    files = {name: data for name, data in FLEET.items() if name != "net/lan.yaml"}
    loaded = _load(files)
    assert len(loaded.findings) == 8
    assert headlines(loaded)[0] == (
        "ve/web1.yaml:6:38: spec.interfaces[0].network: unknown Network 'lan' (declare it, with 'kind: Network')"
    )


def test_names_repeated_in_another_file_are_told_with_the_place_of_the_first() -> None:
    files = {"b.yaml": FLEET["net/lan.yaml"], "a.yaml": FLEET["net/lan.yaml"]}
    assert headlines(_load(files)) == (
        "b.yaml:3:18: metadata.name: expected a name of its own, Network 'lan' is in a.yaml:1 too",
    )


def test_what_a_broken_file_may_hold_is_not_called_unknown() -> None:
    files = {**FLEET, "net/lan.yaml": FLEET["net/lan.yaml"] + b"---\n[\n"}
    files["net/lan.yaml"] = files["net/lan.yaml"].replace(b"name: lan", b"name: wan")
    assert [finding.place.file for finding in _load(files).findings] == ["net/lan.yaml"]


def test_a_mistake_without_end_is_told_up_to_a_limit() -> None:
    spec = "".join(f"  nonsense{number}: 1\n" for number in range(500))
    findings = load_text(f"kind: VirtualEnvironment\nmetadata: {{name: a}}\nspec:\n{spec}").findings
    assert len(findings) == 100
    assert findings[-1].message == "expected fewer mistakes, the rest is not listed"


def test_complaints_without_end_are_counted_beyond_a_limit() -> None:
    documents = [
        f"kind: VirtualEnvironment\nmetadata: {{name: a{number}}}\nspec: {{template: t}}" for number in range(150)
    ]
    findings = load_text(*documents).findings
    assert len(findings) == 101
    assert findings[-1].message == "50 more mistakes from here on are not listed"


def test_a_chain_of_dependencies_may_be_longer_than_the_stack() -> None:
    names = [f"v{number}" for number in range(3000)]
    documents = [
        f"kind: VirtualEnvironment\nmetadata: {{name: {name}}}\nspec: {{boot: {{dependsOn: [{after}]}}}}"
        for name, after in itertools.pairwise(names)
    ]
    last = f"kind: VirtualEnvironment\nmetadata: {{name: {names[-1]}}}"
    assert load_text(*documents, last).findings == ()
    (circle,) = load_text(*documents, f"{last}\nspec: {{boot: {{dependsOn: [v0]}}}}").findings
    assert (
        circle.message == "expected no circle, got v0 -> v1 -> v2 -> v3 -> v4 -> v5 -> v6 -> v7 -> ... -> v2999 -> v0"
    )


def test_a_ves_place_is_the_beginning_of_its_document() -> None:
    loaded = load_text("kind: Network\nmetadata: {name: lan}", "kind: VirtualEnvironment\nmetadata: {name: a}")
    assert loaded.fleet is not None
    assert loaded.fleet.ves[VeName("a")].place == Place(file="f.yaml", line=5, column=1)


class Counted:
    """Counts how often a function of a module is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        self.calls = 0
        original = getattr(module, name)

        def counting(*args: object, **named: object) -> object:
            self.calls += 1
            return original(*args, **named)

        monkeypatch.setattr(module, name, counting)


def test_only_what_changed_is_parsed_and_resolved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, resolved = Counted(monkeypatch, parse, "parse"), Counted(monkeypatch, resolve, "resolve")
    cache = ParseCache()
    first = _load(FLEET, cache)
    assert (parsed.calls, resolved.calls) == (10, 8)
    assert _load(FLEET, cache) == first
    assert (parsed.calls, resolved.calls) == (10, 8)
    _load({**FLEET, "ve/web3.yaml": FLEET["ve/web3.yaml"] + b"  processes: 5\n"}, cache)
    assert (parsed.calls, resolved.calls) == (11, 9)
    changed = {**FLEET, "profiles.yaml": FLEET["profiles.yaml"].replace(b"100", b"50")}
    assert {ve.compute.processes for ve in (_load(changed, cache).fleet or pytest.fail("invalid")).ves.values()} == {50}
    assert (parsed.calls, resolved.calls) == (13, 17)


def test_what_is_no_more_is_forgotten() -> None:
    cache = ParseCache()
    _load(FLEET, cache)
    _load({}, cache)
    assert cache == ParseCache()


_EDITS = st.lists(
    st.tuples(
        st.sampled_from([*FLEET, "new.yaml"]),
        st.sampled_from(
            [
                None,
                b"",
                b"a: [",
                *FLEET.values(),
                *(case.data for case in GOOD),
                FLEET["net/lan.yaml"].replace(b"10.20", b"10.21"),
                FLEET["profiles.yaml"].replace(b"100", b"'100'"),
                FLEET["profiles.yaml"].replace(b"small", b"tiny"),
            ]
        ),
    ),
    max_size=6,
)


@PATIENT
@given(_EDITS)
def test_a_load_with_memory_is_the_same_as_one_without(edits: list[tuple[str, bytes | None]]) -> None:
    files, cache = dict(FLEET), ParseCache()
    _load(files, cache)
    for file, data in edits:
        if data is None:
            files.pop(file, None)
        else:
            files[file] = data
        assert _load(files, cache) == _load(files)


def test_a_merge_that_would_not_be_valid_is_told_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_specs: object) -> dict[str, Json]:
        return {"processes": 0}

    monkeypatch.setattr(merge, "merge", broken)
    loaded = load_text(
        "kind: VirtualEnvironment\nmetadata: {name: a}\nspec: {profile: [p]}",
        "kind: Profile\nmetadata: {name: p}\nspec: {memory: {limit: 1Gi}}",
    )
    assert headlines(loaded) == (
        "f.yaml:4:17: spec.processes: expected a whole number of at least 1, or unlimited, got the number 0",
    )


@pytest.mark.parametrize(
    "module", ["reconciler.manifests", "reconciler.manifests.report", "reconciler.manifests.problem"]
)
def test_what_commands_need_to_start_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'pydantic', 'ruamel.yaml'}} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_section_that_is_left_out_is_as_if_it_were_written_and_empty(kind: type[Manifest]) -> None:
    for section in _sections_left_out(kind):
        assert section == type(section).model_validate({})


def _sections_left_out(kind: type[Section]) -> Iterator[Section]:
    for field in kind.model_fields.values():
        value = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(value, Section):
            yield value
            yield from _sections_left_out(type(value))
