"""The source of a move: carries out, step by step, what the table of the handover says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reconciler.agent.moving import leaving, looking, wire
from reconciler.agent.moving.leaving import is_live, serves
from reconciler.agent.moving.looking import Reading, Seen
from reconciler.agent.moving.means import Means
from reconciler.agent.moving.wire import Ask
from reconciler.errors import CoordinatorAwayError, OwnershipError, PeerError, StateError, VectlError
from reconciler.model.identity import HostName, Uid
from reconciler.model.moving import Passage, SourcePhase
from reconciler.model.ownership import Ownership, Strategy
from reconciler.model.placement import ClearMove, CutParcel, Parcel, ResumeHeld
from reconciler.model.volume import Record
from reconciler.plan.handover import Answer, Leaving, SourceFacts, SourceStep, source_step

ROUNDS = 2
"""How often the data of a VE that runs are copied before it stands still: the second time it is what changed."""

STANDSTILL_S = 60.0
"""For how long a VE stands still before it is let go on again where that needs nobody's word. Units: seconds."""

_ASKED = {SourceStep.RESTORE: Ask.RESTORE, SourceStep.ASK: Ask.STAGE, SourceStep.GO: Ask.GO}
_DECISIONS = frozenset(
    {SourceStep.HAND_OVER, SourceStep.ABANDON, SourceStep.FINISH, SourceStep.COMMIT, SourceStep.RETURN}
)

_WAITING = frozenset({*_ASKED, SourceStep.SHIP, SourceStep.FINISH, SourceStep.CLEAR})
"""After these there is something to do at once only where the target said something new."""


@dataclass(slots=True)
class _Trial:
    """What is known of a move only as long as this process lives. Units: ``since`` of the clock, None: it goes on."""

    answer: Answer = Answer.UNKNOWN
    rounds: int = 0
    since: float | None = None
    why: str = ""


