"""The agent's desk: everything of the instance that lies on disk, opened once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from reconciler.agent.recording import Recorder
from reconciler.errors import VectlError
from reconciler.model.action import Action, Impact, Operation
from reconciler.model.condition import Event
from reconciler.model.facts import Unknown
from reconciler.model.identity import VeName
from reconciler.model.instance import Instance
from reconciler.model.observation import HostObservation
from reconciler.model.seam import Clock, Coordinator
from reconciler.model.volume import Record, WriteRecord
from reconciler.plan.actions import timed_as
from reconciler.plan.power import resumes
from reconciler.plan.words import value_text
from reconciler.state import layout
from reconciler.state.approvals import Approvals
from reconciler.state.conditions import Conditions
from reconciler.state.events import EventLog
from reconciler.state.history import History
from reconciler.state.host_risks import HostRisks
from reconciler.state.inventory import Entry, Inventory, Phase
from reconciler.state.journal import Intent, Journal
from reconciler.state.lastgood import LastGood
from reconciler.state.networks import AppliedNetworks
from reconciler.state.pause import Pauses
from reconciler.state.policy import PolicyFile
from reconciler.state.removals import Removal, Removals
from reconciler.state.reviews import Reviews


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The stores of one instance. ``source``: the name under which its VEs are recorded."""

    instance: Instance
    source: str
    clock: Clock
    coordinator: Coordinator
    inventory: Inventory
    journal: Journal
    history: History
    approvals: Approvals
    pauses: Pauses
    removals: Removals
    conditions: Conditions
    events: EventLog
    recorder: Recorder
    last_good: LastGood
    networks: AppliedNetworks
    policy: PolicyFile
    reviews: Reviews
    risks: HostRisks

    def recover(self) -> list[str]:
        """Close and name the actions that an earlier process began and did not end: every VE is looked at anew anyway.

        Raises: StateError, KernelError.
        """
        unfinished = self.journal.unfinished()
        for intent in unfinished:
            self.tell(intent.ve, "Recovered", f"{intent.action} was under way when the agent ended; looking anew")
            self.journal.done(intent.action)
        return [intent.action for intent in unfinished]

    def keep_inventory(self, observed: HostObservation, wanted: Collection[VeName]) -> None:
        """Bring the inventory up to what a complete look saw, where a crash came before it was told.

        ``wanted``: the names that manifests give; a removal of one of them was given up.
        """
        if not observed.complete:
            return
        entries = self.inventory.read()
        records = {uid: seen.record for uid, seen in observed.ves.items()}
        for uid, entry in entries.items():
            if isinstance(entry, Entry) and entry.phase is not Phase.PRESENT:
                self._catch_up(entry, records.get(uid), wanted)
        lost = {
            uid for uid, entry in entries.items() if isinstance(entry, Unknown)
        }  # an entry that a power cut emptied
        for uid in (records.keys() - entries.keys()) | (lost & records.keys()):
            record = records[uid]
            if isinstance(record, Record) and record.source == self.source and record.name in wanted:
                self.inventory.put(_entry(record, Phase.PRESENT))

    def _catch_up(self, entry: Entry, record: Record | Unknown | None, wanted: Collection[VeName]) -> None:
        if record is None and entry.phase is Phase.REMOVING:
            self.inventory.clear(entry.uid)
        elif isinstance(record, Record) and (entry.phase is Phase.CREATING or record.name in wanted):
            self.inventory.put(_in_phase(entry, Phase.PRESENT))

    def tell(self, ve: str, reason: str, message: str, *, kind: str = "Normal") -> None:
        """Write an event for people."""
        self.events.append(Event(at=self.clock.now(), ve=ve, reason=reason, message=message, kind=kind))


