"""What was found when a host was examined: whether it can hold VEs, and what to do where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.model.facts import Json


class Level(StrEnum):
    """`WARN`: it works, with a loss that the text names. `FAIL`: no VE can run."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One thing that was examined. ``remedy`` is empty where nothing is to be done."""

    name: str
    level: Level
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl doctor -o json`."""
        return {"name": self.name, "level": self.level.value, "found": self.found, "remedy": self.remedy}
