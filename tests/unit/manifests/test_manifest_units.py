"""Lists of CPU and memory node numbers, as the kernel and people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import units
from tests.unit.manifests.cases import PATIENT


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", {0}), ("0-1,3", {0, 1, 3}), ("3,0-1,1-2", {0, 1, 2, 3}), ("5-5", {5}), ("8191", {8191})]
)
def test_lists_of_numbers_are_read(text: str, numbers: set[int]) -> None:
    assert units.parse_number_set(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "3-1", "1,,2", "1, 2", "8192", "0-99999", "\u0661", "1\n"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        units.parse_number_set(text)


@PATIENT
@given(st.frozensets(st.integers(0, units.NUMBER_MAX), min_size=1, max_size=50))
def test_what_is_printed_is_read_back(numbers: frozenset[int]) -> None:
    assert units.parse_number_set(units.format_number_set(numbers)) == numbers


def test_runs_of_numbers_are_printed_as_ranges() -> None:
    assert units.format_number_set(frozenset({0, 1, 2, 5, 7, 8})) == "0-2,5,7-8"
    assert units.format_number_set(frozenset()) == ""
