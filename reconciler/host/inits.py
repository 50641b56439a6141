"""The inits that were found alive, each behind a descriptor: one poll(2) tells whether it still is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from reconciler.kernel import pidfd
from reconciler.kernel.pidfd import ProcessId


@dataclass(slots=True)
class Inits:
    """Descriptors of processes, by identity. One that has ended is dropped as soon as that is seen.

    ``lingering``: those that looked as if they ended and did not, as one whose first thread is gone and another stays.
    ``released``: those that were seen after they were let go, which no init ever comes back from.
    """

    lingering: set[ProcessId] = field(default_factory=set)
    released: set[ProcessId] = field(default_factory=set)
    _open: dict[ProcessId, int] = field(default_factory=dict)

    def is_alive(self, init: ProcessId) -> bool:
        """Tell whether a process is there and not merely waiting to be reaped.

        Raises: KernelError.
        """
        descriptor = self._open.get(init)
        if descriptor is None:
            descriptor = pidfd.open_process(init)
            if descriptor is None:
                return False
            self._open[init] = descriptor
        if not pidfd.has_ended(descriptor):
            return True
        os.close(self._open.pop(init))
        self.lingering.discard(init)
        self.released.discard(init)
        return False

    def close(self) -> None:
        """Let go of all of them."""
        while self._open:
            os.close(self._open.popitem()[1])
