"""Taking a coordinator at its word that is not the one that was known, as a person decides who has looked at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.agent.membership import Membership
from reconciler.errors import RefusedError
from reconciler.fleet.ledger import Ledger, Standing
from reconciler.fleet.owners import EtcdOwners
from reconciler.fleet.witness import Known, Memory, Witness
from reconciler.model.identity import HostName, Uid, VeName
from reconciler.model.seam import Clock
from reconciler.model.volume import Record


@dataclass(slots=True)
class _Blank:
    """Implements `Memory` of one who has never seen the store."""

    known: Known | None = None

    def read(self) -> Known | None:
        """Know nothing at first."""
        return self.known

    def write(self, known: Known) -> None:
        """Remember what is seen meanwhile."""
        self.known = known


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A VE of which the coordinator says something else than this host has. ``owner`` None: nobody owns it."""

    name: VeName
    uid: Uid
    owner: HostName | None
    words: str


@dataclass(slots=True, kw_only=True)
class Acceptance:
    """A look at the coordinator as it is, and what became of it. ``known``: what is believed once it is accepted."""

    host: HostName
    owners: EtcdOwners
    standing: Standing
    known: Known

    def differences(self, records: Mapping[Uid, Record]) -> Iterator[Difference]:
        """Say what is otherwise than the coordinator says; what nobody owns is claimed, and so is none."""
        for uid, record in sorted(records.items()):
            owned = self.standing.owners.get(uid)
            if uid in self.standing.unread:
                yield Difference(name=record.name, uid=uid, owner=None, words=self.standing.unread[uid])
            elif owned is not None and owned.host != self.host:
                words = f"its data is here, and the coordinator says that it is {owned.host}'s: it stays untouched here"
                yield Difference(name=record.name, uid=uid, owner=owned.host, words=words)
        for uid, owned in sorted(self.standing.owners.items()):
            if owned.host == self.host and uid not in records:
                words = "the coordinator says that it is this host's, and nothing of it is here: no other host makes it"
                yield Difference(name=owned.name, uid=uid, owner=self.host, words=words)

    async def take(self, names: Sequence[str], found: Sequence[Difference]) -> None:
        """Make VEs this host's that are here and that the coordinator has as another host's.

        Raises: RefusedError, if one is none of those; as `Owners.seize`.
        """
        there = {diff.name: diff for diff in found if diff.owner not in (None, self.host)}
        if unknown := [name for name in names if name not in there]:
            known = ", ".join(sorted(there)) or "none"
            raise RefusedError(f"take {unknown[0]}: expected a VE that is here and another host's: {known}")
        for name in names:
            await self.owners.seize(self.standing.owners[there[VeName(name)].uid])


async def look(membership: Membership, clock: Clock) -> Acceptance:
    """Look at the coordinator as one who has never seen it.

    Raises: CoordinatorAwayError.
    """
    ledger, blank = membership.owners.ledger, _Blank()
    fresh = Ledger(ledger.store, ledger.keys, ledger.seal, Witness(blank))
    standing = await fresh.standing()
    assert blank.known is not None
    owners = EtcdOwners(fresh, clock=clock, new_id=lambda: "")
    return Acceptance(host=membership.host, owners=owners, standing=standing, known=blank.known)


def accept(acceptance: Acceptance, memory: Memory) -> None:
    """Believe the coordinator from now on.

    Raises: KernelError, NoSpaceError.
    """
    memory.write(acceptance.known)
