"""What a host may do because people reviewed it: exactly that, what leads there, and nothing dearer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from reconciler.agent.between import plan_between
from reconciler.model.action import Action, Impact, Operation, Origin, Plan, Reason
from reconciler.model.facts import Json
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName, Uid
from reconciler.plan import hashes, review
from reconciler.plan.review import Ledger, Question, Review, Step
from tests.support.rig import LAN, NODE, fleet_of, on_lan, ve

BASE = fleet_of(LAN, ve("a", on_lan(11)), ve("b", on_lan(12)), revision="r0")


def step(before: Fleet, after: Fleet) -> Step:
    return review.step_of(plan_between(before, after, NODE), after.revision)


def ledger_of(*fleets: Fleet) -> Ledger:
    """Give the ledger of a way of which nothing was reviewed."""
    steps = [step(one, two) for one, two in pairwise(fleets)]
    begun = Ledger(source="git", base=fleets[0].revision, head=fleets[0].revision)
    return review.taken(begun, steps, step(fleets[0], fleets[-1]))


def refused(
    plan: Plan, ledger: Ledger, *, below: Impact | None = None, given: frozenset[str] = frozenset()
) -> set[str]:
    question = Question(hashes=plan.ve_hashes, whole=plan.action_hash, given=given, below=below, revision=plan.revision)
    return set(review.refusals(plan.actions, Review(ledger=ledger), question))


def grown(revision: str, **limits: str) -> Fleet:
    specs = {name: f"{on_lan(number)}" for name, number in (("a", 11), ("b", 12))}
    documents = [
        ve(name, f"{spec}, memory: {{limit: {limits[name]}}}" if name in limits else spec)
        for name, spec in specs.items()
    ]
    return fleet_of(LAN, *documents, revision=revision)


ONE, BOTH = grown("r1", a="1Gi"), grown("r2", a="1Gi", b="2Gi")


def test_nothing_is_done_that_nobody_reviewed() -> None:
    assert refused(plan_between(BASE, BOTH, NODE), ledger_of(BASE, ONE, BOTH)) == {"a", "b"}


def test_a_reviewed_step_is_done_and_the_one_that_was_not_waits() -> None:
    ledger = ledger_of(BASE, ONE, BOTH)
    heard = review.accepted(ledger, {ledger.steps[0].hash}, at="r1")
    assert refused(plan_between(BASE, BOTH, NODE), heard) == {"b"}


def test_what_was_said_of_one_revision_does_not_count_for_another() -> None:
    ledger = ledger_of(BASE, ONE, BOTH)
    assert review.accepted(ledger, {ledger.steps[0].hash}, at="r2") == ledger


def test_the_hash_of_all_steps_as_one_covers_them() -> None:
    ledger = ledger_of(BASE, ONE, BOTH)
    assert refused(plan_between(BASE, BOTH, NODE), review.accepted(ledger, {ledger.whole.hash}, at="r2")) == set()


def test_a_part_of_a_step_may_be_reviewed_alone() -> None:
    ledger = ledger_of(BASE, BOTH)
    heard = review.accepted(ledger, {ledger.steps[0].hashes["b"]})
    assert refused(plan_between(BASE, BOTH, NODE), heard) == {"a"}


def test_a_change_on_top_of_a_reviewed_one_takes_it_along_no_further_than_it_goes() -> None:
    """A rival merge makes another plan of a VE than the one that was reviewed."""
    rival = grown("r2", a="3Gi")
    ledger = ledger_of(BASE, ONE, rival)
    heard = review.accepted(ledger, {ledger.steps[0].hash})
    plan = plan_between(BASE, rival, NODE)
    assert refused(plan, heard) == {"a"}
    [refusal] = review.refusals(plan.actions, Review(ledger=heard), _question(plan)).values()
    assert refusal.rule == "PlanChanged"
    assert refusal.message == "memory.limit -> 3Gi, reviewed was 1Gi"
    assert f"vectl approve {plan.ve_hashes['a']}" in refusal.remedy


def _question(plan: Plan) -> Question:
    return Question(
        hashes=plan.ve_hashes, whole=plan.action_hash, given=frozenset(), below=None, revision=plan.revision
    )


def test_two_reviewed_changes_of_a_ve_that_was_never_made_make_it_as_the_second_says() -> None:
    born, more = fleet_of(ve("n"), revision="r1"), fleet_of(ve("n", "memory: {limit: 1Gi}"), revision="r2")
    nothing = fleet_of(revision="r0")
    ledger = ledger_of(nothing, born, more)
    heard = review.accepted(ledger, {one.hash for one in ledger.steps})
    assert refused(plan_between(nothing, more, NODE), heard) == set()
    assert refused(plan_between(nothing, more, NODE), review.accepted(ledger, {ledger.steps[0].hash})) == {"n"}


def test_a_template_that_is_another_one_now_makes_another_ve() -> None:
    def fleet(url: str, *more: str, revision: str) -> Fleet:
        pinned = f"tarball: {{url: 'https://example.org/{url}', sha256: '{url * 64}'}}"
        template = f"kind: Template\nmetadata: {{name: t}}\nspec: {{source: {{{pinned}}}}}\n"
        return fleet_of(template, *more, revision=revision)

    new = ve("n", "template: t")
    before, reviewed = fleet("1", revision="r0"), fleet("1", new, revision="pull")
    rival, merged = fleet("2", revision="r1"), fleet("2", new, revision="r2")
    said = step(before, reviewed).hash
    ledger = ledger_of(before, rival, merged)
    assert ledger.steps[0].hash != said
    assert refused(plan_between(before, merged, NODE), review.accepted(ledger, {said})) == {"n"}


def test_a_step_that_changes_nothing_here_needs_no_review() -> None:
    elsewhere = fleet_of(LAN, ve("a", on_lan(11)), ve("b", on_lan(12)), ve("far", "host: other"), revision="r1")
    hosts = "kind: Host\nmetadata: {name: %s}\nspec: {}\n"
    base = fleet_of(LAN, hosts % "other", hosts % "node-a", *_placed(), revision="r0")
    more = fleet_of(LAN, hosts % "other", hosts % "node-a", *_placed(), ve("far", "host: other"), revision="r1")
    assert elsewhere.ves.keys() == more.ves.keys()
    assert ledger_of(base, more).steps == ()


def _placed() -> tuple[str, ...]:
    return tuple(ve(name, f"host: node-a, {on_lan(number)}") for name, number in (("a", 11), ("b", 12)))


def action(**changes: object) -> Action:
    made = Action(
        ve="a",
        uid=Uid("u"),
        op=Operation.UPDATE,
        path="memory.limit",
        before=1,
        after=1 << 30,
        reason=Reason.SPEC_CHANGED,
        impact=Impact.LIVE,
        origin=Origin.GIT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # names and values belong together in the tests below


def plan_of(*actions: Action, revision: str = "r1") -> Plan:
    by_ve = hashes.ve_hashes(NODE, actions)
    whole = hashes.action_hash(by_ve.values())
    return Plan(host=HostName(NODE), revision=revision, actions=actions, ve_hashes=by_ve, action_hash=whole)


def reviewed_ledger() -> Ledger:
    ledger = ledger_of(BASE, ONE)
    return review.accepted(ledger, {ledger.whole.hash})


def test_what_costs_more_than_was_reviewed_waits() -> None:
    assert refused(plan_of(action()), reviewed_ledger()) == set()
    assert refused(plan_of(action(impact=Impact.NONE)), reviewed_ledger()) == set()
    assert refused(plan_of(action(impact=Impact.LIVE_RISK)), reviewed_ledger()) == set()
    assert refused(plan_of(action(impact=Impact.RESTART)), reviewed_ledger()) == {"a"}
    restart: dict[str, Json] = {"memory.limit": 1 << 30}
    assert refused(plan_of(action(op=Operation.RESTART, after=restart, impact=Impact.RESTART)), reviewed_ledger()) == {
        "a"
    }


def test_what_only_leads_to_what_was_reviewed_needs_no_more() -> None:
    boots = action(path="power", after="running")
    assert refused(plan_of(action(), boots), reviewed_ledger()) == set()
    other = plan_of(boots, revision="r9")
    assert refused(other, reviewed_ledger()) == {"a"}


@pytest.mark.parametrize(
    ("below", "impact", "waits"),
    [
        (None, Impact.NONE, True),
        (Impact.LIVE, Impact.NONE, False),
        (Impact.LIVE, Impact.LIVE, False),
        (Impact.LIVE, Impact.LIVE_RISK, True),
        (Impact.LIVE, Impact.NETWORK, True),
        (Impact.RESTART, Impact.RESTART, False),
    ],
)
def test_the_root_of_a_host_says_what_need_not_be_reviewed(below: Impact | None, impact: Impact, waits: bool) -> None:
    plan = plan_of(action(path="cpu.weight", after=7, impact=impact))
    assert refused(plan, Ledger(), below=below) == ({"a"} if waits else set())


@pytest.mark.parametrize(
    "changes",
    [
        {"op": Operation.CREATE, "path": "", "after": {}, "impact": Impact.NONE},
        {"op": Operation.DESTROY, "path": "", "after": None},
        {"op": Operation.RESTORE, "path": "", "after": {}, "impact": Impact.NONE},
        {"path": "protect", "after": False, "impact": Impact.NONE},
    ],
    ids=["create", "destroy", "restore", "unprotect"],
)
def test_what_comes_or_goes_is_always_to_be_reviewed(changes: dict[str, object]) -> None:
    assert refused(plan_of(action(**changes)), Ledger(), below=Impact.RESTART) == {"a"}


def test_an_approval_of_what_is_about_to_be_done_is_a_review() -> None:
    plan = plan_of(action())
    assert refused(plan, Ledger(), given=frozenset({plan.action_hash})) == set()
    assert refused(plan, Ledger(), given=frozenset({plan.ve_hashes["a"]})) == set()


def test_drift_is_nobodys_to_review() -> None:
    assert refused(plan_of(action(origin=Origin.DRIFT), action(origin=Origin.POLICY)), Ledger()) == set()


def test_what_was_approved_may_be_finished_after_a_crash() -> None:
    born = action(op=Operation.CREATE, path="", after={"power": "running"}, impact=Impact.NONE)
    ledger = replace(Ledger(), base="r0", head="r1")
    ledger = review.settled(ledger, review.deeds_of([born]))
    rest = plan_of(action(path="disk.size", after=1), action(path="power", after="running"))
    assert refused(rest, ledger) == set()
    assert refused(plan_of(action(op=Operation.DESTROY, path="", after=None)), ledger) == {"a"}


def test_what_is_done_is_let_go_of_and_then_all_of_it_is_the_base() -> None:
    ledger = ledger_of(BASE, ONE, BOTH)
    half = review.closed(ledger, {"b"})
    assert (half.base, half.head, half.objects) == ("r0", "r2", frozenset({"b"}))
    assert review.closed(half, {"b"}) is half
    assert review.closed(half, set()) == Ledger(source="git", base="r2", head="r2")


def test_a_long_way_becomes_one_step_of_which_what_was_reviewed_stays_so() -> None:
    fleets = [BASE, *(grown(f"r{number}", a=f"{number}Mi") for number in range(64, 64 + review.STEPS_MAX + 1))]
    last = grown("last", a="300Mi", b="2Gi")
    ledger = ledger_of(*fleets)
    assert len(ledger.steps) == 1
    ledger = review.accepted(ledger, {ledger.whole.hash})
    ledger = review.taken(ledger, [step(fleets[-1], last)], step(BASE, last))
    assert refused(plan_between(BASE, last, NODE), ledger) == {"a", "b"}
    heard = review.accepted(ledger, {ledger.steps[-1].hash})
    assert refused(plan_between(BASE, last, NODE), heard) == set()


def test_a_revision_is_held_to_the_one_before_where_it_was_not_reviewed() -> None:
    other = LAN.replace("nat: true", "nat: false")
    head = fleet_of(other, ve("a", f"{on_lan(11)}, processes: 9"), ve("c"), revision="r1")
    held = review.held_to(head, BASE, frozenset({"a", "b", "c", "network/lan"}))
    assert (held.revision, held.ves, held.networks) == ("r1", BASE.ves, BASE.networks)
    assert review.held_to(head, BASE, frozenset()).ves == head.ves
