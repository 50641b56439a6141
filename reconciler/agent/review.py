"""What people reviewed, kept beside what is in force: once per revision worked out, looked up in every pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from reconciler.agent.desk import Desk
from reconciler.manifests.load import load_fleet
from reconciler.model.action import Plan
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import HostName, VeName
from reconciler.plan import review
from reconciler.plan.inputs import Inputs
from reconciler.plan.review import Ledger, Review, Step
from reconciler.plan.settled import Settled
from reconciler.state.approvals import Consent, noted
from reconciler.state.lastgood import LastGood

Between: TypeAlias = Callable[[Fleet, Fleet, HostName], Plan]
"""Plans what becomes of a host between two revisions; the same function in a review and here."""

Way: TypeAlias = Callable[[str], Sequence["Stride"]]
"""Gives the steps from the one after a revision to the newest; none, where they are not known. It takes its time."""

_NO_FLEET = Fleet(revision="")


class Word(Protocol):
    """That somebody vouched for a hash: ``kind`` is ``reviewed`` or ``approved``. Units: ``at`` epoch seconds."""

    @property
    def kind(self) -> str:
        """What was said."""
        ...

    @property
    def hash(self) -> str:
        """Of what it was said."""
        ...

    @property
    def by(self) -> str:
        """Who said it."""
        ...

    @property
    def at(self) -> float:
        """When it was said."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stride:
    """A step of the way to a revision. ``fleet`` None: it is not valid, and goes on with the next one."""

    revision: str
    fleet: Fleet | None


