"""Profiles: the laws of merging, and that a merge of valid specs is valid."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifests import merge
from reconciler.manifests.kinds.ve import ProfileBody, VeBody
from reconciler.model.facts import Json
from tests.unit.manifests.cases import PATIENT

_SIZES = st.sampled_from(["64Mi", "1Gi", "unlimited", None])
_COUNTS = st.one_of(st.integers(1, 1000), st.sampled_from(["unlimited", None]))


def _map(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Json]]:
    return st.fixed_dictionaries({}, optional=fields)


_INTERFACE: st.SearchStrategy[Json] = st.builds(
    lambda name, rest: {"name": name, **rest},
    st.sampled_from(["eth0", "eth1", "eth2"]),
    _map(
        network=st.sampled_from(["lan", "wan", None]),
        mtu=st.sampled_from([1400, None]),
        rate=_map(egress=st.sampled_from(["1Mbit", None])),
        routes=st.sampled_from([[], [{"to": "10.0.0.0/8"}], None]),
    ),
)
_DEVICES: list[Json] = [{"path": "/dev/fuse"}, {"path": "/dev/fuse", "access": "r"}, {"nic": "eno1"}]


def _unique(entries: st.SearchStrategy[Json], path: str) -> st.SearchStrategy[list[Json]]:
    return st.lists(entries, max_size=3, unique_by=lambda entry: merge.entry_key((path,), entry))


SPECS = _map(
    memory=st.one_of(st.none(), _map(limit=_SIZES, swap=_SIZES)),
    processes=_COUNTS,
    keep=st.sampled_from([["/a"], ["/b", "/c"], [], None]),
    interfaces=st.one_of(st.none(), _unique(_INTERFACE, "interfaces")),
    devices=st.one_of(st.none(), _unique(st.sampled_from(_DEVICES), "devices")),
    mounts=st.sampled_from([[{"target": "/x", "source": "/y"}], [{"target": "/x", "readOnly": True}], None]),
    disk=_map(
        size=_SIZES,
        users=st.sampled_from([[{"id": 1, "soft": "1Gi"}], [{"id": 1, "hard": "2Gi"}, {"id": 2}], None]),
    ),
    snapshots=st.sampled_from([[{"name": "a"}], [{"name": "a", "memory": True}, {"name": "b"}], None]),
    protect=st.sampled_from([True, False, None]),
    sysctls=st.dictionaries(st.sampled_from(["net.ipv4.ip_forward", "net.core.somaxconn"]), st.just("1")),
)


@PATIENT
@given(SPECS)
def test_a_spec_alone_stays_what_it_is(spec: dict[str, Json]) -> None:
    assert merge.merge([spec]) == merge.without_nulls(spec)


@PATIENT
@given(SPECS)
def test_an_empty_spec_changes_nothing(spec: dict[str, Json]) -> None:
    assert merge.merge([{}, spec]) == merge.merge([spec, {}]) == merge.merge([spec])


@PATIENT
@given(SPECS, SPECS)
def test_merging_twice_is_merging_once(one: dict[str, Json], two: dict[str, Json]) -> None:
    assert merge.merge([one, two, two]) == merge.merge([one, two])


@PATIENT
@given(SPECS, SPECS)
def test_the_later_spec_wins_wherever_it_says_something(one: dict[str, Json], two: dict[str, Json]) -> None:
    _assert_within(merge.without_nulls(two), merge.merge([one, two]), ())


def _assert_within(part: Json, whole: Json, path: tuple[str, ...]) -> None:
    match part, whole:
        case dict(), dict():
            for key, value in part.items():
                _assert_within(value, whole[key], (*path, key))
        case list(), list() if path in merge.KEYS_OF_LISTS:
            entries = {merge.entry_key(path, entry): entry for entry in whole}
            for entry in part:
                _assert_within(entry, entries[merge.entry_key(path, entry)], path)
        case _:
            assert part == whole


@PATIENT
@given(SPECS, SPECS)
def test_null_returns_a_field_to_its_default(one: dict[str, Json], two: dict[str, Json]) -> None:
    merged = merge.merge([one, two])
    for key, value in two.items():
        if value is None:
            assert key not in merged


@PATIENT
@given(SPECS, SPECS)
def test_nothing_comes_from_nowhere(one: dict[str, Json], two: dict[str, Json]) -> None:
    assert merge.merge([one, two]).keys() <= one.keys() | two.keys()


@PATIENT
@given(st.lists(SPECS, max_size=4))
def test_a_merge_of_valid_specs_is_valid(specs: list[dict[str, Json]]) -> None:
    for spec in specs:
        ProfileBody.model_validate(merge.without_nulls(spec))
    VeBody.model_validate(merge.merge(specs))


@PATIENT
@given(SPECS, SPECS)
def test_merging_leaves_its_inputs_alone(one: dict[str, Json], two: dict[str, Json]) -> None:
    before = repr((one, two))
    merge.merge([one, two])
    assert repr((one, two)) == before


def test_keyed_lists_merge_by_key_and_others_are_replaced() -> None:
    merged = merge.merge(
        [
            {"interfaces": [{"name": "a", "mtu": 1}, {"name": "b"}], "keep": ["/x"], "devices": [{"nic": "n"}]},
            {
                "interfaces": [{"name": "c"}, {"name": "a", "network": "lan"}],
                "keep": ["/y"],
                "devices": [{"path": "p"}],
            },
        ]
    )
    assert merged == {
        "interfaces": [{"name": "a", "mtu": 1, "network": "lan"}, {"name": "b"}, {"name": "c"}],
        "keep": ["/y"],
        "devices": [{"nic": "n"}, {"path": "p"}],
    }


def test_an_entry_is_found_by_its_key_where_it_was_written() -> None:
    spec: Json = {"disk": {"users": [{"id": 7}, {"id": 8, "soft": "1Gi"}]}, "keep": ["/a"]}
    assert merge.by_position(spec, ("disk", "users", "8", "soft")) == ("disk", "users", 1, "soft")
    assert merge.by_position(spec, ("disk", "users", "9")) is None
    assert merge.by_position(spec, ("keep", 0)) == ("keep", 0)
    assert merge.by_position(spec, ("keep", 1)) is None
    assert merge.by_position(spec, ("memory",)) is None
