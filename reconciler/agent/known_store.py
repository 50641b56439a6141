"""What a host knows of its fleet's coordinator, kept on disk."""

from __future__ import annotations

from reconciler.fleet.witness import Known
from reconciler.state.document import Document, Durability

_FORMAT = 1


class KnownStore:
    """Implements `Memory` by a file of the directory of state."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        self._document = Document(
            path=f"{state_dir}/coordinator.json",
            format=_FORMAT,
            remedy="see what the coordinator says with `vectl host accept-coordinator`, which writes it anew",
            durability=Durability.WHOLE,
        )

    def read(self) -> Known | None:
        """Read it; None, if nothing is known yet.

        Raises: StateError, KernelError.
        """
        fields = self._document.read()
        if fields is None:
            return None
        known = Known(
            cluster=fields.text("cluster"), revision=fields.integer("revision"), distrust=fields.text("distrust")
        )
        fields.end()
        return known

    def write(self, known: Known) -> None:
        """Write it.

        Raises: KernelError, NoSpaceError.
        """
        self._document.write({"cluster": known.cluster, "revision": known.revision, "distrust": known.distrust})
