"""Claims about a plan as people read it: dangers first, drift apart, and no word of a VE's taken for one of ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model.action import (
    Action,
    Basis,
    Downtime,
    Drift,
    Impact,
    Operation,
    Origin,
    Plan,
    Reason,
    Refusal,
    UnknownFact,
)
from reconciler.model.facts import Json
from reconciler.plan.explain import explain
from reconciler.plan.markdown import LENGTH_MAX, render_markdown
from reconciler.plan.render import exit_detail, render_diff, render_text, summary
from reconciler.plan.words import value_text
from tests.support.changes import CHANGE, NODE

DRIFT = replace(CHANGE, path="hostname", before="evil\x1b[2J\n+ create web9", after="web1", origin=Origin.DRIFT)
RESTART = replace(
    CHANGE,
    op=Operation.RESTART,
    path="rlimits",
    before={"rlimits": {}},
    after={"rlimits": {"nofile": 8192}},
    impact=Impact.RESTART,
    downtime=Downtime(1.25, Basis.MEASURED),
)
CREATE = replace(CHANGE, ve="web2", op=Operation.CREATE, path="", before=None, after={"memory": {"limit": 1 << 30}})
DESTROY = replace(
    CHANGE, ve="db1", op=Operation.DESTROY, path="", before="db1", after=None, danger="db1: moved to the trash"
)
RESTORE = replace(CHANGE, ve="old", op=Operation.RESTORE, path="", before={"trashedSecondsAgo": 7200}, after={})
BOOKS = replace(CHANGE, path="record", before=None, after=["labels"], reason=Reason.BOOKKEEPING)
REFUSED = Refusal(ve="db2", rule="NeedsConsent", message="would be | `made` anew <b>", remedy="`vectl approve abc`")


def plan(*actions: Action, **more: object) -> Plan:
    whole = Plan(host=NODE, revision="dir:abc", actions=actions, action_hash="f" * 64)
    return replace(whole, **more)  # type: ignore[arg-type]  # parts of a plan, by name


def text(made: Plan, *, verbose: bool = False) -> list[str]:
    return render_text(made, paint=lambda words, _: words, verbose=verbose).splitlines()


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (CHANGE, "  ~ change web1 memory.limit: 512Mi -> 1Gi"),
        (CREATE, "  + create web2"),
        (DESTROY, "  - destroy db1"),
        (RESTORE, "  + restore old (from the trash, 2h old)"),
        (RESTART, "  ! restart web1 rlimits: none -> nofile=8192 [restart] (downtime 1.25 s, measured)"),
        (replace(RESTART, downtime=Downtime()), "[restart] (downtime unknown)"),
        (replace(CHANGE, impact=Impact.LIVE_RISK), "512Mi -> 1Gi [live-risk]"),
    ],
    ids=lambda value: value.op.value if isinstance(value, Action) else "",
)
def test_an_action_has_a_symbol_a_word_and_its_price(action: Action, line: str) -> None:
    assert any(shown.endswith(line) for shown in text(plan(action)))


def test_dangers_come_first_and_drift_apart() -> None:
    shown = text(plan(CHANGE, DRIFT, DESTROY, refused=(REFUSED,)))
    titles = [line for line in shown if line.endswith(":")]
    assert titles == ["Dangers:", "Changes:", "Changed by hand, to be put right:"]
    assert shown[1].startswith("  x db2: refused (NeedsConsent)")
    assert shown[-1] == "Plan: 0 to create, 1 to change, 0 to restart, 1 to destroy, 1 drifted. Hash ffffffffffffffff"


def test_what_a_ve_wrote_cannot_pass_for_an_action() -> None:
    shown = text(plan(DRIFT))
    assert "  ~ change web1 hostname: evil\ufffd[2J\ufffd+ create web9 -> web1" in shown
    assert all(line.isprintable() for line in shown)


def test_bookkeeping_is_no_change() -> None:
    assert text(plan(BOOKS)) == ["No changes."]
    assert exit_detail(plan(BOOKS)) == (False, False)
    assert not any(summary([BOOKS]).values())
    assert any("record" in line for line in text(plan(BOOKS), verbose=True))


def test_what_is_left_alone_is_told() -> None:
    drift = Drift(ve="web1", path="cpu.limit", desired=None, observed=150_000, policy="warn")
    made = plan(
        warned=(drift,),
        waiting={"web2": "waits for db1"},
        unknown=(UnknownFact(ve="web3", path="power", reason="gone"),),
        orphans=("old",),
        orphan_snapshots=("web1@golden", "web1@older"),
    )
    shown = text(made)
    assert "  web1 cpu.limit: 1.5" in shown
    assert "  web2: waits for db1" in shown
    assert "  web3.power: gone" in shown
    assert "No manifest names old any more; --prune would move them to the trash." in shown
    left = "No manifest names snapshots web1@golden, web1@older any more; --prune would delete them, with consent."
    assert left in shown


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("memory.limit", None, "unlimited"),
        ("memory.limit", 64 << 20, "64Mi"),
        ("cpu.limit", 150_000, "1.5"),
        ("cpu.weight", 100, "100"),
        ("boot.stopTimeout", 30.0, "30s"),
        ("features.nesting", True, "true"),
        ("dns", None, "none"),
        ("interfaces.eth0.addresses", ["10.0.0.1/24", "fd00::1/64"], "10.0.0.1/24, fd00::1/64"),
        ("interfaces.eth0.routes", [{"to": "0.0.0.0/0", "via": "10.0.0.1"}], "to 0.0.0.0/0 via 10.0.0.1"),
        ("labels", {"tier": "web"}, "tier=web"),
        ("labels", {}, "none"),
        ("description", "", "none"),
        ("drift", {"default": "correct", "fields": {}}, "default=correct, fields=none"),
        ("cpu.cpus", None, "all"),
        ("cpu.cpus", [0, 1], "0, 1"),
        ("hostname", "a" * 200, "a" * 99 + "…"),
    ],
)
def test_values_are_shown_as_people_write_them(path: str, value: Json, words: str) -> None:
    assert value_text(path, value) == words


def test_a_diff_shows_observed_before_desired() -> None:
    shown = render_diff(plan(CHANGE, DRIFT, CREATE, DESTROY), paint=lambda words, _: words).splitlines()
    assert shown[:4] == ["--- web1 (observed)", "+++ web1 (desired)", "-memory.limit: 512Mi", "+memory.limit: 1Gi"]
    assert "+hostname: web1  # drift" in shown
    assert shown[-5:] == [
        "+++ web2 (desired)",
        "+memory.limit: 1Gi",
        "--- db1 (observed)",
        "+++ db1 (desired)",
        "-name: db1",
    ]


def test_a_diff_of_nothing_is_empty() -> None:
    assert render_diff(plan(BOOKS), paint=lambda words, _: words) == ""


def test_a_difference_is_explained_by_what_is_extra_and_missing() -> None:
    action = replace(
        CHANGE, path="interfaces.eth0.addresses", before=["10.0.0.1/24", "10.0.0.9/24"], after=["10.0.0.1/24"]
    )
    (found,) = explain(plan(action, CREATE), "web1")
    assert (found.path, found.text) == ("interfaces.eth0.addresses", "10.0.0.9/24 is extra")
    route: Json = {"to": "0.0.0.0/0", "via": "10.0.0.1"}
    (found,) = explain(plan(replace(CHANGE, path="interfaces.eth0.routes", before=[], after=[route])), "web1")
    assert found.text == "to 0.0.0.0/0 via 10.0.0.1 is missing"
    (found,) = explain(plan(CHANGE), "web1")
    assert (found.path, found.text) == ("memory.limit", "is 512Mi, should be 1Gi")
    (found,) = explain(plan(RESTART), "web1")
    assert (found.path, found.text) == ("rlimits.nofile", "8192 is missing")
    assert explain(plan(replace(CHANGE, effects=())), "web1") == ()  # the host has it already


def test_a_comment_folds_the_fields_and_never_the_dangers() -> None:
    comment = render_markdown(plan(CHANGE, RESTART, DESTROY, refused=(REFUSED,)))
    head, _, folded = comment.partition("<details>")
    assert head.startswith("<!-- vectl plan of node\\-a -->")
    assert "**db2** is refused" in head
    assert "db1: moved to the trash" in head
    assert "| web1 | update, restart | restart | 1.25 s (measured) |" in head
    assert "- memory.limit: 512Mi\n+ memory.limit: 1Gi" in folded


def test_a_comment_shows_of_a_new_ve_what_differs_from_the_defaults() -> None:
    fields: dict[str, Json] = {"memory": {"limit": 1 << 30, "swap": 0}, "cpu": {"weight": 100, "limit": None}}
    folded = render_markdown(plan(replace(CREATE, after={**fields, "labels": {}}))).partition("<details>")[2]
    assert [line for line in folded.splitlines() if line.startswith("+")] == ["+ memory.limit: 1Gi"]


def test_nothing_in_a_comment_is_read_as_markup() -> None:
    fence = replace(DRIFT, before="``````\n</details> @everyone")
    comment = render_markdown(plan(fence, refused=(REFUSED,)))
    assert "would be \\| \\`made\\` anew &lt;b\\>" in comment
    assert "```````diff\n" in comment
    assert comment.count("</details>\n") == 1


def test_a_comment_is_as_short_as_a_forge_demands() -> None:
    many = [
        replace(CHANGE, ve=f"ve{n}", path=f"interfaces.eth{m}.addresses", before=["x" * 90], after=["y" * 90])
        for n in range(400)
        for m in range(3)
    ]
    comment = render_markdown(plan(*many, refused=(REFUSED,)))
    assert len(comment) <= LENGTH_MAX
    assert "**db2** is refused" in comment
    assert "more objects are left out here" in comment
    assert comment.endswith("`")
