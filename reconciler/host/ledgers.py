"""Ledgers: what is remembered of the counters of VEs, in a file beside each record and, for a minute, in memory."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.errors import StateError, VectlError
from reconciler.kernel import files
from reconciler.kernel.parsed import ParsedFiles
from reconciler.model.counters import Ledger, decode_ledger, encode_ledger
from reconciler.model.identity import Uid
from reconciler.model.instance import Instance

KEEP_S = 60.0
"""How long what changed is kept in memory only: a crash loses so much of peaks at most. Units: seconds."""

_EMPTY = Ledger()


@dataclass(slots=True)
class Ledgers:
    """The ledgers of one instance."""

    instance: Instance
    parsed: ParsedFiles
    _changed: dict[Uid, Ledger] = field(default_factory=dict)
    _written: dict[Uid, float] = field(default_factory=dict)

    def read(self, uid: Uid) -> Ledger:
        """Give the ledger of a VE; a damaged one is begun anew.

        Raises: KernelError.
        """
        if uid in self._changed:
            return self._changed[uid]
        try:
            return self.parsed.read(self.instance.ledger_file(uid), decode_ledger) or _EMPTY
        except StateError:
            return _EMPTY

    def keep(self, uid: Uid, ledger: Ledger) -> None:
        """Remember a ledger; it is written if the last time was long ago.

        Raises: KernelError, NoSpaceError.
        """
        if ledger == self.read(uid):
            return
        self._changed[uid] = ledger
        if time.monotonic() - self._written.get(uid, float("-inf")) >= KEEP_S:
            self.flush(uid)

    def flush(self, uid: Uid) -> None:
        """Write what is kept in memory of a VE.

        Raises: KernelError, NoSpaceError.
        """
        ledger = self._changed.pop(uid, None)
        if ledger is not None and os.path.exists(self.instance.record_file(uid)):  # else it went into the trash
            files.write_volatile(self.instance.ledger_file(uid), encode_ledger(ledger))
            self._written[uid] = time.monotonic()

    def forget(self, uid: Uid) -> None:
        """Drop what is kept in memory of a VE that is no more."""
        self._changed.pop(uid, None)
        self._written.pop(uid, None)

    def write_down(self) -> None:
        """Write everything that can be written."""
        for uid in list(self._changed):
            with suppress(VectlError):
                self.flush(uid)
