"""Claims about what a person hears of the work that the agent does for `apply`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.cli import handover
from reconciler.errors import ExitCode, NotConvergedError, RefusedError
from reconciler.manifests.load import load_fleet
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from reconciler.state import layout
from reconciler.state.conditions import SOURCE, Conditions
from reconciler.state.lastgood import Kept, LastGood


def fleet(*names: str) -> Fleet:
    documents = (f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: {name}}}\n" for name in names)
    found = load_fleet({"a.yaml": "---\n".join(documents).encode()}, revision="new").fleet
    assert found is not None
    return found


def ready(status: Status, reason: str, *, revision: str = "new") -> Condition:
    return Condition(type=ConditionType.READY, status=status, reason=reason, message="so", revision=revision)


def stalled(reason: str) -> tuple[Condition, ...]:
    condition = Condition(type=ConditionType.STALLED, status=Status.TRUE, reason=reason, revision="new")
    return (ready(Status.FALSE, reason), condition)


def test_each_ve_is_sorted_by_what_was_said_of_the_revision() -> None:
    stored = {
        "good": (ready(Status.TRUE, "Converged"),),
        "old": (ready(Status.TRUE, "Converged", revision="before"),),
        "failed": (ready(Status.FALSE, "KernelError"),),
        "refused": stalled("Unsupported"),
        "later": (ready(Status.FALSE, "Waiting"),),
        "left": (ready(Status.UNKNOWN, "Paused"),),
    }
    found = handover.standing(fleet(*stored, "unseen"), stored, "here")
    assert list(found.stalled) == ["refused"]
    assert list(found.failing) == ["failed"]
    assert found.waiting == {"old", "later", "unseen"}
    assert not found.is_settled


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        ((ready(Status.TRUE, "Converged"),), ExitCode.OK),
        (stalled("NeedsConsent"), ExitCode.REFUSED),
        ((ready(Status.FALSE, "NoSpaceError"),), ExitCode.ERROR),
    ],
)
def test_how_they_stand_gives_the_exit_code(conditions: tuple[Condition, ...], code: ExitCode) -> None:
    assert handover.standing(fleet("a"), {"a": conditions}, "here").exit_code is code


def await_agent(
    tmp_path: Path, conditions: tuple[Condition, ...], timeout_s: float, *, in_force: str = "new"
) -> handover.Standing:
    instance = Instance(name="t", host=HostName("here"), state_dir=str(tmp_path), run_dir=str(tmp_path), cgroup="/t")
    stored = Conditions(layout.conditions_dir(instance))
    stored.put("a", conditions, now=1.0)
    fetched = Condition(type=ConditionType.FETCHED, status=Status.FALSE, reason="SourceEmptied", message="it is empty")
    stored.put(SOURCE, (fetched,), now=1.0)
    LastGood(instance.state_dir).keep(Kept(revision=in_force, source="dir", files={}, at=1.0))
    return asyncio.run(handover.await_agent("dir", instance, fleet("a"), timeout_s))


def test_manifests_that_the_agent_does_not_take_are_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_PATIENCE_S", 0.0)
    with pytest.raises(RefusedError, match="apply dir: the agent does not take it: it is empty"):
        await_agent(tmp_path, (ready(Status.TRUE, "Converged"),), timeout_s=3600, in_force="old")


def test_what_is_as_desired_is_settled(tmp_path: Path) -> None:
    assert await_agent(tmp_path, (ready(Status.TRUE, "Converged"),), timeout_s=3600).is_settled


def test_what_fails_and_fails_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handover, "_PATIENCE_S", 0.0)
    found = await_agent(tmp_path, (ready(Status.FALSE, "KernelError"),), timeout_s=3600)
    assert found.exit_code is ExitCode.ERROR
    assert capsys.readouterr().err == "vectl: a: KernelError: so\n"


def test_what_is_under_way_is_waited_for_until_the_time_is_over(tmp_path: Path) -> None:
    with pytest.raises(NotConvergedError, match="apply dir: not converged within 0 s"):
        await_agent(tmp_path, (ready(Status.FALSE, "Waiting"),), timeout_s=0)
