"""Claims about the progress of `apply`: each action once where nobody watches, and what takes long while it does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from reconciler.cli import progress
from reconciler.cli.progress import Progress
from reconciler.model.action import Reason
from tests.support.changes import CHANGE


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition(" s  ")[2] for line in capsys.readouterr().err.splitlines()]


def test_an_action_is_told_when_it_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress()
    for step in ("SetLimit", "done"):
        shown.step(CHANGE, step)
        shown.step(replace(CHANGE, path="record", reason=Reason.BOOKKEEPING), step)
    assert lines(capsys) == ["web1:memory.limit: done"]


def test_what_takes_long_is_told_once_for_each_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LONG_S", 0.0)
    monkeypatch.setattr(progress, "_LOOK_EVERY_S", 0.0)
    shown = Progress()

    async def build() -> None:
        async with shown.running():
            for step in ("BuildTemplate", "CreateVolume"):
                shown.step(CHANGE, step)
                for _ in range(10):
                    await asyncio.sleep(0)

    asyncio.run(build())
    assert lines(capsys) == [
        f"web1:memory.limit: {step}, still under way" for step in ("build template", "create volume")
    ]
