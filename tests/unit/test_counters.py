"""Counters: what is remembered of them over restarts, what counts as a failure, and how the table is printed."""

from __future__ import annotations

import pytest

from reconciler.errors import StateError
from reconciler.model.compute import Limit
from reconciler.model.counters import (
    NOTHING_READ,
    Bound,
    Enforcement,
    Ledger,
    Look,
    Reading,
    Resource,
    Row,
    decode_ledger,
    encode_ledger,
    growth,
    rows,
    settled,
)
from reconciler.plan import counters as plan
from reconciler.plan import ubc


def _look(epoch: str = "one", **readings: Reading) -> Look:
    return Look(epoch=epoch, readings={Resource(name): reading for name, reading in readings.items()})


def _row(ledger: Ledger, look: Look, resource: Resource, bounds: dict[Resource, Bound] | None = None) -> Row:
    return next(row for row in rows(ledger, look, bounds or {}) if row.resource is resource)


def test_a_peak_is_the_most_that_the_kernel_or_a_look_has_seen() -> None:
    ledger = settled(Ledger(), _look(numproc=Reading(held=3, peak=9), numfile=Reading(held=20)), {})
    ledger = settled(ledger, _look(numproc=Reading(held=2, peak=9), numfile=Reading(held=5)), {})
    assert (ledger.tallies[Resource.NUMPROC].peak, ledger.tallies[Resource.NUMFILE].peak) == (9, 20)


def test_failures_never_fall_although_each_cgroup_counts_from_zero() -> None:
    ledger, seen = Ledger(), []
    for epoch, failures in (("one", 2), ("one", 5), ("two", 0), ("two", 3), ("three", 1)):
        ledger = settled(ledger, _look(epoch, numproc=Reading(held=1, failures=failures)), {})
        seen.append(ledger.failures(Resource.NUMPROC))
    assert seen == [2, 5, 5, 8, 9]


def test_an_observed_resource_fails_once_for_each_time_that_it_is_found_above_its_bound() -> None:
    bounds = {Resource.NUMFILE: Bound(barrier=10, limit=20)}
    ledger, seen = Ledger(), []
    for held in (10, 11, 30, 9, 12):
        ledger = settled(ledger, _look(numfile=Reading(held=held)), bounds)
        seen.append(ledger.failures(Resource.NUMFILE))
    assert seen == [0, 1, 1, 1, 2]


def test_what_a_shallow_look_does_not_read_stays_as_it_was() -> None:
    ledger = settled(Ledger(), _look(numfile=Reading(held=20)), {})
    assert settled(ledger, _look(numproc=Reading(held=1)), {}).tallies[Resource.NUMFILE].peak == 20


def test_growth_names_what_was_met_since() -> None:
    before = settled(Ledger(), _look(numproc=Reading(failures=1), physpages=Reading(failures=4)), {})
    after = settled(before, _look(numproc=Reading(failures=3), physpages=Reading(failures=4)), {})
    assert growth(before, after) == {Resource.NUMPROC: 2}


def test_a_ledger_reads_back_as_it_was_written() -> None:
    bounds = {Resource.NUMFILE: Bound(limit=1)}
    ledger = settled(Ledger(), _look(numfile=Reading(held=2), numproc=Reading(held=1, peak=3, failures=4)), bounds)
    assert decode_ledger(encode_ledger(ledger), where="here") == ledger


def test_a_damaged_ledger_is_refused_with_the_remedy() -> None:
    with pytest.raises(StateError, match="remove it"):
        decode_ledger(b"{", where="here")


def test_every_resource_has_its_row_also_of_a_ve_that_is_down() -> None:
    found = rows(Ledger(), NOTHING_READ, {})
    assert [row.resource for row in found] == list(Resource)
    assert {row.held for row in found} == {None}


def test_limits_of_the_cgroup_are_the_bounds_of_memory_and_processes() -> None:
    bounds = plan.bounds(
        {"beancounters.numfile.limit": 7, "memory.guarantee": 4096},
        {Limit.MEMORY_LIMIT: 1 << 20, Limit.PROCESSES: 9, Limit.SWAP: 0},
        {},
    )
    assert (bounds[Resource.PHYSPAGES].limit, bounds[Resource.NUMPROC].limit) == (1 << 20, 9)
    assert bounds[Resource.VMGUARPAGES] == Bound(barrier=4096)
    assert (bounds[Resource.NUMFILE].limit, bounds[Resource.NUMFILE].enforcement) == (7, Enforcement.OBSERVED)


def test_only_what_is_near_its_limit_or_was_refused_is_tight() -> None:
    bounds = {Resource.NUMPROC: Bound(limit=100)}

    def tight(reading: Reading) -> bool:
        look = _look(numproc=reading)
        return _row(settled(Ledger(), look, bounds), look, Resource.NUMPROC, bounds).is_tight

    assert [tight(Reading(held=held, peak=peak)) for held, peak in ((50, 80), (51, 51), (1, 81))] == [False, True, True]
    assert tight(Reading(held=1, failures=1))


def test_the_beancounters_file_has_the_bytes_of_openvz() -> None:
    bounds = {
        Resource.KMEMSIZE: Bound(barrier=2752512, limit=2936012),
        Resource.PHYSPAGES: Bound(limit=65536 * 4096),
        Resource.NUMPROC: Bound(limit=240),
    }
    look = _look(
        kmemsize=Reading(held=836919, peak=1005343),
        physpages=Reading(held=2267 * 4096, peak=2399 * 4096, failures=3),
        lockedpages=Reading(held=1),
    )
    text = ubc.render([(123, rows(settled(Ledger(), look, bounds), look, bounds))])
    lines = text.splitlines(keepends=True)
    assert lines[:3] == [
        "Version: 2.5\n",
        "       uid  resource                     held              maxheld"
        "              barrier                limit              failcnt\n",
        "      123:  kmemsize                   836919              1005343"
        "              2752512              2936012                    0\n",
    ]
    numbers = {line.split()[0]: line.split()[1:] for line in lines[3:]}
    assert {len(line.split()) for line in lines[3:]} == {6}
    assert numbers["physpages"] == ["2267", "2399", "0", "65536", "3"]
    assert numbers["lockedpages"] == ["1", "1", "9223372036854775807", "9223372036854775807", "0"]
    assert numbers["numproc"][2:4] == ["240", "240"]
    assert [line.split()[0] for line in lines[3:]].count("dummy") == 4
    assert len(lines) == 26


def test_the_number_of_a_ve_is_that_of_its_range_of_ids() -> None:
    assert [ubc.number(base) for base in (65536, 1085341696)] == [1, 16561]
