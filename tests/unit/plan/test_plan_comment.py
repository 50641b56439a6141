"""Claims about the comment on a pull request: it always fits, hides no danger, and lets no text be markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from reconciler.model.capacity import Claim, Resource, Supply, balances
from reconciler.model.fleet import Finding, Place
from reconciler.model.identity import HostName, Uid
from reconciler.plan.comment import MARKER, About, mark, render_comment, render_mistakes
from reconciler.plan.comparison import Comparison, HostPlan
from reconciler.plan.markdown import LENGTH_MAX
from reconciler.plan.markup import cell, code, fit, size
from tests.support.changes import CHANGE, NODE

HOSTILE = "`" * 30 + "</details><!-- --> @ops #1 [x](http://e.org) | \x1b[2J\u202e\n## heading"

words = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="`~<>|@#[]()\\\n\r\u202e\u200b*_-! ", max_size=300),
    st.sampled_from([HOSTILE, "web1", "`" * 400, "\ud800"]),
)
actions = st.builds(
    Action,
    ve=words,
    uid=st.sampled_from([None, Uid("u-1")]),
    op=st.sampled_from([Operation.UPDATE, Operation.DESTROY, Operation.RECREATE]),
    path=words,
    before=words,
    after=words,
    reason=st.just(Reason.SPEC_CHANGED),
    impact=st.sampled_from(Impact),
    origin=st.sampled_from(Origin),
    danger=words,
)
refusals = st.builds(
    Refusal, ve=words, rule=st.sampled_from(["NeedsConsent", "Protected"]), message=words, remedy=words
)


def of(*actions: Action, host: HostName = NODE, refused: tuple[Refusal, ...] = ()) -> HostPlan:
    """Give the part of a host."""
    plan = Plan(host=host, revision="r", actions=actions, refused=refused, ve_hashes={"web1": "a" * 64})
    return HostPlan(host=host, plan=plan, intent="b" * 64, ves=3)


def comment(*parts: HostPlan, about: About | None = None) -> str:
    """Render a comparison of these hosts."""
    return render_comment(Comparison(start="c" * 40, end="d" * 40, base="c" * 40, hosts=parts), about or About())


def unfolded(text: str) -> str:
    """Give what of a comment is seen without a click."""
    return re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)


def outside_code(text: str) -> str:
    """Give what of a comment a forge reads as markup. Source: CommonMark 0.31, 6.1: equal runs of backticks."""
    return re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)


@settings(max_examples=40, deadline=None)
@given(st.lists(actions, max_size=6), st.lists(refusals, max_size=4), words, st.sampled_from([1, 40, 400]))
def test_it_fits_and_stays_code_whatever_is_in_it(
    some: list[Action], refused: list[Refusal], host: str, times: int
) -> None:
    part = of(*some * times, host=HostName(host), refused=tuple(refused) * times)
    text = comment(*[part] * (40 if times == 40 else 1))
    assert len(text) < LENGTH_MAX
    assert len(text.encode(errors="replace")) < LENGTH_MAX
    plain = outside_code(text)
    assert not re.search(r"@|\]\(|##|<(?!/?details>|/?summary>|!-- vectl-plan)", plain.replace("### vectl plan", "", 1))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.count("<details>") == plain.count("</details>") <= 2


def test_what_is_longer_when_it_is_printed_is_cut_as_well() -> None:
    unprintable = replace(CHANGE, path="\x10" * 40, before="", after="")
    assert len(comment(*[of(*[unprintable] * 40)] * 40).encode()) < LENGTH_MAX


@pytest.mark.parametrize(
    ("action", "title"),
    [
        (replace(CHANGE, op=Operation.DESTROY, impact=Impact.RESTART), "Removed"),
        (replace(CHANGE, op=Operation.RESTART, impact=Impact.RESTART), "Downtime"),
        (replace(CHANGE, impact=Impact.PAUSE), "Downtime"),
        (replace(CHANGE, impact=Impact.NETWORK), "Connections drop"),
        (replace(CHANGE, impact=Impact.LIVE_RISK), "Below what is in use"),
        (replace(CHANGE, impact=Impact.DATA_LOSS), "Loses data"),
        (replace(CHANGE, impact=Impact.HOST_RISK), "Could cut off the host"),
        (replace(CHANGE, danger="its protection is lifted"), "Dangers"),
        (replace(CHANGE, origin=Origin.DRIFT), "Changed by hand, will be overwritten"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_dangers_are_seen_without_a_click(action: Action, title: str) -> None:
    text = unfolded(comment(of(action)))
    assert f"**{title}**\n\n- `node-a/web1`" in text
    assert "`node-a/web1`" not in unfolded(comment(of(CHANGE)))


def test_what_is_refused_comes_before_all_else() -> None:
    refused = (Refusal(ve="db1", rule="Protected", message="it is protected", remedy="`vectl unprotect db1`"),)
    asked = (Refusal(ve="db2", rule="NeedsConsent", message="m", remedy="`vectl approve abc`"),)
    text = unfolded(comment(of(replace(CHANGE, impact=Impact.NETWORK), refused=(*refused, *asked))))
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**Needs consent**", "**Refused**", "**Connections drop**"]
    assert "`vectl approve abc`" in text


def test_a_danger_is_cut_in_the_middle_and_what_is_cut_is_counted() -> None:
    many = [replace(CHANGE, ve=f"web{number}", impact=Impact.NETWORK) for number in range(5000)]
    text = unfolded(comment(of(*many)))
    shown = text.count("- `node-a/web")
    assert "`node-a/web0`" in text
    assert "`node-a/web4999`" in text
    assert f"- {5000 - shown} more are left out here; `plan.json` has them" in text


def test_downtime_has_its_basis() -> None:
    action = replace(CHANGE, op=Operation.RESTART, impact=Impact.RESTART, downtime=Downtime(6.2, Basis.MEASURED))
    assert "**restart** (downtime 6.2 s, measured), for `memory.limit`" in comment(of(action))


def test_one_line_where_nothing_changes() -> None:
    assert comment(of(), of(host=HostName("b"))).splitlines() == [
        MARKER,
        "vectl: no changes, `cccccccccccc` → `dddddddddddd`",
    ]


def test_what_could_not_be_read_or_waits_is_told() -> None:
    plan = Plan(
        host=NODE,
        revision="r",
        unknown=(UnknownFact(ve="web1", path="network", reason="I/O error"),),
        waiting={"web2": "waits for db1 to run"},
        warned=(Drift(ve="web3", path="cpu.limit", desired=1, observed=2, policy="warn"),),
    )
    text = comment(HostPlan(host=NODE, plan=plan, intent="b" * 64))
    assert "`web1.network: I/O error`" in text
    assert "`node-a/web2` `waits for db1 to run`" in text
    assert "`node-a/web3` `cpu.limit`" in text


def test_capacity_is_told_before_and_after() -> None:
    supply = dict.fromkeys(Resource, Supply()) | {Resource.MEMORY: Supply(machine=8 << 30)}
    before = balances([Claim(memory_guarantee=1 << 30)], supply, {})
    after = balances([Claim(memory_guarantee=2 << 30)], supply, {})
    text = comment(replace(of(CHANGE), before=before, after=after))
    assert "- `node-a` `memory: guaranteed 1Gi -> 2Gi of 8Gi (25 %)`" in text


def test_the_age_of_what_was_seen_is_told() -> None:
    seen = replace(of(CHANGE), is_observed=True, observed_at=1000.0)
    assert "younger than 60m: 10m old." in comment(seen, about=About(now=1600.0))
    assert "60m: 2h old (**too old**)." in comment(seen, about=About(now=8600.0))
    assert "its age is not known" in comment(replace(seen, observed_at=None), about=About(now=1600.0))
    assert "no host was looked at" in comment(of(CHANGE))


def test_each_folder_has_a_comment_of_its_own() -> None:
    assert mark(About(subdir="fleets/shop")) == "<!-- vectl-plan fleets/shop -->"
    assert mark(About(subdir="a-->b\n")) == "<!-- vectl-plan a___b_ -->"


@settings(max_examples=20, deadline=None)
@given(st.lists(words, max_size=60))
def test_mistakes_fit_too(texts: list[str]) -> None:
    found = [Finding(place=Place(file=text, line=1), path=text, message=text, hint=text) for text in texts]
    text = render_mistakes(found * 10, "d" * 40, About())
    assert len(text.encode(errors="replace")) < LENGTH_MAX
    assert "<!--" not in outside_code(text).removeprefix(MARKER)


def test_code_is_closed_by_nothing_in_it() -> None:
    assert code("a`b``c") == "```a`b``c```"
    assert code("`x`") == "`` `x` ``"
    assert code("") == code(" ") == "` `"
    assert cell("a|b") == "`a\\|b`"
    assert code("x" * 1000, width=9) == f"`{'x' * 5}…{'x' * 3}`"


@settings(deadline=None)
@given(st.lists(st.text(max_size=50), max_size=60), st.integers(100, 4000))
def test_lines_that_are_cut_fit(lines: list[str], room: int) -> None:
    found = fit(lines, room, "- {} more")
    assert found == lines or size(found) <= room
