"""Pauses: VEs that a person asked to be left alone, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.model.facts import Json
from reconciler.model.identity import VeName
from reconciler.state.document import Document

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """``ve`` None: all VEs. ``until`` None: until it is lifted. ``by_stop``: it came with `vectl stop`.

    Units: ``since`` and ``until`` seconds since the epoch.
    """

    ve: VeName | None
    reason: str
    since: float
    until: float | None = None
    by: str = ""
    by_stop: bool = False

    @property
    def words(self) -> str:
        """Who asked for it, why, and until when."""
        end = "" if self.until is None else f" until {datetime.fromtimestamp(self.until, UTC):%Y-%m-%dT%H:%M:%SZ}"
        return f"{self.reason} ({'all VEs ' if self.ve is None else ''}paused by {self.by or 'nobody known'}{end})"

    def holds(self, now: float) -> bool:
        """Tell whether it has not expired."""
        return self.until is None or now < self.until


class Pauses:
    """The pauses of an instance, in one file. Of each VE, and of all VEs, there is one at most."""

    __slots__ = ("_document",)

    def __init__(self, state_dir: str) -> None:
        remedy = "mend it, or remove it: then nothing is paused any more"
        self._document = Document(path=f"{state_dir}/pauses.json", format=_FORMAT, remedy=remedy)

    def put(self, pause: Pause) -> None:
        """Pause, durably; a pause of the same VE is replaced.

        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        with self._document.locked():
            others = (other for other in self._read() if other.ve != pause.ve and other.holds(pause.since))
            self._write((*others, pause))

    def lift(self, ve: VeName | None) -> bool:
        """End the pause of a VE, or with None the one of all VEs; tells whether there was one.

        Raises: StateError, KernelError, NoSpaceError, BusyError.
        """
        with self._document.locked():
            pauses = self._read()
            left = tuple(pause for pause in pauses if pause.ve != ve)
            if left != pauses:
                self._write(left)
        return left != pauses

    def in_force(self, now: float) -> tuple[Pause, ...]:
        """Read the pauses that hold now.

        Raises: StateError, KernelError.
        """
        return tuple(pause for pause in self._read() if pause.holds(now))

    def _read(self) -> tuple[Pause, ...]:
        fields = self._document.read()
        if fields is None:
            return ()
        pauses = []
        for item in fields.objects("pauses"):
            ve = item.optional_text("ve")
            pause = Pause(
                ve=None if ve is None else VeName(ve),
                reason=item.text("reason"),
                since=item.number("since"),
                until=item.optional_number("until"),
                by=item.text("by"),
                by_stop=item.flag("by_stop"),
            )
            item.end()
            pauses.append(pause)
        fields.end()
        return tuple(pauses)

    def _write(self, pauses: Iterable[Pause]) -> None:
        self._document.write({"pauses": [_to_json(pause) for pause in pauses]})


def pause_of(ve: VeName, pauses: Iterable[Pause]) -> Pause | None:
    """Find the pause that a VE is under: its own, else the one of all VEs."""
    for_ve = {pause.ve: pause for pause in pauses}
    return for_ve.get(ve, for_ve.get(None))


def _to_json(pause: Pause) -> dict[str, Json]:
    return {
        "ve": pause.ve,
        "reason": pause.reason,
        "since": pause.since,
        "until": pause.until,
        "by": pause.by,
        "by_stop": pause.by_stop,
    }
