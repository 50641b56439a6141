"""Beginning to own a VE, its name and its ids, and ceasing to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler.errors import OwnedElsewhereError, OwnershipError
from reconciler.fleet.ledger import Attempt, Ledger
from reconciler.fleet.records import Deed, How
from reconciler.model.identity import Allocation, HostName, Uid, VeName
from reconciler.model.kv import Delete, Put, Unchanged, Write
from reconciler.model.ownership import Ownership


def owned_elsewhere(owned: Ownership) -> OwnedElsewhereError:
    """Say that a VE is another host's."""
    return OwnedElsewhereError(f"{owned.name} is on {owned.host}, and waits for that to let it go", host=owned.host)


def changed(owned: Ownership) -> OwnershipError:
    """Say that a VE's record is not the one that was acted on."""
    return OwnershipError(f"write to the coordinator: what it says of {owned.name} has changed meanwhile")


def check_ours(deed: Deed | None, owned: Ownership, host: HostName) -> Deed:
    """Give a record, if it is the one that was acted on, and this host's.

    Raises: OwnershipError.
    """
    if deed is None:
        raise changed(owned)
    if deed.owned.host != host:
        raise owned_elsewhere(deed.owned)
    if deed.owned.revision != owned.revision:
        raise changed(owned)
    return deed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A key that names a VE by its uid: its name, or its range of ids. ``to``: whose it is now."""

    to: Uid | None
    guard: Unchanged

    def taking(self, uid: Uid) -> tuple[Write, ...]:
        """Give the write that makes it a VE's, if it is not yet."""
        return () if self.to == uid else (Put(key=self.guard.key, value=uid.encode()),)

    def leaving(self, uid: Uid) -> tuple[Write, ...]:
        """Give the write that frees it, if it is a VE's."""
        return (Delete(key=self.guard.key),) if self.to == uid else ()


async def claim(ledger: Ledger, allocation: Allocation, name: VeName) -> Ownership:
    """Own a VE that this host has and nobody owns; see `Owners.claim`.

    One that is owned already gets back a name that it let go, and the signature of a host that stays.
    """
    uid = allocation.uid

    async def decide() -> Ownership | Attempt[Ownership]:
        deed, named, given = await asyncio.gather(
            ledger.deed(uid), _held(ledger, ledger.keys.name(name)), _held(ledger, ledger.keys.slot(allocation.id_base))
        )
        if deed is not None and deed.owned.host != ledger.seal.host:
            raise owned_elsewhere(deed.owned)
        if deed is not None and (deed.owned.name, deed.owned.id_base) != (name, allocation.id_base):
            return deed.owned
        if named.to not in (None, uid):
            raise await _taken(ledger, name, named.to)
        if given.to not in (None, uid):
            raise OwnershipError(f"own {name}: the ids from {allocation.id_base} on are those of {given.to}")
        writes = (*named.taking(uid), *given.taking(uid))
        guards = [named.guard, given.guard]
        if deed is None:
            fresh = Ownership(uid=uid, name=name, host=ledger.seal.host, id_base=allocation.id_base, revision=0)
            return ledger.writing(fresh, How.CLAIMED, guards=guards, writes=writes)
        return await _confirm(ledger, deed, guards, writes)

    return await ledger.carry_out(decide)


async def _confirm(
    ledger: Ledger, deed: Deed, guards: Sequence[Unchanged], writes: Sequence[Write]
) -> Ownership | Attempt[Ownership]:
    """Sign a record anew that another host signed, which may leave the fleet, or a former key of this one."""
    if ledger.is_signed_now(deed) and not writes:
        return deed.owned
    if await ledger.move(deed.owned.uid) is not None:  # whoever moves it compares the record as it is
        return deed.owned
    still = Unchanged(key=ledger.keys.move(deed.owned.uid), modified=0)
    return ledger.writing(deed.owned, How.SIGNED, guards=(*guards, still), writes=writes)


async def rename(ledger: Ledger, owned: Ownership, name: VeName) -> Ownership:
    """Give a VE of this host another name; see `Owners.rename`."""
    uid, after = owned.uid, replace(owned, name=name)

    async def decide() -> Ownership | Attempt[Ownership]:
        deed, new, old = await asyncio.gather(
            ledger.deed(uid), _held(ledger, ledger.keys.name(name)), _held(ledger, ledger.keys.name(owned.name))
        )
        if deed is not None and deed.owned.host == ledger.seal.host and deed.owned.name == name:
            return deed.owned
        check_ours(deed, owned, ledger.seal.host)
        if new.to not in (None, uid):
            raise await _taken(ledger, name, new.to)
        writes = (*new.taking(uid), *old.leaving(uid))
        return ledger.writing(after, How.RENAMED, guards=(new.guard, old.guard), writes=writes)

    return await ledger.carry_out(decide)


async def disown(ledger: Ledger, owned: Ownership) -> None:
    """Give up a VE of this host that is gone for good; see `Owners.disown`."""
    uid, keys = owned.uid, ledger.keys

    async def decide() -> Attempt[None] | None:
        deed, named, given = await asyncio.gather(
            ledger.deed(uid), _held(ledger, keys.name(owned.name)), _held(ledger, keys.slot(owned.id_base))
        )
        if deed is None:
            return None
        check_ours(deed, owned, ledger.seal.host)
        if (move := await ledger.move(uid)) is not None:
            raise OwnershipError(f"give up {owned.name}: it is on its way from {move.source} to {move.target}")
        still = Unchanged(key=keys.move(uid), modified=0)
        return Attempt(
            guards=(ledger.unchanged(uid, owned.revision), still, named.guard, given.guard),
            writes=(Delete(key=keys.ve(uid)), *named.leaving(uid), *given.leaving(uid)),
            done=lambda revision: None,
        )

    return await ledger.carry_out(decide)


async def let_go_name(ledger: Ledger, owned: Ownership) -> None:
    """Free the name of a VE of this host that is in the trash; free already is success.

    Raises: as `Owners.disown`.
    """

    async def decide() -> Attempt[None] | None:
        named = await _held(ledger, ledger.keys.name(owned.name))
        if named.to != owned.uid:
            return None
        check_ours(await ledger.deed(owned.uid), owned, ledger.seal.host)
        guards = (ledger.unchanged(owned.uid, owned.revision), named.guard)
        return Attempt(guards=guards, writes=named.leaving(owned.uid), done=lambda revision: None)

    return await ledger.carry_out(decide)


async def _held(ledger: Ledger, key: str) -> _Held:
    to, guard = await ledger.holder(key)
    return _Held(to=to, guard=guard)


async def _taken(ledger: Ledger, name: VeName, uid: Uid | None) -> OwnershipError:
    """Say whose a name is."""
    deed = None if uid is None else await ledger.deed(uid)
    if deed is not None and deed.owned.host != ledger.seal.host:
        return owned_elsewhere(replace(deed.owned, name=name))
    return OwnershipError(f"own {name}: the name is that of {uid} on this host")
