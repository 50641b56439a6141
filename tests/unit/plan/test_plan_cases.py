"""Every case file plans what it says, and nothing besides."""

from __future__ import annotations

import pytest

from tests.unit.plan.cases import CASES, KEYS, TOLD, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_is_what_the_case_says(case: Case) -> None:
    assert case.content.keys() <= KEYS | TOLD
    assert case.content["why"]
    assert case.found(case.plan()) == case.expected()


def test_there_are_cases() -> None:
    assert len(CASES) >= 60
