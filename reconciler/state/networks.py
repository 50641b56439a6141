"""What was last carried out on each network of this host: what differs from it is intent, all else is drift."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.facts import JsonMap
from reconciler.model.identity import NetworkName
from reconciler.state.document import Document

_FORMAT = 1


class AppliedNetworks:
    """The networks in one file, canonical JSON by name. Networks have no data of their own that it could lie beside."""

    __slots__ = ("_document", "_known")

    def __init__(self, state_dir: str) -> None:
        remedy = "remove it: then every change of a network counts as wanted by the manifests"
        self._document = Document(path=f"{state_dir}/networks.json", format=_FORMAT, remedy=remedy)
        self._known: dict[NetworkName, JsonMap] | None = None

    def read(self) -> Mapping[NetworkName, JsonMap]:
        """Read all networks.

        Raises: StateError, KernelError.
        """
        if self._known is None:
            self._known = self._read()
        return self._known

    def put(self, networks: Mapping[NetworkName, JsonMap]) -> None:
        """Replace all networks, durably, if anything differs.

        Raises: StateError, KernelError, NoSpaceError.
        """
        if networks == self.read():
            return
        self._document.write({"networks": {name: dict(values) for name, values in networks.items()}})
        self._known = dict(networks)

    def _read(self) -> dict[NetworkName, JsonMap]:
        fields = self._document.read()
        if fields is None:
            return {}
        networks = fields.fields("networks")
        found = {NetworkName(name): networks.mapping(name) for name in fields.mapping("networks")}
        networks.end()
        fields.end()
        return found