@dataclass(slots=True, kw_only=True)
class Reviewer:
    """Keeps the ledger of one host."""

    desk: Desk
    between: Between
    _head: Fleet | None = None
    _reviewed: Fleet | None = None
    _is_loaded: bool = False
    _base: tuple[str, Fleet | None] = ("", None)
    _withheld: frozenset[str] = frozenset()
    _settled: Settled = field(default_factory=Settled)
    _heard: Mapping[str, Sequence[Word]] | None = None

    def bind(self, inputs: Inputs) -> Inputs:
        """Bind the next plan to what people agreed to; what they said of all of it counts for each part.

        Raises: StateError, KernelError.
        """
        if not inputs.policy.require_reviewed:
            return inputs
        ledger, given = self._ledger(), inputs.consents
        if given:
            given = given.union(*(review.covered(ledger, one) for one in given))
            ledger = review.accepted(ledger, given)
        bound = Review(ledger=ledger, before=self._before(), withheld=self._withheld, settled=self._settled)
        return replace(inputs, review=bound, consents=given)

    def held(self, name: VeName) -> VeSpec | None:
        """Give what a VE is held to that was withheld when everything was looked at last.

        Raises: StateError, KernelError.
        """
        before = self._before() if name in self._withheld else None
        return None if before is None else before.ves.get(name)

    async def follow(self, before: Fleet, fleet: Fleet, way: Way) -> None:
        """Take in the revision that is, or comes into force. ``before``: the one until now; ``way``: how it came about.

        Raises: StateError, KernelError, NoSpaceError; CommandError and the like, if the way cannot be read.
        """
        if self._ledger().head != fleet.revision:
            ledger = await asyncio.to_thread(self._taken, before, fleet, way)
            self._heard = None
            self.desk.reviews.put(ledger)
        if self._head is not fleet:
            self._head = fleet
            self._hold()

    def _before(self) -> Fleet | None:
        """Give each VE and network as it was reviewed last."""
        if not self._is_loaded:
            self._reviewed, self._is_loaded = _loaded(self.desk.reviews.reviewed), True
        return self._reviewed

    def _hold(self) -> None:
        """Let what everything is held to follow what was reviewed by now."""
        ledger, head = self._ledger(), self._head
        if head is None or ledger.head != head.revision or not ledger.base:
            return  # nothing is known of what was reviewed on a host's first day
        if not ledger.open:
            self._reviewed, self._is_loaded = head, True
            self._keep(self.desk.reviews.reviewed, head.revision)
        elif (before := self._before()) is not None:
            waiting = review.in_the_way(head, before, ledger.open)
            self._reviewed = review.held_to(head, before, ledger.open | waiting.keys())

    def _taken(self, before: Fleet, fleet: Fleet, way: Way) -> Ledger:
        ledger = self._ledger()
        base = self._base_fleet(ledger)
        if ledger.source != self.desk.source or not ledger.head:
            return Ledger(source=self.desk.source, head=fleet.revision)
        if before.revision != ledger.head:  # the agent was not there when it came: the way is gone once more
            ledger, before = replace(ledger, steps=()), base or _NO_FLEET
        if not before.revision:
            return review.taken(ledger, (), Step(revision=fleet.revision, hash=review.NOTHING.hash))
        steps = self._steps(before, fleet, way(before.revision))
        is_one = len(steps) == 1 and before.revision == ledger.base
        if base is None:  # on a host's first day there is nothing that all of it could be compared with
            return review.taken(ledger, steps, Step(revision=fleet.revision, hash=review.NOTHING.hash))
        return review.taken(ledger, steps, steps[0] if is_one else self._step(base, fleet))

    def _steps(self, since: Fleet, fleet: Fleet, way: Sequence[Stride]) -> list[Step]:
        steps = []
        stops = [stride.fleet for stride in way if stride.fleet is not None and stride.revision != fleet.revision]
        for stop in (*stops, fleet):
            steps.append(self._step(since, stop))
            since = stop
        return steps

    def _step(self, since: Fleet, to: Fleet) -> Step:
        return review.step_of(self.between(since, to, self.desk.instance.host), to.revision)

    def heed(self, words: Mapping[str, Sequence[Word]]) -> bool:
        """Take in what people vouched for, by revision; tells whether that allows something more.

        What was said of one revision counts for the step that leads to it, and for all up to it as one.
        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        if words is self._heard:
            return False
        now, before = self.desk.clock.now(), self._ledger()
        ledger = before
        for revision, said in words.items():
            ledger = review.accepted(ledger, {word.hash for word in said}, at=revision)
        approved = [word for said in words.values() for word in said if word.kind == "approved"]
        new = [self._consent(ledger, noted(word.hash, by=word.by, at=word.at, now=now), now) for word in approved]
        self._put(ledger)
        self._heard = words
        return any(new) or ledger != before

    def _consent(self, ledger: Ledger, consent: Consent, now: float) -> bool:
        covered = review.covered(ledger, consent.hash)
        return self.desk.approvals.note([consent.hash, *covered], consent, now=now)

    def note(self, plan: Plan, consents: Collection[str], *, is_whole: bool) -> None:
        """Take in a plan that is about to be carried out: what was approved of it, and what is left to do.

        ``consents``: those that it was made with.
        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        is_required, now = self.desk.policy.known().require_reviewed, self.desk.clock.now()
        if not (consents or is_required):
            return
        given = {consent.hash: consent for consent in self.desk.approvals.in_force(now)}
        if plan.action_hash in given:  # what is done of it makes another plan of the rest
            self.desk.approvals.note(plan.ve_hashes.values(), given[plan.action_hash], now=now)
        if not is_required:
            return
        ledger = self._agreed(plan, given)
        if is_whole and ledger.head == plan.revision:
            self._withheld = review.withheld(plan)
            ledger = self._closed(ledger, plan)
        self._put(ledger)

    def _agreed(self, plan: Plan, given: Mapping[str, Consent]) -> Ledger:
        ledger = self._ledger()
        for hash_, consent in given.items():
            if covered := review.covered(ledger, hash_):
                self.desk.approvals.note(covered, consent, now=self.desk.clock.now())
        ledger = review.accepted(ledger, given.keys())
        names = _approved(plan, given.keys())
        deeds = review.deeds_of((*plan.actions, *plan.withheld))
        return review.settled(ledger, {name: found for name, found in deeds.items() if name in names})

    def _closed(self, ledger: Ledger, plan: Plan) -> Ledger:
        if any(fact.ve is None for fact in plan.unknown):
            return ledger
        done = review.closed(ledger, review.unfinished(plan))
        is_moved = done.base != ledger.base
        return ledger if is_moved and not self._keep(self.desk.reviews.done, done.base) else done

    def _keep(self, place: LastGood, revision: str) -> bool:
        """Keep the manifests of the revision in force, if they are the ones; say whether they are kept now."""
        known = place.read()
        if known is not None and known.revision == revision:
            return True
        kept = self.desk.last_good.read()
        if kept is None or kept.revision != revision:
            return False
        place.keep(kept)
        return True

    def _put(self, ledger: Ledger) -> None:
        is_other = ledger.open != self._ledger().open or ledger.base != self._ledger().base
        self.desk.reviews.put(ledger)
        if is_other:
            self._hold()

    def _ledger(self) -> Ledger:
        return self.desk.reviews.read()

    def _base_fleet(self, ledger: Ledger) -> Fleet | None:
        if self._base[0] != ledger.base and self._head is not None and self._head.revision == ledger.base:
            self._base = ledger.base, self._head
        if self._base[0] != ledger.base:
            found = _loaded(self.desk.reviews.done) if ledger.base else None
            self._base = ledger.base, found if found is not None and found.revision == ledger.base else None
        return self._base[1]


def _loaded(place: LastGood) -> Fleet | None:
    kept = place.read()
    return None if kept is None else load_fleet(kept.files, revision=kept.revision).fleet


def _approved(plan: Plan, given: Collection[str]) -> frozenset[str]:
    if plan.action_hash in given:
        return frozenset(plan.ve_hashes)
    return frozenset(name for name, hash_ in plan.ve_hashes.items() if hash_ in given)
