"""Where in the coordinator's store what is kept."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.model.identity import IDS_PER_VE, HostName, Uid, VeName


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one fleet, below a prefix of its own."""

    fleet: str = "default"

    @property
    def prefix(self) -> str:
        """Below which all of them are."""
        return f"/vectl/{self.fleet}/"

    @property
    def format(self) -> str:
        """The format of all of it."""
        return f"{self.prefix}format"

    @property
    def ves(self) -> str:
        """Below which it says who owns which VE."""
        return f"{self.prefix}ves/"

    @property
    def names(self) -> str:
        """Below which it says whose the names are."""
        return f"{self.prefix}names/"

    @property
    def ids(self) -> str:
        """Below which it says whose the ranges of ids are."""
        return f"{self.prefix}ids/"

    @property
    def moves(self) -> str:
        """Below which the moves are."""
        return f"{self.prefix}moves/"

    @property
    def hosts(self) -> str:
        """Below which each host says how it is, and its VEs."""
        return f"{self.prefix}hosts/"

    def ve(self, uid: Uid) -> str:
        """Who owns a VE."""
        return f"{self.ves}{uid}"

    def name(self, name: VeName) -> str:
        """Whose a name is."""
        return f"{self.names}{name}"

    def slot(self, id_base: int) -> str:
        """Whose a range of ids is."""
        return f"{self.ids}{id_base // IDS_PER_VE}"

    def move(self, uid: Uid) -> str:
        """The move that a VE is on."""
        return f"{self.moves}{uid}"

    def host(self, host: HostName) -> str:
        """Below which a host says how it is, and its VEs."""
        return f"{self.hosts}{host}/"

    def rows(self, host: HostName) -> str:
        """Below which a host says how its VEs are, by name."""
        return f"{self.host(host)}rows/"
