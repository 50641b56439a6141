"""Plans between two revisions: what is planned from the base's state in memory, and what of it a host would do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from reconciler.agent import between
from reconciler.agent.between import plan_between
from reconciler.manifests.load import load_fleet
from reconciler.model.action import Action, Operation, Origin, Plan
from reconciler.model.fleet import Fleet
from reconciler.model.identity import HostName
from reconciler.plan.render import is_bookkeeping
from reconciler.plan.restriction import Restriction, hosts_of, restrict
from tests.support import fleets

NODE = HostName("node-a")

LAN = """
apiVersion: ve/v1
kind: Network
metadata: {name: lan}
spec: {subnets: [10.20.0.0/24], gateway: [10.20.0.1]}
"""


def fleet(*documents: str, revision: str = "r") -> Fleet:
    """Load manifests that are valid."""
    text = "\n---\n".join(documents)
    loaded = load_fleet({"fleet.yaml": text.encode()}, revision=revision)
    assert loaded.fleet is not None, loaded.findings
    return loaded.fleet


def ve(name: str, spec: str = "{}", metadata: str = "") -> str:
    """Give the manifest of a VE."""
    more = f", {metadata}" if metadata else ""
    return f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: {name}{more}}}\nspec: {spec}\n"


def on_lan(name: str, number: int, more: str = "") -> str:
    """Give the manifest of a VE with an address."""
    return ve(name, f"{{interfaces: [{{name: eth0, network: lan, addresses: [10.20.0.{number}/24]}}]{more}}}")


def shown(plan: Plan) -> list[tuple[str, str, str]]:
    """Give VE, operation and path of what a reviewer sees."""
    return [(a.ve, a.op.value, a.path) for a in plan.actions if not is_bookkeeping(a)]


def rules(plan: Plan) -> list[tuple[str, str]]:
    """Give who is refused by which rule."""
    return [(refusal.ve, refusal.rule) for refusal in plan.refused]


def test_equal_revisions_have_nothing_between_them() -> None:
    one = fleet(LAN, on_lan("web1", 11), ve("db1"))
    plan = plan_between(one, fleet(LAN, on_lan("web1", 11), ve("db1")), NODE)
    assert (shown(plan), plan.refused, plan.unknown, plan.ve_hashes) == ([], (), (), {})


def test_from_nothing_everything_is_made() -> None:
    plan = plan_between(Fleet(revision=""), fleet(LAN, on_lan("web1", 11), ve("db1")), NODE)
    assert shown(plan) == [("network/lan", "create", ""), ("db1", "create", ""), ("web1", "create", "")]


def test_changes_are_planned_as_on_a_host() -> None:
    before = fleet(LAN, on_lan("web1", 11), ve("db1"), ve("old"))
    after = fleet(
        LAN,
        on_lan("web1", 12, ", memory: {limit: 1Gi}"),
        ve("db1", "{features: {nesting: true}}"),
        ve("new", "{power: stopped}"),
    )
    plan = plan_between(before, after, NODE)
    found = {(a.ve, a.op, a.path): a.impact.word for a in plan.actions if not is_bookkeeping(a)}
    assert found == {
        ("web1", Operation.UPDATE, "memory.limit"): "live",
        ("web1", Operation.UPDATE, "interfaces.eth0.addresses"): "network",
        ("db1", Operation.RESTART, "features.nesting"): "restart",
        ("new", Operation.CREATE, ""): "none",
        ("old", Operation.DESTROY, ""): "restart",
    }


def test_what_needs_consent_is_in_the_plan_and_says_so() -> None:
    template = "apiVersion: ve/v1\nkind: Template\nmetadata: {name: other}\nspec: {source: {builtin: busybox}}\n"
    plan = plan_between(fleet(template, ve("web1")), fleet(template, ve("web1", "{template: other}")), NODE)
    assert shown(plan) == [("web1", "recreate", "template")]
    assert rules(plan) == [("web1", "NeedsConsent")]
    assert plan.ve_hashes["web1"] in plan.refused[0].remedy


def test_removals_are_counted_among_all_ves_of_the_host() -> None:
    every = [ve(f"web{number}") for number in range(20)]
    assert rules(plan_between(fleet(*every), fleet(*every[2:]), NODE)) == []
    assert rules(plan_between(fleet(*every), fleet(*every[3:]), NODE)) == [
        (name, "MassRemoval") for name in ("web0", "web1", "web2")
    ]


def test_a_removal_of_a_protected_ve_is_refused() -> None:
    kept = ve("web2")
    plan = plan_between(fleet(ve("web1", "{protect: true}"), kept), fleet(kept), NODE)
    assert (shown(plan), rules(plan)) == ([], [("web1", "Protected")])


def test_a_rename_is_told_from_a_loss() -> None:
    before, kept = fleet(LAN, on_lan("web1", 11), ve("db1")), ve("db1")
    plain = plan_between(before, fleet(LAN, on_lan("shop", 11), kept), NODE)
    assert sorted(rules(plain)) == [("shop", "LooksLikeRename"), ("web1", "LooksLikeRename")]
    assert all("uid" not in refusal.remedy and "renamedFrom: web1" in refusal.remedy for refusal in plain.refused)
    interface = "{interfaces: [{name: eth0, network: lan, addresses: [10.20.0.11/24]}]}"
    for said in ("renamedFrom: web1", "uid: 7c9e6679-7425-40de-944b-e07fc1f90ae7"):
        plan = plan_between(before, fleet(LAN, ve("shop", interface, said), kept), NODE)
        assert (shown(plan), rules(plan)) == (
            [("shop", "update", "hostname"), ("shop", "update", "name")],
            [],
        )


def test_pinning_the_uid_of_a_ve_that_is_there_changes_nothing() -> None:
    pinned = ve("web1", metadata="uid: 7c9e6679-7425-40de-944b-e07fc1f90ae7")
    plan = plan_between(fleet(ve("web1"), ve("db1")), fleet(pinned, ve("db1")), NODE)
    assert (shown(plan), rules(plan)) == ([], [])


def test_what_a_host_makes_of_it_by_itself_is_no_part_of_the_plan() -> None:
    plan = plan_between(fleet(LAN, ve("db1")), fleet(LAN, on_lan("web1", 11), ve("db1", "{cpu: {guarantee: 1}}")), NODE)
    assert {action.ve for action in plan.actions} == {"network/lan", "web1", "db1"}
    assert shown(plan)[1:] == [("web1", "create", ""), ("db1", "update", "cpu.guarantee")]


def test_limits_and_sets_of_any_host_are_carried_out() -> None:
    spec = '{cpu: {cpus: "0-63", nodes: "0-3"}, mounts: [{source: /data, target: /data}], devices: [{path: /dev/kvm}]}'
    lower = spec.replace("0-63", "0-31")
    plan = plan_between(fleet(ve("web1", spec)), fleet(ve("web1", lower)), NODE)
    assert (shown(plan), rules(plan)) == ([("web1", "update", "cpu.cpus")], [])


def test_room_that_a_host_declares_is_for_all_its_ves() -> None:
    node = "apiVersion: ve/v1\nkind: Host\nmetadata: {name: node-a}\nspec: {capacity: {memory: 4Gi}}\n"
    big = [ve(f"web{number}", "{host: node-a, memory: {limit: 2Gi, guarantee: 1Gi}}") for number in range(3)]
    small = ve("new", "{host: node-a, memory: {guarantee: 512Mi}}")
    assert rules(plan_between(fleet(node, *big), fleet(node, *big, small), NODE)) == []
    more = ve("new", "{host: node-a, memory: {limit: 2Gi, guarantee: 1536Mi}}")
    plan = plan_between(fleet(node, *big), fleet(node, *big, more), NODE)
    assert (shown(plan), rules(plan)) == ([], [("new", "NoCapacity")])
    assert "web0 1Gi" in plan.refused[0].message
    assert "leaving" not in plan.refused[0].message


def test_each_host_has_the_part_that_is_its_own() -> None:
    nodes = [f"apiVersion: ve/v1\nkind: Host\nmetadata: {{name: {name}}}\n" for name in ("node-a", "node-b")]
    before = fleet(*nodes, ve("a1", "{host: node-a}"), ve("b1", "{host: node-b}"))
    after = fleet(*nodes, ve("a1", "{host: node-a, processes: 9}"), ve("b1", "{host: node-b}"))
    assert hosts_of(before, after) == ("node-a", "node-b")
    plans = [plan_between(before, after, host) for host in hosts_of(before, after)]
    assert [shown(plan) for plan in plans] == [[("a1", "update", "processes")], []]


def test_a_clone_finds_its_source_though_that_does_not_change() -> None:
    source = ve("web0", "{snapshots: [{name: golden}]}")
    clone = ve("web1", "{source: {clone: web0, snapshot: golden}}")
    plan = plan_between(fleet(source), fleet(source, clone), NODE)
    assert (shown(plan), rules(plan), plan.waiting) == ([("web1", "create", "")], [], {})
    gone = plan_between(fleet(source, clone), fleet(ve("web1", "{source: {clone: web0}, processes: 9}"), ve("x")), NODE)
    assert ("web1", "update", "processes") in shown(gone)


def test_whom_a_new_ve_waits_for_is_known_to_run() -> None:
    plan = plan_between(fleet(ve("db1")), fleet(ve("db1"), ve("web1", "{boot: {dependsOn: [db1]}}")), NODE)
    assert plan.waiting == {}


def test_where_a_port_of_the_host_leads_is_part_of_the_plan() -> None:
    def lan(forwards: str) -> str:
        return LAN.replace("gateway:", f"forwards: [{forwards}], gateway:")

    ves = (on_lan("web1", 11), on_lan("db1", 12))
    before = fleet(lan("{listen: 80, to: 'web1:80'}"), *ves)
    plan = plan_between(before, fleet(lan("{listen: 80, to: 'db1:5432'}"), *ves), NODE)
    [action] = plan.actions
    assert (action.ve, action.path, action.after) == ("network/lan", "forwards", ["tcp 80 to db1:5432"])
    assert list(plan.ve_hashes) == ["network/lan"]


def _meaning(actions: tuple[Action, ...]) -> set[tuple[str, str, str, str, str]]:
    return {(a.ve, a.op.value, a.path, repr(a.after), a.impact.word) for a in actions if a.origin is Origin.GIT}


@settings(deadline=None)
@given(fleets.edits())
def test_the_ves_that_do_not_change_need_no_look(edit: tuple[Fleet, Fleet]) -> None:
    base, head = edit
    part = plan_between(base, head, NODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(between, "restrict", lambda base, head, host: Restriction(base=base, head=head))
        whole = plan_between(base, head, NODE)
    assert _meaning(part.actions) == _meaning(whole.actions)
    assert (part.ve_hashes, part.action_hash) == (whole.ve_hashes, whole.action_hash)


@settings(deadline=None)
@given(fleets.fleets())
def test_there_is_no_way_from_a_fleet_to_itself(fleet: Fleet) -> None:
    everything = Restriction(base=fleet, head=replace(fleet, revision="again"))
    assert restrict(fleet, fleet, NODE).base.ves == {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(between, "restrict", lambda base, head, host: everything)
        patch.setattr(between, "is_same", lambda base, head, host: False)
        plan = plan_between(fleet, fleet, NODE)
    assert _meaning(plan.actions) == set()
