"""The target of a move: answers what its source asks, and carries out what the table of the handover says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import assert_never

from reconciler.agent.moving import looking
from reconciler.agent.moving.leaving import is_live, serves
from reconciler.agent.moving.looking import Reading
from reconciler.agent.moving.means import BringUp, Means
from reconciler.agent.moving.wire import Ask, Question, Told
from reconciler.errors import BusyError, CoordinatorAwayError, OwnershipError, StateError, VectlError
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.identity import HostName, Uid
from reconciler.model.moving import Passage, TargetPhase
from reconciler.model.observation import Scope
from reconciler.model.ownership import Move
from reconciler.model.placement import ClearMove, OpenRuntime, Parcel, PlaceArrival
from reconciler.model.power import DeleteRuntime, DiscardMemory
from reconciler.model.volume import PurgeTrash, Record, TrashVe
from reconciler.plan.handover import Answer, Arriving, Owner, Standing, TargetFacts, TargetStep, answer_of, target_step


class Target:
    """Takes VEs in. One thing at a time is done to one VE, whoever wants it."""

    def __init__(self, means: Means, bring_up: BringUp, *, woken: Callable[[Uid], None]) -> None:
        """``woken``: told of a VE for which there may be a next step."""
        self._means, self._bring_up, self._woken = means, bring_up, woken
        self._failed: dict[Uid, str] = {}
        self._locks: dict[Uid, asyncio.Lock] = {}

    async def answer(self, source: HostName, question: Question) -> Told:
        """Do what the source of a move asks, and say how far it is.

        Raises: VectlError; asking again does no harm.
        """
        if question.move.source != source or question.move.target != self._means.host:
            raise OwnershipError(f"move {question.move.name}: it is not one from {source} to {self._means.host}")
        async with self._lock(question.move.uid):
            passage = await self._passage(question)
            if passage is None:
                return Told(answer=Answer.REFUSED, why="nothing is known of this move")
            if passage.phase is TargetPhase.RECEIVING:
                await self._prepare(question, passage)
            self._woken(passage.uid)
            return await self._told(passage)

    async def take(self, source: HostName, move: Move, parcel: Parcel, chunks: AsyncIterator[bytes]) -> Told:
        """Take in a parcel.

        Raises: OwnershipError, if nothing of this move is expected; as `Carrier.receive`.
        """
        async with self._lock(move.uid):
            passage = self._known(move)
            if passage is None or passage.phase is not TargetPhase.RECEIVING or move.source != source:
                raise OwnershipError(f"take {parcel} of {move.name}: nothing of this move is expected")
            if str(parcel) not in await self._means.carrier.received(move.uid, move.id):
                await self._means.carrier.receive(move.uid, move.id, parcel, chunks)
            return await self._told(passage)

    async def step(self, uid: Uid) -> bool:
        """Do the next step of a move; give whether there is one after it at once.

        Raises: VectlError, and then it is tried again.
        """
        async with self._lock(uid):
            passage = self._means.journal.read(uid)
            if passage is None or not isinstance(passage.phase, TargetPhase):
                return False
            reading = await looking.read(self._means.owners, passage.move)
            step = target_step(await self._facts(passage, passage.phase, reading))
            await self._carry_out(step, passage, reading)
            return step not in (TargetStep.WAIT, TargetStep.READ, TargetStep.CLEAR, TargetStep.FORGET)

    def _lock(self, uid: Uid) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _known(self, move: Move) -> Passage | None:
        passage = self._means.journal.read(move.uid)
        return passage if passage is not None and passage.move.id == move.id else None

    async def _passage(self, question: Question) -> Passage | None:
        """Give what is known of a move; one that is offered, and stands, is taken up."""
        move = question.move
        if (passage := self._known(move)) is not None or question.ask is not Ask.OFFER:
            return passage
        if self._means.journal.read(move.uid) is not None:
            raise BusyError(f"take {move.name}: an earlier move of it has not ended here yet")
        await self._check(move)
        now = self._means.clock.now()
        passage = Passage(move=move, phase=TargetPhase.RECEIVING, since=now, was_running=question.was_running)
        self._failed.pop(move.uid, None)
        self._means.journal.write(passage)
        return passage

    async def _check(self, move: Move) -> None:
        """Refuse a move that does not stand, as of an offer that was long on its way, and a VE that is here."""
        reading = await looking.read(self._means.owners, move)
        if (reading.owner, reading.move) != (Owner.SOURCE, Standing.STANDS):
            raise OwnershipError(f"take {move.name}: the coordinator knows of no such move")
        if await looking.look(self._means.observer, move.uid) is not None:
            raise BusyError(f"take {move.name}: there is one here with its uid")

    async def _told(self, passage: Passage) -> Told:
        assert isinstance(passage.phase, TargetPhase)
        has = await self._means.carrier.received(passage.uid, passage.move.id)
        facts = await self._facts(passage, passage.phase, looking.NOTHING_READ)
        return Told(answer=answer_of(facts), has=has, why=self._failed.get(passage.uid, ""))

    async def _facts(self, passage: Passage, phase: TargetPhase, reading: Reading) -> TargetFacts:
        return TargetFacts(
            phase=phase,
            here=looking.arriving(await looking.look(self._means.observer, passage.uid)),
            owner=reading.owner,
            move=reading.move,
            is_live=is_live(passage),
            has_failed=passage.uid in self._failed,
        )

    async def _prepare(self, question: Question, passage: Passage) -> None:
        """Do what may be undone: place what arrived, and make its processes, closed."""
        if question.ask is Ask.PLACE and question.record is not None:
            await self._place(passage, question.record)
        elif question.ask is Ask.RESTORE:
            await self._restore(passage)

    async def _place(self, passage: Passage, record: Record) -> None:
        if record.uid != passage.uid:
            raise StateError(f"place {passage.move.name}: expected its record, got that of {record.uid}")
        owned = (await looking.read(self._means.owners, passage.move)).owned
        if owned is not None and owned.id_base != record.id_base:
            raise StateError(f"place {record.name}: expected the ids from {owned.id_base} on, got {record.id_base}")
        await self._perform(passage, PlaceArrival(record=record, move=passage.move.id))

    async def _restore(self, passage: Passage) -> None:
        """Make the processes; that they cannot be made is remembered, and told."""
        here = looking.arriving(await looking.look(self._means.observer, passage.uid))
        if here is not Arriving.REMEMBERED:
            return
        try:
            await self._perform(passage, DeleteRuntime(uid=passage.uid))
            await self._perform(passage, *(await self._bring_up(passage.uid)).closed)
        except VectlError as err:
            self._failed[passage.uid] = str(err)

    async def _perform(self, passage: Passage, *effects: Effect) -> None:
        for effect in effects:
            await self._means.effects.perform(replace(effect, serves=serves(passage)))

    async def _carry_out(self, step: TargetStep, passage: Passage, reading: Reading) -> None:
        match step:
            case TargetStep.WAIT | TargetStep.READ:
                return
            case TargetStep.RESTORE:
                await self._restore(passage)
            case TargetStep.OPEN:
                await self._open(passage)
            case TargetStep.SETTLE:
                self._write(passage, TargetPhase.DONE)
                self._means.released(passage.uid)
            case TargetStep.HAND_BACK:
                await self._hand_back(passage, reading)
            case TargetStep.DISCARD:
                await self._discard(passage)
            case TargetStep.CLEAR:
                await self._perform(passage, ClearMove(uid=passage.uid, move=passage.move.id))
                self._forget(passage)
            case TargetStep.FORGET:
                self._forget(passage)
            case _:
                assert_never(step)

    def _write(self, passage: Passage, phase: TargetPhase) -> None:
        self._means.journal.write(replace(passage, phase=phase))

    def _forget(self, passage: Passage) -> None:
        self._means.journal.forget(passage.uid)
        self._failed.pop(passage.uid, None)
        self._means.released(passage.uid)

    async def _open(self, passage: Passage) -> None:
        """Let a VE run; one whose processes did not come along is started by the planner, as any other."""
        opened = (await self._bring_up(passage.uid)).opened if is_live(passage) else ()
        self._write(passage, TargetPhase.OPENING)
        for effect in opened:
            try:
                await self._perform(passage, effect)
            except VectlError:
                # It is this host's now, and runs better than it stands still; the rest the planner puts right.
                if isinstance(effect, OpenRuntime):
                    raise

    async def _hand_back(self, passage: Passage, reading: Reading) -> None:
        if reading.owned is None:
            raise CoordinatorAwayError(f"hand back {passage.move.name}: it is not known who owns it")
        self._write(passage, TargetPhase.REFUSING)
        await self._means.owners.hand_back(reading.owned, passage.move)

    async def _discard(self, passage: Passage) -> None:
        """Delete all of a VE that does not come."""
        uid = passage.uid
        self._write(passage, TargetPhase.DISCARDING)
        if await looking.look(self._means.observer, uid) is not None:
            await self._perform(
                passage, DeleteRuntime(uid=uid), DiscardMemory(uid=uid), RemoveCgroup(uid=uid), TrashVe(uid=uid)
            )
        for entry in await self._trashed(uid, since=passage.since):
            await self._perform(passage, PurgeTrash(trash_id=entry))
        await self._perform(passage, ClearMove(uid=uid, move=passage.move.id))
        self._forget(passage)

    async def _trashed(self, uid: Uid, *, since: float) -> list[str]:
        """Name what lies of a VE in the trash since its move began."""
        observed = await self._means.observer.observe(Scope(uids=frozenset(), use=False), frozenset())
        if isinstance(observed.trash, Unknown):
            raise BusyError(f"look for VE {uid} in the trash: {observed.trash.reason}")
        return [entry.id for entry in observed.trash if entry.record.uid == uid and entry.trashed_at >= since]
