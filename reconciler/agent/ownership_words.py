"""What it is called in conditions when a VE may not be touched for not being this host's."""

from __future__ import annotations

from reconciler.errors import (
    CoordinatorAwayError,
    OutcomeUnknownError,
    OwnedElsewhereError,
    OwnershipError,
    VectlError,
)

OWNERSHIP_UNKNOWN = "OwnershipUnknown"
OWNED_ELSEWHERE = "OwnedElsewhere"


def ownership_word(error: VectlError) -> str:
    """Give the word for an error of ownership, or "" for any other."""
    if isinstance(error, OwnedElsewhereError):
        return OWNED_ELSEWHERE
    is_unknown = isinstance(error, CoordinatorAwayError | OutcomeUnknownError | OwnershipError)
    return OWNERSHIP_UNKNOWN if is_unknown else ""
