"""Whether commits may be acted upon: judged one by one, oldest first, by who signed them, when, and what they touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.model.commit import Commit, Step, Trust, TrustState
from reconciler.model.trust import Signature, SignatureState, Signer, TrustPolicy

SLACK_S = 24 * 3600.0
"""How far a commit may be dated before an earlier one, or after now: clocks differ. Units: seconds."""

_SIGNED = Trust(state=TrustState.TRUSTED, reason="Signed")
_REASONS = {
    SignatureState.MISSING: "Unsigned",
    SignatureState.BAD: "BadSignature",
    SignatureState.REVOKED: "BadSignature",
    SignatureState.EXPIRED: "SignatureExpired",
    SignatureState.UNKNOWN_KEY: "UnknownSigner",
}
_WORDS = {
    SignatureState.MISSING: "it is not signed",
    SignatureState.BAD: "its signature is no good",
    SignatureState.REVOKED: "its key was revoked",
    SignatureState.EXPIRED: "its key had expired, or was not made yet",
    SignatureState.UNKNOWN_KEY: "no signer has the key that signed it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A commit with what came of checking its signature, and the paths that differ from its first parent."""

    commit: Commit
    signature: Signature
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What came of judging a chain. ``latest``: the latest time of its commits. Units: seconds since the epoch."""

    trust: Trust
    steps: tuple[Step, ...] = ()
    latest: float = 0.0


def judge(policy: TrustPolicy, chain: Iterable[Examined], *, base: str | None, latest: float, now: float) -> Judgement:
    """Judge the commits that follow ``base`` along first parents, oldest first; None: down to the first of all.

    One that is refused refuses all: what comes after it was built on it. ``chain`` is read up to there.

    Units: ``latest``, that of the commits up to ``base``, and ``now`` seconds since the epoch.
    """
    steps: list[Step] = []
    for examined in chain:
        commit = examined.commit
        if (commit.parents[0] if commit.parents else None) != base:
            return Judgement(trust=_refused("NotFastForward", commit, "it does not follow what is trusted"))
        found = _signer(policy, examined) if (late := _misdated(commit, latest, now)) is None else late
        if isinstance(found, Trust):
            return Judgement(trust=found)
        steps.append(Step(commit=commit, signer=found.name, may_review=found.may_review))
        base, latest = commit.id, max(latest, commit.committed_at)
    return Judgement(trust=_SIGNED, steps=tuple(steps), latest=latest)


def attributed(policy: TrustPolicy, examined: Examined) -> Step:
    """Give a step of a way that was taken before: with its signer, if one vouches for it by the rules of today."""
    found = _signer(policy, examined)
    if isinstance(found, Trust):
        return Step(commit=examined.commit)
    return Step(commit=examined.commit, signer=found.name, may_review=found.may_review)


def reviewer(policy: TrustPolicy, signature: Signature, paths: Sequence[str], *, at: float) -> Signer | None:
    """Give who may vouch for the plan of a commit that touches these paths, and signed this; None: nobody.

    Units: seconds since the epoch.
    """
    if signature.state is not SignatureState.GOOD:
        return None
    for signer in policy.named(signature.key):
        if signer.may_review and signer.is_valid_at(at) and all(map(signer.may_touch, paths)):
            return signer
    return None


def refusal(reason: str, commit: str, problem: str) -> Trust:
    """Build the judgement that a commit is not taken."""
    return Trust(state=TrustState.REFUSED, reason=reason, message=f"commit {commit[:12]}: {problem}")


def _refused(reason: str, commit: Commit, problem: str) -> Trust:
    return refusal(reason, commit.id, problem)


def _misdated(commit: Commit, latest: float, now: float) -> Trust | None:
    """Refuse a date by which an expired key could go on signing."""
    if commit.committed_at < latest - SLACK_S:
        return _refused("SignatureExpired", commit, "it is dated more than a day before the commits that it follows")
    if commit.committed_at > now + SLACK_S:
        return _refused("SignatureExpired", commit, "it is dated more than a day after now; see to this host's clock")
    return None


def _signer(policy: TrustPolicy, examined: Examined) -> Signer | Trust:
    """Find who vouches for a commit; of several refusals of signers with the same key, give the last."""
    commit, signature = examined.commit, examined.signature
    if signature.state is not SignatureState.GOOD:
        return _refused(_REASONS[signature.state], commit, _told(signature))
    found: Signer | Trust = _unknown(commit, signature)
    for signer in policy.named(signature.key):
        found = _vouches(signer, examined)
        if isinstance(found, Signer):
            break
    return found


def _unknown(commit: Commit, signature: Signature) -> Trust:
    return _refused("UnknownSigner", commit, f"{_WORDS[SignatureState.UNKNOWN_KEY]}, {signature.key}")


def _told(signature: Signature) -> str:
    return ", ".join(filter(None, (_WORDS[signature.state], signature.key, signature.problem)))


def _vouches(signer: Signer, examined: Examined) -> Signer | Trust:
    commit = examined.commit
    if signer.merges_only and len(commit.parents) < 2:
        problem = f"{signer.name} vouches for merges only, and it has one parent"
        return _refused("SignerNotAllowed", commit, problem)
    if not signer.is_valid_at(commit.committed_at):
        return _refused("SignatureExpired", commit, f"{signer.name} may not sign at its time")
    forbidden = [path for path in examined.paths if not signer.may_touch(path)]
    if forbidden:
        more = f" and {len(forbidden) - 1} more" if len(forbidden) > 1 else ""
        problem = f"{signer.name} may not change {_shown(forbidden[0])}{more}"
        return _refused("SignerNotAllowed", commit, problem)
    return signer


def _shown(path: str) -> str:
    return path if path.isprintable() and len(path) <= _SHOWN_MAX else ascii(path[:_SHOWN_MAX])


_SHOWN_MAX = 200
