"""Claims about the words in which people hear of corrections and pauses."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.agent import desk, status
from reconciler.model.action import Action, Drift, Impact, Operation, Origin, Plan, Reason
from reconciler.model.condition import ConditionType
from reconciler.model.facts import Json
from reconciler.model.identity import HostName, VeName
from reconciler.state.pause import Pause


def update(path: str, before: Json, after: Json) -> Action:
    return Action(
        ve="web1",
        uid=None,
        op=Operation.UPDATE,
        path=path,
        before=before,
        after=after,
        reason=Reason.DRIFTED,
        impact=Impact.LIVE,
        origin=Origin.DRIFT,
    )


def test_an_event_gives_values_as_people_write_them() -> None:
    sized = desk._sentence(update("memory.limit", 64 << 20, None), 0.002)
    assert sized == "update memory.limit 64Mi -> unlimited (drift, 2 ms)"
    routed = desk._sentence(update("interfaces.eth0.routes", [], [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]), 0.0)
    assert routed == "update interfaces.eth0.routes none -> to 0.0.0.0/0 via 10.0.0.1 (drift, 0 ms)"


def test_drift_that_is_left_alone_is_told_in_the_same_words() -> None:
    drift = Drift(ve="web1", path="cpu.limit", desired=None, observed=150_000, policy="warn")
    plan = Plan(host=HostName("here"), revision="r1", warned=(drift,))
    told = {found.type: found for found in status.conditions(status.Seen(name="web1", revision="r1", plan=plan))}
    assert told[ConditionType.DRIFTED].message == "cpu.limit is 1.5, not unlimited; the drift policy says so"


def test_a_pause_says_who_why_and_until_when() -> None:
    until = datetime(2026, 11, 23, 12, 30, tzinfo=UTC).timestamp()
    pause = Pause(ve=VeName("web1"), reason="under repair", since=0.0, until=until, by="alice")
    assert pause.words == "under repair (paused by alice until 2026-11-23T12:30:00Z)"
    everything = Pause(ve=None, reason="move", since=0.0, by="bob")
    assert everything.words == "move (all VEs paused by bob)"
