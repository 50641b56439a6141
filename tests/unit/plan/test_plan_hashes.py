"""A person consents to a plan by its hash: it is the same wherever and whenever the same change is planned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from reconciler.model.action import Action, Downtime, Impact, Operation, Origin, Plan, Reason
from reconciler.model.compute import ComputeUse, Limit
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName, Uid
from reconciler.plan import hashes, planner
from reconciler.plan.inputs import Inputs
from reconciler.state.coordinator import DryCoordinator
from tests.support.rig import LAN, NODE, Rig, fleet_of, on_lan, run, scratch_state, ve

UPLINK = LAN.replace("nat: true", "uplink: eno1")
BEFORE = fleet_of(LAN, ve("web1", on_lan(11)), ve("web2", on_lan(12)), ve("old"), revision="main")
AFTER = fleet_of(
    UPLINK,
    ve("web1", f"{on_lan(11)}, memory: {{limit: 128Mi}}, rlimits: {{nofile: 100}}"),
    ve("web2", f"{on_lan(13)}, description: moved"),
    ve("new"),
    revision="head",
)


@pytest.fixture
def state() -> Iterator[Path]:
    with scratch_state() as path:
        yield path


def plan_on_paper(state: Path, before: Fleet, after: Fleet) -> Plan:
    """Plan as a review does that has no host: on one that is exactly as the former revision says."""
    rig = Rig(state=state)
    rig.world.add_host_link("eno1")
    rig.converge(before)

    async def plan() -> Plan:
        reconciler = rig.reconciler(after)
        _, made = await reconciler.plan(await reconciler.observe(), coordinator=DryCoordinator())
        return made

    return run(plan())


def test_the_hash_of_a_review_is_that_of_the_host(state: Path) -> None:
    reviewed = plan_on_paper(state / "review", BEFORE, AFTER)
    rig = Rig(state=state / "host")
    rig.world.add_host_link("eno1")
    rig.converge(BEFORE)
    rig.world.set_limit(rig.uid("web2"), Limit.PROCESSES, 7)
    rig.world.set_use(rig.uid("web1"), use=ComputeUse(memory=400 << 20))
    rig.world.flush_filter()
    rig.world.set_network_down(next(iter(rig.machine.networks)))
    on_host = rig.plan(AFTER)
    assert on_host.ve_hashes == reviewed.ve_hashes
    assert on_host.action_hash == reviewed.action_hash
    assert {action.ve for action in on_host.actions if action.origin is Origin.DRIFT} == {"host/filter", "web2"}


def test_a_consent_to_the_review_holds_on_the_host(state: Path) -> None:
    reviewed = plan_on_paper(state / "review", BEFORE, AFTER)
    assert {refusal.rule for refusal in reviewed.refused} == {"NeedsConsent"}
    rig = Rig(state=state / "host")
    rig.world.add_host_link("eno1")
    rig.converge(BEFORE)
    rig.desk().approvals.approve(reviewed.action_hash, by="somebody", now=rig.clock.now())
    assert rig.plan(AFTER).refused == ()


def test_a_consent_to_one_object_is_none_to_another_change_of_it(state: Path) -> None:
    reviewed = plan_on_paper(state / "review", BEFORE, AFTER)
    rig = Rig(state=state / "host")
    rig.world.add_host_link("eno1")
    rig.world.add_host_link("eno2")
    rig.converge(BEFORE)
    rig.desk().approvals.approve(reviewed.ve_hashes["network/lan"], by="somebody", now=rig.clock.now())
    other = fleet_of(UPLINK.replace("eno1", "eno2"), ve("web1", on_lan(11)), ve("web2", on_lan(12)), ve("old"))
    assert [refusal.rule for refusal in rig.plan(other).refused] == ["NeedsConsent"]


def action(**changes: object) -> Action:
    made = Action(
        ve="web1",
        uid=Uid("u"),
        op=Operation.UPDATE,
        path="memory.limit",
        before=1,
        after=2,
        reason=Reason.SPEC_CHANGED,
        impact=Impact.LIVE,
        origin=Origin.GIT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # names and values belong together in the tests below


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": Uid("v")},
        {"before": 3},
        {"reason": Reason.NEW_MANIFEST},
        {"downtime": Downtime(9.0)},
        {"danger": "beware"},
        {"impact": Impact.LIVE_RISK},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_differs_between_review_and_host_is_not_hashed(changes: dict[str, object]) -> None:
    assert hashes.ve_hashes(NODE, [action(**changes)]) == hashes.ve_hashes(NODE, [action()])


@pytest.mark.parametrize(
    "changes",
    [
        {"op": Operation.RESTART},
        {"path": "memory.swap"},
        {"after": 3},
        {"impact": Impact.RESTART},
        {"origin": Origin.DRIFT},
        {"ve": "web2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_person_consents_to_is_hashed(changes: dict[str, object]) -> None:
    assert hashes.ve_hashes(NODE, [action(**changes)]) != hashes.ve_hashes(NODE, [action()])


def test_the_host_is_hashed() -> None:
    assert hashes.ve_hashes(HostName("other"), [action()]) != hashes.ve_hashes(NODE, [action()])


def test_drift_and_rules_of_the_host_have_no_part_in_the_hash() -> None:
    others = [action(origin=Origin.DRIFT, path="a"), action(origin=Origin.POLICY, path="b")]
    assert hashes.ve_hashes(NODE, [action(), *others]) == hashes.ve_hashes(NODE, [action()])
    assert hashes.ve_hashes(NODE, others) == {}


def test_the_order_of_actions_has_no_part_in_the_hash() -> None:
    actions = [action(path=path, ve=ve) for ve in ("a", "b") for path in ("x", "y", "z")]
    shuffled = Random(1).sample(actions, len(actions))
    assert hashes.ve_hashes(NODE, shuffled) == hashes.ve_hashes(NODE, actions)
    assert list(hashes.ve_hashes(NODE, shuffled)) == ["a", "b"]


def test_the_empty_plan_has_a_hash(state: Path) -> None:
    rig = Rig(state=state)
    assert rig.plan(fleet_of(revision="r0")).action_hash == hashes.action_hash([])


def test_the_hash_is_that_of_the_canonical_text() -> None:
    """It is written into pull requests: another text for the same plan would break every consent under way."""
    text = b'["node-a","web1",[["update","memory.limit",2,"live"]]]'
    assert hashes.ve_hashes(HostName("node-a"), [action()]) == {"web1": hashlib.sha256(text).hexdigest()}


def test_a_plan_depends_on_nothing_but_its_inputs(state: Path) -> None:
    rig = Rig(state=state)
    rig.converge(BEFORE)
    inputs, first = run(_inputs(rig))
    assert planner.plan_host(inputs) == first
    assert planner.plan_host(replace(inputs, now=inputs.now + 5.0)).action_hash == first.action_hash


async def _inputs(rig: Rig) -> tuple[Inputs, Plan]:
    reconciler = rig.reconciler(AFTER)
    return await reconciler.plan(await reconciler.observe())


@pytest.mark.parametrize(
    ("path", "reviewed", "found"),
    [
        pytest.param("memory.barrier", Impact.LIVE, Impact.NONE, id="not-enforceable"),
        pytest.param("memory.limit", Impact.LIVE, Impact.LIVE_RISK, id="below-use"),
    ],
)
def test_what_a_host_makes_of_a_live_change_does_not_change_the_hash(
    path: str, reviewed: Impact, found: Impact
) -> None:
    action = Action(
        ve="web1",
        uid=None,
        op=Operation.UPDATE,
        path=path,
        before=None,
        after=1,
        reason=Reason.SPEC_CHANGED,
        impact=reviewed,
        origin=Origin.GIT,
    )
    assert hashes.ve_hashes(NODE, [action]) == hashes.ve_hashes(NODE, [replace(action, impact=found)])
    assert hashes.ve_hashes(NODE, [action]) != hashes.ve_hashes(NODE, [replace(action, impact=Impact.RESTART)])


def test_data_that_is_found_in_the_trash_does_not_change_the_hash() -> None:
    made = Action(
        ve="web1",
        uid=None,
        op=Operation.CREATE,
        path="",
        before=None,
        after={},
        reason=Reason.NEW_MANIFEST,
        impact=Impact.NONE,
        origin=Origin.GIT,
    )
    found = replace(made, op=Operation.RESTORE, before={"trashedSecondsAgo": 60}, reason=Reason.IN_TRASH)
    assert hashes.ve_hashes(NODE, [made]) == hashes.ve_hashes(NODE, [found])
