"""What a person asks for beside the manifests: one-off, audited, and through the same seam as everything else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from reconciler.agent.reconciler import Reconciler, Result
from reconciler.errors import RefusedError, StateError
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid, VeName
from reconciler.model.observation import EVERYTHING, Scope, VeObservation
from reconciler.model.power import DiscardMemory, ForgetEnd, Power, PowerObservation, PowerState
from reconciler.model.volume import PurgeTrash, Record, RestoreVe, TrashEntry, WriteRecord
from reconciler.plan import power
from reconciler.plan.snapshots import standing
from reconciler.state.pause import Pause, pause_of

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Operation = Callable[Concatenate["Operations", _P], Coroutine[Any, Any, _R]]


def _audited(operation: _Operation[_P, _R]) -> _Operation[_P, _R]:
    """Write down in the audit log who asked for an operation, of what, how, and what came of it."""

    @wraps(operation)
    async def recorded(self: Operations, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        target, by = str(args[0] or "*"), str(kwargs.get("by"))
        told = [f"{key}: {value}" for key, value in kwargs.items() if key != "by" and value not in (None, "")]
        what, recorder = operation.__name__.replace("_", "-"), self.reconciler.desk.recorder
        with recorder.request(what, by=by, ve=target, detail=", ".join(told)):
            return await operation(self, *args, **kwargs)

    return recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Carries out requests. ``by`` in each: who asked, for the audit."""

    reconciler: Reconciler

    async def _find(self, name: VeName) -> tuple[Uid, Record, VeObservation]:
        observed = await self.reconciler.observe(EVERYTHING)
        for uid, seen in observed.ves.items():
            if isinstance(seen.record, Record) and seen.record.name == name:
                return uid, seen.record, seen
        known = sorted(str(n) for n in self.reconciler.names.values())
        raise StateError(f"find VE {name}: this host has none of that name; it has {', '.join(known) or 'none at all'}")

    async def _perform(self, name: str, reason: str, message: str, *effects: Effect) -> None:
        for effect in effects:
            await self.reconciler.effects.perform(replace(effect, serves=f"{name}:{reason}"))
        self.reconciler.desk.tell(name, reason, message)

    @_audited
    async def stop(self, name: VeName, *, by: str, reason: str = "", cold: bool = False) -> None:
        """Stop a VE and pause it, so that it stays down. ``cold``: give up the memory of one that is suspended.

        Raises: StateError, if there is none; RefusedError, if it is suspended and not to be stopped cold; VectlError.
        """
        async with self.reconciler.lock(name):
            uid, record, seen = await self._find(name)
            if not cold:
                _refuse_suspended("stop", name, seen)
            self._pause(name, by=by, reason=reason or "stopped by hand", by_stop=True)
            await self._stop(uid, record, seen)
            await self._discard_memory(name, seen, by=by)
            self.reconciler.desk.tell(name, "Stopped", f"by {by}")
        await self.reconciler.pass_ve(name)

    async def _stop(self, uid: Uid, record: Record, seen: VeObservation) -> None:
        timeout_s = power.stop_timeout_s(record.applied)
        for effect in (*power.stop_effects(uid, timeout_s, _known_power(seen)), RemoveCgroup(uid=uid)):
            await self.reconciler.effects.perform(effect)

    async def _discard_memory(self, name: VeName, seen: VeObservation, *, by: str) -> None:
        """Give up the memory of a VE of which nothing runs, and tell so; without one there is nothing to tell."""
        if _known_power(seen).memory is not None:
            await self._perform(name, "MemoryDiscarded", f"by {by}", DiscardMemory(uid=seen.uid))

    @_audited
    async def start(self, name: VeName, *, by: str, cold: bool = False) -> Result:
        """Lift a pause that came with a stop, forget a halt from inside, and reconcile: boot or resume it.

        ``cold``: give up the memory of one that is suspended, and boot it.
        Raises: StateError, if there is none; RefusedError, if nothing would boot it; VectlError, if that fails.
        """
        async with self.reconciler.lock(name):
            uid, record, seen = await self._find(name)
            self._lift_stop(name)
            self._need_reconciling("start", name)
            if cold and _known_power(seen).memory is not None:
                await self._stop(uid, record, seen)
                await self._discard_memory(name, seen, by=by)
            if _known_power(seen).state is PowerState.STOPPED:
                await self.reconciler.effects.perform(ForgetEnd(uid=uid))
            self.reconciler.desk.tell(name, "Started", f"by {by}")
        return _demanded(await self.reconciler.pass_ve(name), name)

    def _need_reconciling(self, verb: str, name: VeName) -> None:
        """Refuse what only the reconciler can carry out for a VE that it leaves alone."""
        desk, spec = self.reconciler.desk, self.reconciler.fleet.ves.get(name)
        if spec is None:
            raise RefusedError(f"{verb} {name}: no manifest names it; add one, and it is started")
        if spec.power.state is not Power.RUNNING:
            raise RefusedError(f"{verb} {name}: its manifest says `power: {spec.power.state}`; change it there")
        pause = pause_of(name, desk.pauses.in_force(desk.clock.now()))
        if pause is not None:
            raise RefusedError(f"{verb} {name}: it is paused ({pause.reason}); unpause it first")

    def _lift_stop(self, name: VeName) -> None:
        """Lift the pause that came with a stop; one that a person asked for stays."""
        desk = self.reconciler.desk
        for pause in desk.pauses.in_force(desk.clock.now()):
            if pause.ve == name and pause.by_stop:
                desk.pauses.lift(name)

    @_audited
    async def restart(self, name: VeName, *, by: str) -> Result:
        """Stop a VE and let the reconciler start it again.

        Raises: StateError, if there is none; RefusedError, if nothing would boot it; VectlError, if that fails.
        """
        async with self.reconciler.lock(name):
            uid, record, seen = await self._find(name)
            self._need_reconciling("restart", name)
            _refuse_suspended("restart", name, seen)
            await self._stop(uid, record, seen)
            self.reconciler.desk.tell(name, "Restarted", f"by {by}")
        return _demanded(await self.reconciler.pass_ve(name), name)

    def _pause(self, name: VeName | None, *, by: str, reason: str, by_stop: bool, until: float | None = None) -> None:
        now = self.reconciler.desk.clock.now()
        pause = Pause(ve=name, reason=reason, since=now, until=until, by=by, by_stop=by_stop)
        self.reconciler.desk.pauses.put(pause)

    @_audited
    async def pause(self, name: VeName | None, *, by: str, reason: str, until: float | None = None) -> None:
        """Stop reconciling a VE, or with None all. Units: ``until`` seconds since the epoch.

        Raises: StateError, if neither a manifest nor this host has a VE of that name.
        """
        if name is not None and name not in self.reconciler.fleet.ves:
            await self._find(name)
        self._pause(name, by=by, reason=reason, by_stop=False, until=until)
        self.reconciler.desk.tell(name or "*", "Paused", f"by {by}: {reason}")
        await self._pass(name)

    @_audited
    async def unpause(self, name: VeName | None, *, by: str) -> None:
        """Reconcile a VE, or with None all, again.

        Raises: StateError, if it is not paused.
        """
        if not self.reconciler.desk.pauses.lift(name):
            raise StateError(f"unpause {name or 'all'}: it is not paused")
        self.reconciler.desk.tell(name or "*", "Unpaused", f"by {by}")
        await self._pass(name)

    async def _pass(self, name: VeName | None) -> None:
        """Have what changed carried out and told, for one VE or for all that manifests name."""
        for one in self.reconciler.fleet.ves if name is None else (name,):
            await self.reconciler.pass_ve(one)

    @_audited
    async def set_protection(self, name: VeName, *, protect: bool, by: str) -> None:
        """Protect a VE, or lift its protection, in its record.

        Raises: RefusedError, if its manifest says otherwise and would undo it.
        """
        spec = self.reconciler.fleet.ves.get(name)
        if spec is not None and spec.protect is not None and spec.protect is not protect:
            said = f"protect: {str(spec.protect).lower()}"
            raise RefusedError(f"change protection of {name}: its manifest says `{said}`; change it there")
        async with self.reconciler.lock(name):
            _, record, _ = await self._find(name)
            word = "Protected" if protect else "Unprotected"
            await self._perform(name, word, f"by {by}", WriteRecord(record=replace(record, protect=protect)))

    @_audited
    async def forget(self, name: VeName, *, by: str) -> None:
        """Let go of a VE without touching it: no source owns it any more, and nothing prunes it."""
        if name in self.reconciler.fleet.ves:
            raise RefusedError(f"forget {name}: a manifest names it; remove that first")
        async with self.reconciler.lock(name):
            uid, record, _ = await self._find(name)
            await self._perform(name, "Forgotten", f"by {by}", WriteRecord(record=replace(record, source="")))
            self.reconciler.desk.inventory.clear(uid)

    async def trash(self) -> tuple[TrashEntry, ...]:
        """List the trash.

        Raises: StateError, if it cannot be read.
        """
        observed = await self.reconciler.observe(Scope(uids=frozenset()))
        if isinstance(observed.trash, Unknown):
            raise StateError(f"list the trash: {observed.trash.reason}")
        return observed.trash

    @_audited
    async def restore(self, trash_id: str, *, by: str) -> None:
        """Bring a VE back from the trash; one without a manifest is paused, so that it is not removed again at once.

        Raises: StateError.
        """
        entry = next((entry for entry in await self.trash() if entry.id == trash_id), None)
        if entry is None:
            raise StateError(f"restore {trash_id}: the trash has no such entry; see `vectl trash list`")
        name = entry.record.name
        spec = self.reconciler.fleet.ves.get(name)
        if spec is None:
            self._pause(name, by=by, reason="restored by hand; add its manifest, then unpause it", by_stop=False)
        done = () if spec is None else standing(spec)
        effect = RestoreVe(uid=entry.record.uid, trash_id=trash_id, requests_done=done)
        await self._perform(name, "Restored", f"by {by}", effect)
        await self.reconciler.take_in(entry.record.uid)

    @_audited
    async def purge(self, trash_id: str, *, by: str) -> None:
        """Delete an entry of the trash for good."""
        await self._perform("trash", "Purged", f"{trash_id} by {by}", PurgeTrash(trash_id=trash_id))