class Source:
    """Moves VEs away from this host. One task at a time works on one VE."""

    def __init__(self, means: Means, *, unwanted: Callable[[Passage], str]) -> None:
        """``unwanted``: says why nobody wants a move any more, or "" while the manifests do."""
        self._means, self._unwanted = means, unwanted
        self._trials: dict[Uid, _Trial] = {}

    async def begin(self, uid: Uid, *, target: HostName, strategy: Strategy) -> None:
        """Begin to move a VE; on its way already is success.

        Raises: OwnershipError, if it is another's, or on a move that this host knows nothing of; CoordinatorAwayError;
        OutcomeUnknownError; StateError; KernelError.
        """
        means = self._means
        if means.journal.read(uid) is not None:
            return
        owned, seen = await means.owners.owner(uid), await looking.look(means.observer, uid)
        if owned is None or seen is None:
            raise OwnershipError(f"move VE {uid}: it is not on this host, or nobody owns it")
        move = await means.owners.begin(owned, target=target, strategy=strategy)
        runs = looking.leaving(seen) is Leaving.RUNNING
        now = means.clock.now()
        means.journal.write(Passage(move=move, phase=SourcePhase.PREPARING, since=now, was_running=runs))

    async def adopt(self) -> None:
        """Take back the moves of this host that were begun and never written down.

        Raises: CoordinatorAwayError; OwnershipError; KernelError.
        """
        means, why = self._means, "it was begun, and its host forgot of it"
        for uid, move in (await means.owners.moves()).items():
            owned = await means.owners.owner(uid)
            is_here = owned is not None and owned.host == move.source == means.host
            if is_here and means.journal.read(uid) is None:
                now = means.clock.now()
                means.journal.write(Passage(move=move, phase=SourcePhase.RETURNING, since=now, why=why))

    async def step(self, uid: Uid) -> bool:
        """Do the next step of a move; give whether there is one after it.

        Raises: VectlError, and then it is tried again.
        """
        passage = self._means.journal.read(uid)
        if passage is None or not isinstance(passage.phase, SourcePhase):
            return False
        seen, reading = await self._look(passage)
        step = source_step(self._facts(passage, passage.phase, seen, reading))
        trial = self._trial(uid)
        answer = trial.answer
        try:
            await self._carry_out(step, passage, seen, reading)
        except VectlError as err:
            trial.why = str(err)
            raise
        return step not in _WAITING or trial.answer is not answer

    async def _look(self, passage: Passage) -> tuple[Seen | None, Reading]:
        reading = await looking.read(self._means.owners, passage.move)
        return await looking.look(self._means.observer, passage.uid), reading

    def _facts(self, passage: Passage, phase: SourcePhase, seen: Seen | None, reading: Reading) -> SourceFacts:
        trial, here = self._trial(passage.uid), looking.leaving(seen)
        self._time(passage, trial)
        rounds = ROUNDS if _copies_ahead(passage, here) else 1
        return SourceFacts(
            phase=phase,
            here=here,
            owner=reading.owner,
            move=reading.move,
            answer=trial.answer,
            is_live=is_live(passage),
            is_copied=trial.rounds >= rounds,
            gives_up=bool(self._why_not(passage, trial)),
        )

    def _time(self, passage: Passage, trial: _Trial) -> None:
        if passage.phase not in (SourcePhase.HOLDING, SourcePhase.COMMITTING):
            trial.since = None
        elif trial.since is None:
            trial.since = self._means.clock.monotonic()

    def _why_not(self, passage: Passage, trial: _Trial) -> str:
        """Say why a move is given up, or ""."""
        if why := self._unwanted(passage):
            return why
        if trial.since is None or self._means.clock.monotonic() - trial.since < STANDSTILL_S:
            return ""
        return f"it stood still for {STANDSTILL_S:.0f} s: {trial.why or 'the target is not ready'}"

    def _trial(self, uid: Uid) -> _Trial:
        return self._trials.setdefault(uid, _Trial())

    async def _carry_out(self, step: SourceStep, passage: Passage, seen: Seen | None, reading: Reading) -> None:
        asked = _ASKED.get(step)
        if asked is not None:
            await self._ask(asked, passage)
        elif step in _DECISIONS:
            await self._decide(step, passage, reading)
        else:
            await self._do(step, passage, seen)

    async def _do(self, step: SourceStep, passage: Passage, seen: Seen | None) -> None:
        """Carry out what is done to the VE, and what is sent of it."""
        match step:
            case SourceStep.COPY:
                await self._copy(passage, seen)
            case SourceStep.HOLD:
                await self._hold(passage, seen)
            case SourceStep.SHIP:
                await self._ship(passage)
            case SourceStep.THAW:
                await self._means.effects.perform(ResumeHeld(uid=passage.uid, move=passage.move.id))
                self._means.released(passage.uid)
            case SourceStep.LET_GO:
                await self._let_go(passage, seen)
            case SourceStep.CLEAR:
                await self._clear(passage)
            case _:
                raise CoordinatorAwayError(f"move {passage.move.name}: it is not known who owns it")

    async def _decide(self, step: SourceStep, passage: Passage, reading: Reading) -> None:
        """Carry out what the coordinator is told, or what is only written down."""
        match step:
            case SourceStep.HAND_OVER:
                await self._hand_over(passage, _known(reading, passage))
            case SourceStep.ABANDON:
                await self._means.owners.abandon(_known(reading, passage), passage.move)
            case SourceStep.FINISH:
                await self._means.owners.end(passage.move)
                await self._forget(passage)
            case SourceStep.COMMIT:
                self._write(passage, SourcePhase.COMMITTED)
            case _:
                self._write(replace(passage, why=self._reason(passage)), SourcePhase.RETURNING)

    def _reason(self, passage: Passage) -> str:
        trial = self._trial(passage.uid)
        return self._why_not(passage, trial) or trial.why or "the move was abandoned"

    def _write(self, passage: Passage, phase: SourcePhase) -> None:
        self._means.journal.write(replace(passage, phase=phase))

    async def _copy(self, passage: Passage, seen: Seen | None) -> None:
        """Send what there is while the VE goes on."""
        trial = self._trial(passage.uid)
        if trial.rounds == 0:
            await self._ask(Ask.OFFER, passage)
        if _copies_ahead(passage, looking.leaving(seen)):
            passage = await self._cut(passage)
        await self._send(passage)
        trial.rounds += 1

    async def _cut(self, passage: Passage) -> Passage:
        """Cut the next parcel of the VE's data; its number is never used twice."""
        cutting = replace(passage, cut=passage.cut + 1)
        self._means.journal.write(cutting)
        await self._means.effects.perform(
            CutParcel(uid=passage.uid, move=passage.move.id, number=passage.cut, serves=serves(passage))
        )
        return cutting

    async def _hold(self, passage: Passage, seen: Seen | None) -> None:
        holding = replace(passage, phase=SourcePhase.HOLDING, cut=passage.cut + 1)
        self._means.journal.write(holding)
        self._trial(passage.uid).answer = Answer.UNKNOWN
        if looking.leaving(seen) is not Leaving.RUNNING or seen is None:
            return
        await leaving.hold(self._means.effects, passage, seen, number=passage.cut)

    async def _ship(self, passage: Passage) -> None:
        """Send the rest of a VE that stands still, and have it placed."""
        cargo = await self._means.carrier.cargo(passage.uid)
        if not is_live(passage):
            number = passage.cut - 1
            await self._means.effects.perform(
                CutParcel(uid=passage.uid, move=passage.move.id, number=number, serves=serves(passage))
            )
        await self._send(passage)
        await self._ask(Ask.PLACE, passage, cargo.record)

    async def _send(self, passage: Passage) -> None:
        """Send all parcels that the target has not."""
        told = await self._ask(Ask.OFFER, passage)
        for parcel in await self._means.carrier.parcels(passage.uid, passage.move.id):
            if told.answer is Answer.RECEIVING and str(parcel) not in told.has:
                await self._send_one(passage, parcel)

    async def _send_one(self, passage: Passage, parcel: Parcel) -> None:
        chunks = self._means.carrier.send(passage.uid, passage.move.id, parcel)
        await self._means.peers.ship(passage.move.target, wire.header(passage, parcel), chunks)

    async def _ask(self, ask: Ask, passage: Passage, record: Record | None = None) -> wire.Told:
        trial = self._trial(passage.uid)
        trial.answer = Answer.UNKNOWN
        try:
            said = await self._means.peers.ask(passage.move.target, wire.question(ask, passage, record))
            told = wire.told_from(said)
        except StateError as err:
            raise PeerError(f"ask {passage.move.target} about {passage.move.name}: {err}") from err
        trial.answer = told.answer
        if told.why:
            trial.why = f"{passage.move.target} says: {told.why}"
        return told

    async def _hand_over(self, passage: Passage, owned: Ownership) -> None:
        self._write(passage, SourcePhase.COMMITTING)
        try:
            await self._means.owners.hand_over(owned, passage.move)
        except CoordinatorAwayError:
            # Surely not done: where it was never tried before either, the VE need not wait for the coordinator.
            if passage.phase is SourcePhase.HOLDING:
                self._means.journal.write(passage)
            raise
        self._write(passage, SourcePhase.COMMITTED)

    async def _let_go(self, passage: Passage, seen: Seen | None) -> None:
        """Put the copy of this host in the trash."""
        self._write(passage, SourcePhase.ENDING)
        if seen is not None:
            await leaving.let_go(self._means.effects, passage, seen)

    async def _clear(self, passage: Passage) -> None:
        try:
            await self._means.peers.ask(passage.move.target, wire.question(Ask.DISCARD, passage))
        except VectlError as err:  # it finds out by itself
            self._trial(passage.uid).why = str(err)
        await self._forget(passage)

    async def _forget(self, passage: Passage) -> None:
        await self._means.effects.perform(ClearMove(uid=passage.uid, move=passage.move.id, serves=serves(passage)))
        self._means.journal.forget(passage.uid)
        self._trials.pop(passage.uid, None)
        self._means.released(passage.uid)


def _copies_ahead(passage: Passage, here: Leaving) -> bool:
    """Say whether a VE's data are copied while it runs."""
    return passage.move.strategy is not Strategy.RESTART and here is Leaving.RUNNING


def _known(reading: Reading, passage: Passage) -> Ownership:
    if reading.owned is None:
        raise CoordinatorAwayError(f"move {passage.move.name}: it is not known who owns it")
    return reading.owned
