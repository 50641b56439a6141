"""What is carried out, and what persons ask for, stands in the audit log with whoever is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.agent.operations import Operations
from reconciler.agent.recording import behalf_of
from reconciler.errors import RefusedError
from reconciler.model.commit import Commit, Step
from reconciler.model.compute import Limit
from reconciler.model.identity import VeName
from reconciler.state.audit import Audit, Behalf, expect_whole
from tests.support.rig import Rig, fleet_of, run, scratch_state, ve

A = VeName("a")
ONE = fleet_of(ve("a", "memory: {limit: 1Gi}"), revision="1" * 40)
MORE = fleet_of(ve("a", "memory: {limit: 2Gi}"), revision="2" * 40)
MERGE = Commit(
    id="2" * 40,
    tree="3" * 40,
    parents=("1" * 40, "4" * 40),
    author="Alice <alice@example.org>",
    committer="Forge <noreply@forge.example>",
    committed_at=0.0,
    message="Give it more",
)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        yield Rig(state=state)


def entries(rig: Rig) -> list[dict[str, Any]]:
    return [dict(link.entry) for link in Audit(str(rig.state)).read()]


def test_a_revision_is_written_down_with_its_author_signer_hashes_and_actions(rig: Rig) -> None:
    rig.converge(ONE)
    plan, reconciler = rig.plan(MORE), rig.reconciler(MORE)
    behalf = behalf_of(MERGE, [Step(commit=MERGE, signer="alice@example.org")])
    reconciler.desk.recorder.take(MORE.revision, behalf)
    run(reconciler.converge())
    last = entries(rig)[-1]
    assert last["who"] == "Alice <alice@example.org>, committed by Forge <noreply@forge.example>"
    assert (last["signer"], last["revision"], last["ve"]) == ("alice@example.org", MORE.revision, "a")
    assert (last["plan"], last["ve_hash"], last["outcome"]) == (plan.action_hash, plan.ve_hashes["a"], "done")
    assert [(one["op"], one["path"], one["before"], one["after"]) for one in last["actions"]] == [
        ("update", "memory.limit", 1 << 30, 2 << 30)
    ]
    assert expect_whole(Audit(str(rig.state)))[0] == len(entries(rig))


def test_who_is_behind_a_revision_outlives_the_process_and_a_look_that_knows_less(rig: Rig) -> None:
    rig.converge(ONE)
    first = rig.reconciler(ONE)
    first.desk.recorder.take(MORE.revision, Behalf(who="alice", signer="alice@example.org"))
    second = rig.reconciler(MORE)
    second.desk.recorder.take(MORE.revision, Behalf(who="alice"))
    run(second.converge())
    assert (entries(rig)[-1]["who"], entries(rig)[-1]["signer"]) == ("alice", "alice@example.org")


def test_authors_that_cannot_be_read_stop_nothing(rig: Rig) -> None:
    rig.converge(ONE)
    (rig.state / "audit-behalf.json").write_text("{")
    run(rig.reconciler(MORE).converge())
    assert rig.plan(MORE).actions == ()
    assert entries(rig)[-1]["who"] == ""


def test_a_ves_own_pass_names_the_hash_of_the_whole_plan(rig: Rig) -> None:
    both = fleet_of(ve("a"), ve("b"), revision="5" * 40)
    plan, reconciler = rig.plan(both), rig.reconciler(both)

    async def work() -> None:
        _, wanted = await reconciler.pass_host()
        for name in wanted:
            await reconciler.pass_ve(name)

    run(work())
    made = [one for one in entries(rig) if one["ve"] in ("a", "b")]
    assert {one["plan"] for one in made} == {plan.action_hash}
    assert {one["ve_hash"] for one in made} == set(plan.ve_hashes.values())


def test_the_correction_of_drift_is_nobodys_word(rig: Rig) -> None:
    rig.converge(ONE)
    rig.world.set_limit(rig.uid("a"), Limit.MEMORY_LIMIT, 1 << 20)
    reconciler = rig.reconciler(ONE)
    reconciler.desk.recorder.take(ONE.revision, Behalf(who="alice"))
    run(reconciler.converge())
    last = entries(rig)[-1]
    assert (last["who"], last["plan"], last["ve_hash"]) == ("vectl", "", "")
    assert [action["origin"] for action in last["actions"]] == ["drift"]


def test_a_pass_over_a_converged_host_writes_nothing(rig: Rig) -> None:
    rig.converge(ONE)
    before = entries(rig)
    rig.converge(ONE)
    assert entries(rig) == before


def test_the_same_failure_is_written_down_once(rig: Rig) -> None:
    rig.converge(ONE)
    reconciler = rig.reconciler(MORE, effects=_Failing())
    for _ in range(3):
        run(reconciler.pass_all())
    failed = [one for one in entries(rig) if one["outcome"] == "failed"]
    assert [one["error"] for one in failed] == ["RefusedError: no"]
    reconciler.effects = rig.twin
    run(reconciler.converge())
    assert entries(rig)[-1]["outcome"] == "done"


class _Failing:
    async def perform(self, effect: object) -> None:
        raise RefusedError("no")


def test_requests_are_written_down_with_who_asked_and_what_came_of_them(rig: Rig) -> None:
    rig.converge(ONE)
    operations = Operations(reconciler=rig.reconciler(ONE))
    run(operations.pause(A, by="bob", reason="under repair"))
    with pytest.raises(RefusedError):
        run(operations.forget(A, by="bob"))
    pause, forget = entries(rig)[-2:]
    assert (pause["request"], pause["who"], pause["ve"], pause["outcome"]) == ("pause", "bob", "a", "done")
    assert pause["detail"] == "reason: under repair"
    assert (forget["request"], forget["outcome"]) == ("forget", "failed")
    assert forget["error"].startswith("RefusedError: forget a:")


def test_what_could_not_be_written_is_counted_and_stops_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.converge(ONE)
    reconciler = rig.reconciler(MORE)
    with monkeypatch.context() as patch:
        patch.setattr(Audit, "append", lambda self, entry: (_ for _ in ()).throw(RefusedError("full")))
        run(reconciler.converge())
    assert rig.plan(MORE).actions == ()
    run(Operations(reconciler=reconciler).pause(A, by="bob", reason="r"))
    assert entries(rig)[-1]["lost"] == 1