def _known_power(seen: VeObservation) -> PowerObservation:
    """Give what was seen of a VE's power.

    Raises: StateError, if it could not be read: nobody acts on a guess.
    """
    if isinstance(seen.power, Unknown):
        raise StateError(f"look at VE {seen.uid}: {seen.power.reason}")
    return seen.power


def _refuse_suspended(verb: str, name: VeName, seen: VeObservation) -> None:
    """Refuse to stop what does not run, as that would be to lose its memory.

    Raises: RefusedError.
    """
    if _known_power(seen).memory is not None:
        how = "`power: stopped` in its manifest resumes it and shuts it down"
        cold = "stop" if verb == "stop" else "start"
        raise RefusedError(f"{verb} {name}: it is suspended; {how}, `vectl {cold} {name} --cold` gives up its memory")


def _demanded(result: Result, name: VeName) -> Result:
    """Pass on a result in which everything went well.

    Raises: RefusedError, if a rule stood in the way, or the VE waits for another; VectlError, that of what failed.
    """
    for outcome in result.outcomes:
        if outcome.error is not None:
            raise outcome.error
    for refusal in result.plan.refused:
        raise RefusedError(f"start {name}: {refusal.message}; {refusal.remedy}".removesuffix("; "))
    if name in result.plan.waiting:
        raise RefusedError(f"start {name}: {result.plan.waiting[name]}")
    return result
