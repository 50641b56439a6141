"""Verification of a repository's newest commit: what is trusted, and the way that led there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from reconciler.errors import RetryableError, TooLargeError, VectlError
from reconciler.kernel.git import Repository
from reconciler.kernel.git_signature import NOTES, Verifier, verifier
from reconciler.model.commit import Commit, Note, Step, Trust, TrustState
from reconciler.model.trust import Keyring, Remembered, Signature, TrustPolicy
from reconciler.sources import notes, trust
from reconciler.sources.trust import Examined, Judgement

REMEDY = "; if it is right all the same: "
"""What comes before the remedy of a refusal, which is for who rules a host."""

_NOT_REQUIRED = Trust(
    state=TrustState.TRUSTED, reason="NotRequired", message="whoever can write to the branch is trusted"
)
_NOBODY = TrustPolicy(signers=(), keyring=Keyring())

_AT = "vectl-at"
"""The key by which a note tells its time, in seconds since the epoch; without it, it is of its commit's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a commit may be acted upon; if so, the way to it and what is to be remembered.

    ``way``: see `verify`. Units: ``latest`` seconds since the epoch.
    """

    trust: Trust
    way: tuple[Step, ...] = ()
    signed: bool = False
    latest: float = 0.0


def unusable(error: VectlError) -> Verdict:
    """Give the verdict of a trust file that cannot be used, or of a check that could not be made."""
    state = TrustState.UNKNOWN if isinstance(error, RetryableError) else TrustState.REFUSED
    return Verdict(trust=Trust(state=state, reason="TrustUnusable", message=str(error)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Verifies commits of a repository. ``policy`` None: signatures are not asked for.

    ``notes_ref``: where signed notes lie. ``checked``: what came of signatures by commit, for whoever goes on with the
    same policy: a commit never changes.
    Units: ``now`` seconds since the epoch.
    """

    repository: Repository
    policy: TrustPolicy | None
    now: float
    notes_ref: str = "refs/vectl/notes"
    checked: dict[str, Signature] = field(default_factory=dict)

    def verify(self, head: str, remembered: Remembered, *, since: str | None = None) -> Verdict:
        """Verify a commit against what is remembered of its source.

        The way goes from the commit after ``since``, or after the one that was trusted, to ``head``. It is the same
        object store that is read later: nothing else is asked of the server.
        """
        try:
            if self.policy is None:
                return self._unsigned(head, remembered, since)
            with verifier(self.policy.keyring) as checker:
                return self._signed(_Chain(self, self.policy, checker), head, remembered, since)
        except VectlError as error:
            return unusable(error)

    def steps(self, commits: Sequence[str]) -> tuple[Step, ...]:
        """Give commits that were accepted before with who vouches for them and what is noted on them, as of now.

        Raises: CommandError, TimeLimitError, MissingToolError, KernelError, TooLargeError.
        """
        policy = self.policy or _NOBODY
        with verifier(policy.keyring) as checker:
            return _Chain(self, policy, checker).steps(commits)

    def _unsigned(self, head: str, remembered: Remembered, since: str | None) -> Verdict:
        base = self._base(head, remembered, remembered.trusted)
        if base is not None and (refused := self._off_branch(head, base, first_parents=False)):
            return Verdict(trust=refused)
        commits = self.repository.commits(self._way(since or remembered.trusted, head))
        return Verdict(trust=_NOT_REQUIRED, way=tuple(Step(commit=commit) for commit in commits))

    def _signed(self, chain: _Chain, head: str, remembered: Remembered, since: str | None) -> Verdict:
        base = self._base(head, remembered, _signed_base(chain.policy, remembered))
        if base is not None and (refused := self._off_branch(head, base, first_parents=True)):
            return Verdict(trust=refused)
        latest = remembered.latest if base == remembered.trusted else 0.0
        if base is not None:
            latest = max(latest, self.repository.commits((base,))[0].committed_at)
        judgement = chain.judge(self.repository.first_parents(base, head), base=base, latest=latest)
        if judgement.trust.state is not TrustState.TRUSTED:
            return Verdict(trust=self._with_remedy(judgement.trust, base, head))
        older = () if base is None else self._way(since or remembered.trusted or base, base)
        way = (*chain.steps(older), *chain.noted(judgement.steps))
        return Verdict(trust=_told(chain, judgement), way=way, signed=True, latest=judgement.latest)

    def _way(self, start: str | None, end: str) -> tuple[str, ...]:
        """Give the commits from the one after ``start`` to ``end``; only this, where these are not told."""
        if start is None or self.repository.resolve(start) is None:
            return (end,)
        try:
            return self.repository.first_parents(start, end)
        except TooLargeError:
            return (end,)

    def _base(self, head: str, remembered: Remembered, base: str | None) -> str | None:
        """Give the commit to build on: what a person accepted in the place of ``base``, if ``head`` is built on it."""
        rewrite = remembered.accepted_from(remembered.trusted)
        if rewrite is None or self.repository.resolve(rewrite.new) is None:
            return base
        return rewrite.new if self.repository.is_ancestor(rewrite.new, head) else base

    def _off_branch(self, head: str, base: str, *, first_parents: bool) -> Trust | None:
        """Refuse a commit that was not built on what is trusted, or only by way of a merge of it into something else.

        Such a merge is not made by who signs the commits of the branch: what it began with was never looked at.
        """
        if self.repository.resolve(base) is None:
            problem = f"the repository does not have {base[:12]} any more, on which it was to be built"
        elif self.repository.is_ancestor(base, head):
            if not first_parents or base == head or self._follows(head, base):
                return None
            problem = f"{base[:12]} was merged into it, not it into {base[:12]}; merge the other way round"
        elif self.repository.is_ancestor(head, base):
            problem = f"it is older than {base[:12]}, which is in force; to undo a change, revert it"
        else:
            problem = f"it was not built on {base[:12]}, which is in force"
        return self._with_remedy(trust.refusal("NotFastForward", head, problem), base, head)

    def _follows(self, head: str, base: str) -> bool:
        way = self.repository.first_parents(base, head)
        return self.repository.commits(way[:1])[0].parents[:1] == (base,)

    def _with_remedy(self, refused: Trust, base: str | None, head: str) -> Trust:
        remedy = f"vectl source accept-rewrite {base[:12]} {head[:12]}" if base else ""
        if base is None and self.policy is not None:
            remedy = f"name as anchor in {self.policy.file} a commit that is known to be good"
        return replace(refused, message=f"{refused.message}{REMEDY}{remedy}")


