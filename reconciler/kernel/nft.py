"""The nftables command: rulesets are loaded whole and atomically.

A ruleset of ours names only tables of ours: ``table T`` (so that it exists), ``delete table T``, then T anew, in one
transaction. ``flush ruleset`` would take away what others made, and is never sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import CommandError
from reconciler.kernel import command

_TIMEOUT_S = 20.0


async def apply(ruleset: str) -> None:
    """Load a ruleset in one transaction: all of it or, on an error, nothing.

    Shape: nft(8)'s language, or its JSON if the text begins with a brace.
    Raises: CommandError with nft's complaint; TimeLimitError; MissingToolError.
    """
    with _complaints("load nftables ruleset"):
        await command.run_async(_load(ruleset), timeout_s=_TIMEOUT_S, input=ruleset.encode())


def _load(ruleset: str) -> list[str]:
    return ["nft", "-j", "-f", "-"] if ruleset.lstrip().startswith("{") else ["nft", "-f", "-"]


@contextmanager
def _complaints(doing: str) -> Iterator[None]:
    """Put nft's complaint into the message: what it prints last are marks below the text at fault."""
    try:
        yield
    except CommandError as err:
        lines = [line for line in err.output.splitlines() if "Error:" in line]
        said = lines[0].strip() if lines else str(err)
        raise CommandError(f"{doing}: {said}", status=err.status, output=err.output) from err
