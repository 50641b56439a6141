"""An agent that is told to end, ends: at the latest when its time is over."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WORK = """
import asyncio
from contextlib import suppress
from reconciler.agent import signals

signals.END_S, signals._TELL_S = 1.0, 0.5

async def hold_on():
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(300)
            return

async def give_in():
    await asyncio.sleep(300)

async def main():
    task = asyncio.create_task({work}())
    undo = signals.end_on_signals(task)
    print("ready", flush=True)
    with suppress(asyncio.CancelledError):
        await task
    undo()
    print("ended", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("work", "status"), [("give_in", 0), ("hold_on", 1)])
def test_work_is_given_its_time_and_no_more(work: str, status: int, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORK.replace("{work}", work)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        printed, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert printed.endswith("ended\n") == (status == 0)
    assert ("Timeout (0:00:01)!" in told) == (status == 1)
    assert ("agent.does_not_end" in printed and "hold_on" in printed) == (status == 1)
