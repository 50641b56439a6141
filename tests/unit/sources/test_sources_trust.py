"""Commits are judged one by one, oldest first, and no further than the first that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.commit import Commit, Step, TrustState
from reconciler.model.trust import Signature, SignatureState, Signer, TrustPolicy
from reconciler.sources.trust import SLACK_S, Examined, judge
from reconciler.sources.vouched import vouched

NOW = 1_700_000_000.0
ANN = Signer(name="ann", keys=frozenset({"A"}), paths=("web/**",))
FORGE = Signer(name="forge", keys=frozenset({"F"}), merges_only=True)
POLICY = TrustPolicy(signers=(ANN, FORGE))
GOOD = Signature(state=SignatureState.GOOD, key="A")


def commit(name: str, *parents: str, at: float = NOW) -> Commit:
    return Commit(id=name, tree="t", parents=parents, author="", committer="", committed_at=at, message="")


def examined(
    name: str, *parents: str, signature: Signature = GOOD, paths: tuple[str, ...] = (), at: float = NOW
) -> Examined:
    return Examined(commit=commit(name, *parents, at=at), signature=signature, paths=paths)


def reason(*chain: Examined, base: str | None = "base") -> str:
    return judge(POLICY, chain, base=base, latest=NOW, now=NOW).trust.reason


def test_each_commit_has_to_follow_the_one_before_as_its_first_parent() -> None:
    assert reason(examined("1", "base"), examined("2", "1", "other")) == "Signed"
    assert reason(examined("1", "base"), examined("2", "other", "1")) == "NotFastForward"
    assert reason(examined("1", "other", "base")) == "NotFastForward"
    assert reason(examined("1")) == "NotFastForward"
    assert reason(examined("1"), base=None) == "Signed"
    assert reason(examined("1", "base"), base=None) == "NotFastForward"


def test_what_comes_after_a_refused_commit_is_not_looked_at() -> None:
    def chain() -> Iterator[Examined]:
        yield examined("1", "base", paths=("a.yaml",))
        raise AssertionError("looked at")

    found = judge(POLICY, chain(), base="base", latest=NOW, now=NOW)
    assert (found.trust.state, found.trust.reason, found.steps) == (TrustState.REFUSED, "SignerNotAllowed", ())


def test_the_words_of_a_commit_that_nobody_vouches_for_do_not_count() -> None:
    said = replace(commit("1", "base"), message=f"change\n\nVectl-Approved: {'a' * 64}\nVectl-Reviewed: {'b' * 64}\n")
    assert vouched([Step(commit=said), Step(commit=said, signer="forge", may_review=False)]) == ()
    found = vouched([Step(commit=said, signer="ann")])
    assert [(one.kind, one.hash[0], one.by) for one in found] == [("approved", "a", "ann"), ("reviewed", "b", "ann")]


def test_a_hostile_path_reaches_no_terminal() -> None:
    (found,) = [judge(POLICY, [examined("1", "base", paths=("\x1b[2J\n" * 500,))], base="base", latest=NOW, now=NOW)]
    assert found.trust.message.isprintable()
    assert len(found.trust.message) < 2000


@given(st.lists(st.integers(min_value=int(-5 * SLACK_S), max_value=int(3 * SLACK_S)), max_size=8))
def test_no_chain_that_is_taken_goes_back_in_time_or_ahead_of_it(offsets: list[int]) -> None:
    names = ["base", *(str(number) for number in range(len(offsets)))]
    chain = [
        examined(name, before, at=NOW + offset) for before, name, offset in zip(names, names[1:], offsets, strict=False)
    ]
    found = judge(POLICY, chain, base="base", latest=NOW, now=NOW)
    is_taken = found.trust.state is TrustState.TRUSTED
    highest = [max([0, *offsets[:number]]) for number in range(len(offsets))]
    in_bounds = all(high - SLACK_S <= offset <= SLACK_S for high, offset in zip(highest, offsets, strict=True))
    assert is_taken == in_bounds
    if is_taken:
        assert found.latest == max([NOW, *(NOW + offset for offset in offsets)])
