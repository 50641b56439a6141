"""Whatever a file holds, it is a fleet or a list of findings, and never an exception."""

from __future__ import annotations

import json
import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.manifests import report, yaml_reader
from reconciler.manifests.load import load_fleet
from reconciler.model.facts import Json
from tests.unit.manifests.cases import BAD, GOOD, PATIENT

SEEDS = [case.data for case in GOOD + BAD]
_BYTES = [bytes([byte]) for byte in b"{}[]:,-&*!|>'\"%@`#?<~\\ \t\n\r\0\x1b\xff\xc2\xe209azAZ./"]
_PIECES = [
    *_BYTES,
    b"---\n",
    b"...\n",
    b": ",
    b"- ",
    b"<<: ",
    b"&a ",
    b"*a",
    b"!!",
    b"\xe2\x80\xae",
    b"null",
    b".inf",
    b"1e9",
]
_ATOMS: st.SearchStrategy[Json] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "unlimited",
            "512Mi",
            "30s",
            "10.20.0.11/24",
            "fd00::1",
            "0-1",
            "auto",
            "web1",
            "lan",
            "web1:80",
            "/x",
            "busybox",
        ]
    ),
)
_VALUES: st.SearchStrategy[Json] = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


def _check(files: dict[str, bytes]) -> None:
    loaded = load_fleet(files, revision="r")
    assert (loaded.fleet is None) == bool(loaded.findings)
    for finding in loaded.findings:
        assert finding.place.file in files
        assert finding.message
        assert "input should" not in finding.message.lower()
        assert min(finding.place.line, finding.place.column) >= 1
        text = files[finding.place.file].decode(errors="replace").removeprefix("\ufeff")
        assert finding.source == re.split("\r\n|\r|\n", text)[finding.place.line - 1]
        assert finding.place.column <= len(finding.source) + 1
    printed = report.render_findings(loaded.findings, color=False)
    assert all(char.isprintable() or char == "\n" for char in printed)


@PATIENT
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    _check({"f.yaml": data})


@PATIENT
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    _check({"f.yaml": text.encode("utf-8", errors="surrogatepass")})


@settings(PATIENT, max_examples=400)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32), st.integers(1, 6))
def test_manifests_with_bytes_changed(data: bytes, seed: int, changes: int) -> None:
    chance = random.Random(seed)
    mutated = bytearray(data)
    for _ in range(changes):
        at = chance.randrange(len(mutated) + 1)
        match chance.randrange(4):
            case 0:
                mutated[at : at + 1] = chance.choice(_PIECES)
            case 1:
                mutated[at:at] = chance.choice(_PIECES)
            case 2:
                del mutated[at : at + chance.randrange(1, 20)]
            case _:
                start = chance.randrange(len(mutated) + 1)
                mutated[at:at] = mutated[start : start + chance.randrange(60)]
    _check({"f.yaml": bytes(mutated)})


def _documents() -> list[Json]:
    return [document.value for data in SEEDS for document in yaml_reader.read(data).documents if not document.problems]


DOCUMENTS = _documents()


@settings(PATIENT, max_examples=600)
@given(st.lists(st.sampled_from(DOCUMENTS), min_size=1, max_size=4), st.integers(0, 2**32), _VALUES)
def test_manifests_with_values_changed(documents: list[Json], seed: int, value: Json) -> None:
    chance = random.Random(seed)
    changed = [_replaced(document, chance, value) for document in documents]
    _check({f"f{number}.yaml": json.dumps(document).encode() for number, document in enumerate(changed)})


def _replaced(node: Json, chance: random.Random, value: Json) -> Json:
    """Put a value somewhere into a document, the deeper the less likely."""
    if isinstance(node, dict) and node and chance.random() < 0.85:
        key = chance.choice(list(node))
        return {**node, key: _replaced(node[key], chance, value)}
    if isinstance(node, list) and node and chance.random() < 0.7:
        at = chance.randrange(len(node))
        return [*node[:at], _replaced(node[at], chance, value), *node[at + 1 :]]
    return value
