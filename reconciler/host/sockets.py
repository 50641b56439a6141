"""The socket counters of VEs, kept open: found once for each cgroup, and not looked for again where there are none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.errors import KernelError
from reconciler.kernel import socket_counter
from reconciler.kernel.cgroup_layout import Layout
from reconciler.kernel.socket_counter import SocketCount, SocketCounters
from reconciler.model.identity import Uid
from reconciler.model.instance import Instance
from reconciler.model.settings import OTHER_SOCKETS, TCP_SOCKETS

SOCKETS: Mapping[str, str] = {TCP_SOCKETS: socket_counter.TCP, OTHER_SOCKETS: socket_counter.OTHER}
"""The counter that each setting limits."""


@dataclass(frozen=True, slots=True)
class _Known:
    """``cgroup``: the inode; another cgroup of the same path has counters of its own."""

    cgroup: int
    counters: SocketCounters | None


@dataclass(slots=True)
class Sockets:
    """The counters of one instance's VEs."""

    layout: Layout
    instance: Instance
    _known: dict[Uid, _Known] = field(default_factory=dict)

    def why_not(self) -> str:
        """Say why sockets cannot be counted on this host; empty if they can."""
        if self.layout.unified is None:
            return "sockets are counted on cgroup v2, which is not mounted"
        try:
            socket_counter.try_out()
        except KernelError as err:
            return f"sockets are counted by BPF: {err}"
        return ""

    def read(self, uid: Uid) -> Mapping[str, SocketCount]:
        """Read the counters of a VE; none, if its sockets are not counted.

        Raises: KernelError.
        """
        counters = self._find(uid)
        return {} if counters is None else counters.read()

    def limit(self, uid: Uid, setting: str) -> int | None:
        """Read a limit; None: unlimited.

        Raises: KernelError.
        """
        count = self.read(uid).get(SOCKETS[setting])
        return None if count is None else count.limit

    def set_limit(self, uid: Uid, setting: str, limit: int | None) -> None:
        """Set a limit; sockets are counted from the first one on.

        Raises: KernelError, with ENOENT if the VE has no cgroup.
        """
        counters = self._find(uid)
        if counters is None and limit is None:
            return
        if counters is None:
            directory = self._directory(uid)
            counters = socket_counter.ensure(directory)
            self._known[uid] = _Known(os.stat(directory).st_ino, counters)
        counters.set_limit(SOCKETS[setting], limit)

    def forget(self, uid: Uid) -> None:
        """Close what is kept of a VE."""
        known = self._known.pop(uid, None)
        if known is not None and known.counters is not None:
            known.counters.close()

    def close(self) -> None:
        """Close everything."""
        for uid in list(self._known):
            self.forget(uid)

    def _directory(self, uid: Uid) -> str:
        return f"{self.layout.unified}{self.instance.ve_cgroup(uid)}"

    def _find(self, uid: Uid) -> SocketCounters | None:
        if self.layout.unified is None:
            return None
        directory = self._directory(uid)
        try:
            cgroup = os.stat(directory).st_ino
        except FileNotFoundError:
            self.forget(uid)
            return None
        known = self._known.get(uid)
        if known is None or known.cgroup != cgroup:
            self.forget(uid)
            known = self._known[uid] = _Known(cgroup, socket_counter.find(directory))
        return known.counters