class _Chain:
    """Reads commits with what is to be known of them to judge them."""

    __slots__ = ("_checker", "_of", "_repository", "ignored", "policy")

    def __init__(self, of: Verification, policy: TrustPolicy, checker: Verifier) -> None:
        self._of = of
        self._repository = of.repository
        self._checker = checker
        self.policy = policy
        self.ignored: list[str] = []

    def judge(self, commits: Sequence[str], *, base: str | None, latest: float) -> Judgement:
        examined = self._examined(commits)
        return trust.judge(self.policy, examined, base=base, latest=latest, now=self._of.now)

    def steps(self, commits: Sequence[str]) -> tuple[Step, ...]:
        """Give commits that are not judged any more."""
        return self.noted([trust.attributed(self.policy, examined) for examined in self._examined(commits)])

    def noted(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """Give steps with what is noted on them by those who may."""
        found = notes.read(self._repository, self._of.notes_ref, [step.commit.id for step in steps])
        if not any(found.values()):
            return tuple(steps)
        changes = self._repository.changes(list(found))
        return tuple(
            replace(step, notes=tuple(self._notes(step.commit, found[step.commit.id], changes[step.commit.id])))
            if step.commit.id in found
            else step
            for step in steps
        )

    def _examined(self, commits: Sequence[str]) -> Iterator[Examined]:
        changes = self._repository.changes(commits)
        for commit in self._repository.commits(commits):
            yield Examined(commit=commit, signature=self._signature(commit), paths=changes[commit.id])

    def _signature(self, commit: Commit) -> Signature:
        known = self._of.checked.get(commit.id)
        if known is None:
            known = self._checker.check(commit.payload, commit.signature, at=commit.committed_at)
            self._of.checked[commit.id] = known
        return known

    def _notes(self, commit: Commit, signed: Sequence[notes.SignedNote], paths: Sequence[str]) -> Iterator[Note]:
        for note in signed:
            at = _time_of(note, commit)
            signature = self._checker.check(note.payload, note.signature, at=at, namespace=NOTES)
            by = trust.reviewer(self.policy, signature, paths, at=at) if at <= self._of.now + trust.SLACK_S else None
            if by is None:
                self.ignored.append(commit.id)
            else:
                yield Note(by=by.name, at=at, lines=note.lines)


def _signed_base(policy: TrustPolicy, remembered: Remembered) -> str | None:
    """Give what is trusted by signatures. What was accepted before they were asked for is not."""
    return remembered.trusted if remembered.signed else policy.anchor


def _time_of(note: notes.SignedNote, commit: Commit) -> float:
    said = {key.lower(): value for key, value in note.lines}.get(_AT, "")
    return float(said) if said.isascii() and said.isdecimal() and len(said) < _DIGITS else commit.committed_at


def _told(chain: _Chain, judgement: Judgement) -> Trust:
    if not chain.ignored:
        return judgement.trust
    problem = f"a note on {chain.ignored[0][:12]} does not count: it is not signed by somebody who may review it"
    return replace(judgement.trust, message=problem)


_DIGITS = 12