def open_desk(instance: Instance, *, source: str, clock: Clock, coordinator: Coordinator, policy: PolicyFile) -> Desk:
    """Open the stores of an instance; their directories are made if they are missing."""
    layout.prepare(instance)
    return Desk(
        instance=instance,
        source=source,
        clock=clock,
        coordinator=coordinator,
        inventory=Inventory(layout.inventory_dir(instance)),
        journal=Journal(layout.journal_dir(instance)),
        history=History(instance.state_dir),
        approvals=Approvals(instance.state_dir),
        pauses=Pauses(instance.state_dir),
        removals=Removals(instance.state_dir),
        conditions=Conditions(layout.conditions_dir(instance)),
        events=EventLog(layout.events_file(instance)),
        recorder=Recorder(instance.state_dir, clock),
        last_good=LastGood(instance.state_dir),
        networks=AppliedNetworks(instance.state_dir),
        policy=policy,
        reviews=Reviews(instance.state_dir),
        risks=HostRisks(instance.state_dir),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskBooks:
    """Keeps inventory, journal, history and events around each action."""

    desk: Desk
    revision: str

    async def begin(self, action: Action) -> None:
        """Announce: a removal in the inventory and among the removals, an action of several effects in the journal.

        The disk is waited for in a thread: meanwhile other VEs are worked on.
        """
        if _is_removal(action):
            self._announce_removal(action)
        if len(action.effects) > 1:
            intent = Intent(
                action=action.id,
                ve=action.ve,
                uid=action.uid,
                effects=tuple(type(effect).__name__ for effect in action.effects),
                revision=self.revision,
                at=self.desk.clock.now(),
            )
            await asyncio.to_thread(self.desk.journal.begin, intent)

    def end(self, action: Action, *, elapsed_s: float, error: VectlError | None) -> None:
        """Close the journal, and tell people."""
        if len(action.effects) > 1:
            self.desk.journal.done(action.id)
        if error is not None:
            self.desk.tell(
                action.ve, type(error).__name__, f"{action.path or action.op.value}: {error}", kind="Warning"
            )
            return
        self._settle(action)
        if action.impact is not Impact.NONE or action.op is not Operation.UPDATE:
            self.desk.tell(action.ve, action.reason.value, _sentence(action, elapsed_s))
        if (action.impact >= Impact.PAUSE or resumes(action)) and action.op is not Operation.DESTROY:
            self.desk.history.add(action.op, timed_as(action), elapsed_s)

    def _announce_removal(self, action: Action) -> None:
        assert action.uid is not None
        desk, name = self.desk, VeName(action.ve)
        entry = desk.inventory.get(action.uid)
        if isinstance(entry, Entry):
            desk.inventory.put(_in_phase(entry, Phase.REMOVING))
        desk.removals.add(Removal(uid=action.uid, name=name, source=desk.source, at=desk.clock.now()))

    def _settle(self, action: Action) -> None:
        """Bring the inventory up to what was observed after the action."""
        if action.uid is None:
            return
        if _is_removal(action):
            self.desk.inventory.clear(action.uid)
            self.desk.conditions.remove(action.ve)
        elif action.op is not Operation.CREATE:  # the next look at everything tells that a new one is present
            self._take_in(action)

    def _take_in(self, action: Action) -> None:
        """Put a VE that was forgotten, and that a manifest names again, back into the inventory."""
        for effect in action.effects:
            if not isinstance(effect, WriteRecord) or self.desk.inventory.get(effect.record.uid) is not None:
                continue
            record = effect.record
            self.desk.inventory.put(
                Entry(
                    uid=record.uid, name=record.name, source=record.source, id_base=record.id_base, phase=Phase.PRESENT
                )
            )


def _is_removal(action: Action) -> bool:
    return action.op is Operation.DESTROY and action.uid is not None and action.path == ""


def _entry(record: Record, phase: Phase) -> Entry:
    return Entry(uid=record.uid, name=record.name, source=record.source, id_base=record.id_base, phase=phase)


def _in_phase(entry: Entry, phase: Phase) -> Entry:
    return Entry(uid=entry.uid, name=entry.name, source=entry.source, id_base=entry.id_base, phase=phase)


def _sentence(action: Action, elapsed_s: float) -> str:
    what = f"{action.op.value} {action.path}".strip()
    before, after = (value_text(action.path, value) for value in (action.before, action.after))
    change = "" if action.op is not Operation.UPDATE else f" {before} -> {after}"
    return f"{what}{change} ({action.origin.value}, {elapsed_s * 1000:.0f} ms)"
