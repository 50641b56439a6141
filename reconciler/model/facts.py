"""What is known: a value that could not be read is `Unknown`, which is never the same as absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonMap: TypeAlias = "Mapping[str, Json]"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be read, with the reason in words.

    While any fact of a VE that matters is unknown, that VE is not changed and nothing is pruned.
    """

    reason: str
