"""The codecs of what travels with a VE: what was written comes back, what is damaged is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import StateError
from reconciler.model.facts import Json
from reconciler.model.identity import Digest, TemplateName, Uid, VeName
from reconciler.model.power import Launch, launch_from_json, launch_to_json
from reconciler.model.record import decode_record, encode_record
from reconciler.model.volume import Record

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_json: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | _numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_records = st.builds(
    Record,
    uid=st.uuids().map(lambda value: Uid(str(value))),
    name=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True).map(VeName),
    id_base=st.integers(0, 2**32),
    template=st.text(min_size=1).map(TemplateName),
    template_digest=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64).map(Digest),
    init=st.lists(st.text(), max_size=3).map(tuple),
    source=st.text(),
    created_at=_numbers,
    protect=st.booleans(),
    applied=st.dictionaries(st.text(), _json, max_size=5),
    cpu_weight=st.none() | st.integers(1, 10_000),
    requests_done=st.lists(st.text(), max_size=3).map(tuple),
    snapshot_births=st.dictionaries(st.text(), _numbers, max_size=3),
)

GOLDEN = (
    b'{"applied": {"memory.limit": 268435456}, "created_at": 1700000000.5, "format": 1, '
    b'"id_base": 524288, "init": ["/sbin/init"], "name": "web1", '
    b'"protect": true, "requests_done": [], "snapshot_births": {"golden": 1700000001.0}, '
    b'"source": "dir:/srv/desired", "template": "busybox", '
    b'"template_digest": null, "uid": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}\n'
)

RECORD = Record(
    uid=Uid("7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    name=VeName("web1"),
    id_base=524288,
    template=TemplateName("busybox"),
    template_digest=None,
    init=("/sbin/init",),
    source="dir:/srv/desired",
    created_at=1700000000.5,
    protect=True,
    applied={"memory.limit": 256 << 20},
    snapshot_births={"golden": 1700000001.0},
)


@settings(deadline=None)
@given(_records)
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    assert decode_record(encode_record(record), where="record.json") == record


def test_format_1_of_the_record_is_this_text() -> None:
    assert encode_record(RECORD) == GOLDEN
    assert decode_record(GOLDEN, where="record.json") == RECORD


def _changed(**changes: Json) -> bytes:
    return json.dumps(json.loads(GOLDEN) | changes).encode()


def _without(key: str) -> bytes:
    data = json.loads(GOLDEN)
    del data[key]
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"", "expected JSON", id="empty"),
        pytest.param(GOLDEN[:100], "expected JSON", id="cut-off"),
        pytest.param(b"\xff\xfe\x00", "expected JSON", id="binary"),
        pytest.param(b"[" * 100_000, "expected JSON", id="too-deep"),
        pytest.param(b"[]", "expected an object", id="list"),
        pytest.param(_without("format"), "'format' is missing", id="no-format"),
        pytest.param(_changed(format=2), "expected format 1, got 2", id="newer-format"),
        pytest.param(_changed(format=True), "expected an integer", id="format-true"),
        pytest.param(_changed(id_base="524288"), "'id_base': expected an integer", id="text-for-number"),
        pytest.param(_changed(protect=1), "'protect': expected true or false", id="number-for-flag"),
        pytest.param(_changed(init=["/sbin/init", 1]), "'init': expected a list of strings", id="mixed-list"),
        pytest.param(_changed(snapshot_births={"a": None}), "snapshot_births: 'a': expected", id="null-number"),
        pytest.param(GOLDEN.replace(b"1700000000.5", b"NaN"), "expected JSON", id="nan"),
        pytest.param(GOLDEN.replace(b"1700000000.5", b"1e999"), "expected a finite number", id="infinite"),
        pytest.param(_without("uid"), "'uid' is missing", id="missing"),
        pytest.param(_changed(colour="red"), "'colour' is not known", id="unknown"),
    ],
)
def test_a_damaged_record_is_told_with_its_path_and_remedy(data: bytes, told: str) -> None:
    with pytest.raises(StateError) as caught:
        decode_record(data, where="/pool/ves/u/record.json")
    message = str(caught.value)
    assert told in message
    assert message.startswith("read /pool/ves/u/record.json")
    assert "mend the file" in message


@settings(deadline=None)
@given(
    st.builds(
        Launch,
        id_base=st.integers(0, 2**32),
        init=st.lists(st.text(), min_size=1, max_size=3).map(tuple),
        nesting=st.booleans(),
        rlimits=st.dictionaries(st.text(), st.integers(0, 2**63), max_size=3),
    )
)
def test_a_launch_comes_back_as_it_was_written(launch: Launch) -> None:
    assert launch_from_json(json.loads(json.dumps(launch_to_json(launch))), where="handle") == launch


def test_a_launch_of_another_version_is_told() -> None:
    data = launch_to_json(Launch(id_base=1)) | {"cpu": 1}
    with pytest.raises(StateError, match="read handle: 'cpu' is not known"):
        launch_from_json(data, where="handle")
