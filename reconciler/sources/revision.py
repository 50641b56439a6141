"""Which revision is in force: the newest one that was seen whole, was left alone for a moment, and is valid."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from reconciler.errors import VectlError
from reconciler.manifests import load
from reconciler.model.commit import TrustState, short
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.fleet import Finding, Fleet
from reconciler.model.identity import VeName
from reconciler.sources.kept import KeptOnDisk
from reconciler.sources.settle import Absences, Stillness
from reconciler.sources.snapshot import Snapshot, digest_of

_TRUSTED = {TrustState.TRUSTED: Status.TRUE, TrustState.REFUSED: Status.FALSE, TrustState.UNKNOWN: Status.UNKNOWN}

NOT_READ = Snapshot(reason="SourceNotRead", problem="the source was not looked at yet")
"""What is known of a source before anybody looked at it."""


class Revisions:
    """Takes in the looks at one source, and says what is in force, what is wrong with the newest, and what is gone.

    ``keep`` is given every snapshot that comes into force, to be restored after the agent's next start. If it raises
    one of our errors, the revision is in force all the same: it may be the one that frees the disk. The condition
    `Valid` tells of it, and the next look tries again. ``parsed``: what was parsed before the last start.

    Units: seconds; times are those of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        settle_s: float,
        prune_delay_s: float,
        keep: Callable[[Snapshot], None],
        parsed: KeptOnDisk | None = None,
    ) -> None:
        self._settle_s = settle_s
        self._prune_delay_s = prune_delay_s
        self._keep = keep
        self._parsed, self._cache = parsed, load.ParseCache(kept=parsed)
        self._stillness = Stillness()
        self._absences = Absences()
        self._newest = NOT_READ
        self._judged = ("", "")
        self._prepared: tuple[tuple[str, str], load.Loaded] | None = None
        self._unkept: Snapshot | None = None
        self._keep_problem = ""
        self.in_force: Fleet | None = None
        self.findings: tuple[Finding, ...] = ()

    def restore(self, revision: str, files: Mapping[str, bytes]) -> None:
        """Put back in force what was kept before a start; if it is no longer valid, nothing is in force."""
        self._judge(Snapshot(files=files, revision=revision, digest=digest_of(files)))

    def prepare(self, snapshot: Snapshot) -> None:
        """Parse a snapshot that will be taken: where that takes long, in a thread, while none is taken."""
        if snapshot.complete and _key(snapshot) != self._judged:
            self._prepared = _key(snapshot), self._load(snapshot)

    def _load(self, snapshot: Snapshot) -> load.Loaded:
        loaded = load.load_fleet(snapshot.files, revision=snapshot.revision, cache=self._cache)
        if self._parsed is not None:
            self._parsed.save(self._cache.contents)
        return loaded

    def take(self, snapshot: Snapshot, *, known: Collection[VeName], now: float) -> bool:
        """Take in a look; tells whether another revision is in force. ``known``: see `Absences.looked`."""
        self._newest = snapshot
        self._stillness = self._stillness.seen((snapshot.digest, snapshot.root, snapshot.reason), now)
        if not snapshot.complete:
            self._absences = self._absences.blind()
            return False
        if self._stillness.left(now, self._settle_s) > 0:
            return False
        changed = _key(snapshot) != self._judged and self._judge(snapshot)
        self._look_for_absences(known, now)
        if changed:
            self._unkept = snapshot
        self._keep_newest()
        return changed

    def removed(self) -> frozenset[VeName]:
        """Give the VEs that are in no manifest, and have not been for so long that they are to be removed.

        Empty, while the newest look shows something that is not in force: it may bring them back.
        """
        return self._absences.removed(self._prune_delay_s) if self._is_judged() else frozenset()

    def look_again_in(self, now: float) -> float | None:
        """Give the time after which a look may change something by itself; None, if only a new snapshot can."""
        waits = [self._absences.left(now, self._prune_delay_s)]
        if self._newest.complete and not self._is_judged():
            waits.append(self._stillness.left(now, self._settle_s))
        return min((wait for wait in waits if wait is not None), default=None)

    def conditions(self) -> tuple[Condition, ...]:
        """Give the source's conditions: whether it was read, may be trusted, and is valid."""
        return (self._fetched(), self._verified(), self._valid())

    def _is_judged(self) -> bool:
        return self._newest.complete and _key(self._newest) == self._judged

    def _judge(self, snapshot: Snapshot) -> bool:
        prepared, self._prepared = self._prepared, None
        loaded = prepared[1] if prepared is not None and prepared[0] == _key(snapshot) else self._load(snapshot)
        self._judged, self.findings = _key(snapshot), tuple(loaded.findings)
        if loaded.fleet is None:
            return False
        before, self.in_force = self.in_force, loaded.fleet
        return before is None or before.revision != loaded.fleet.revision

    def _look_for_absences(self, known: Collection[VeName], now: float) -> None:
        if self.findings or self.in_force is None:
            self._absences = self._absences.blind()
        else:
            self._absences = self._absences.looked(self.in_force.ves.keys(), known, now)

    def _keep_newest(self) -> None:
        if self._unkept is None:
            return
        try:
            self._keep(self._unkept)
        except VectlError as err:
            self._keep_problem = f"not kept for the next start: {err}"
        else:
            self._unkept, self._keep_problem = None, ""

    def _fetched(self) -> Condition:
        newest = self._newest
        failed = Status.UNKNOWN if newest is NOT_READ else Status.FALSE
        return Condition(
            type=ConditionType.FETCHED,
            status=failed if newest.reason else Status.TRUE,
            reason=newest.reason or "Read",
            message=newest.problem or _skipped_message(newest.skipped),
            revision=newest.revision,
        )

    def _verified(self) -> Condition:
        trust = self._newest.trust
        return Condition(
            type=ConditionType.VERIFIED,
            status=_TRUSTED[trust.state],
            reason=trust.reason,
            message=trust.message,
            revision=self._newest.revision,
        )

    def _valid(self) -> Condition:
        in_force = self.in_force.revision if self.in_force else ""
        if self.findings:
            return _valid(Status.FALSE, "Invalid", f"{_told(self.findings)}; {_stays(in_force)}", in_force)
        if not self._is_judged():
            word = "NotRead" if not self._newest.complete else "Settling"
            return _valid(Status.UNKNOWN, word, _stays(in_force), in_force)
        return _valid(Status.TRUE, "Valid", self._keep_problem, in_force)


def _key(snapshot: Snapshot) -> tuple[str, str]:
    """Tell snapshots apart: two commits may have the same content, and the newer one is what people look for."""
    return snapshot.digest, snapshot.revision


def _valid(status: Status, reason: str, message: str, revision: str) -> Condition:
    return Condition(type=ConditionType.VALID, status=status, reason=reason, message=message, revision=revision)


def _told(findings: tuple[Finding, ...]) -> str:
    first = findings[0]
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"{first.place.file}:{first.place.line}:{first.place.column}: {first.message}{more}"


def _stays(in_force: str) -> str:
    return f"revision {short(in_force)} stays in force" if in_force else "no revision is in force"


def _skipped_message(skipped: tuple[str, ...]) -> str:
    return f"not followed: {', '.join(skipped[:3])}{' ...' if len(skipped) > 3 else ''}" if skipped else ""
