"""The nftables command: rulesets are loaded whole and atomically, and listed for people and comparisons.

A ruleset of ours names only tables of ours: ``table T`` (so that it exists), ``delete table T``, then T anew, in one
transaction. ``flush ruleset`` would take away what others made, and is never sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import CommandError, KernelFormatError
from reconciler.kernel import command

Entry = dict[str, dict[str, object]]
"""One object of a listing: its kind, and what nft says of it."""

_TIMEOUT_S = 20.0
_ABSENT = "No such file or directory"


def apply(ruleset: str) -> None:
    """Load a ruleset in one transaction: all of it or, on an error, nothing.

    Shape: nft(8)'s language, or its JSON if the text begins with a brace.
    Raises: CommandError with nft's complaint; TimeLimitError; MissingToolError.
    """
    with _complaints("load nftables ruleset"):
        command.run(_load(ruleset), timeout_s=_TIMEOUT_S, input=ruleset.encode())


async def apply_async(ruleset: str) -> None:
    """Do the same as `apply` without holding up the loop."""
    with _complaints("load nftables ruleset"):
        await command.run_async(_load(ruleset), timeout_s=_TIMEOUT_S, input=ruleset.encode())


def check(ruleset: str) -> None:
    """Let nft and the kernel examine a ruleset without loading it.

    Raises: as `apply`.
    """
    with _complaints("check nftables ruleset"):
        command.run([*_load(ruleset), "-c"], timeout_s=_TIMEOUT_S, input=ruleset.encode())


def list_table(family: str, name: str) -> list[Entry] | None:
    """List a table; None is: looked, and not there.

    Shape: the entries of ``nftables`` in libnftables-json(5), without the one that tells nft's own version.
    Raises: CommandError, KernelFormatError, TimeLimitError, MissingToolError.
    """
    try:
        with _complaints(f"list nftables table {family} {name}"):
            printed = command.run(["nft", "-j", "list", "table", family, name], timeout_s=_TIMEOUT_S)
    except CommandError as err:
        if err.status == 1 and _ABSENT in err.output:
            return None
        raise
    return parse_listing(printed)


def parse_listing(printed: str) -> list[Entry]:
    """Parse what ``nft -j list`` prints.

    Raises: KernelFormatError.
    Source: libnftables-json(5).
    """
    try:
        entries = json.loads(printed)["nftables"]
        return [entry for entry in entries if "metainfo" not in entry]
    except (ValueError, KeyError, TypeError) as err:
        raise KernelFormatError(f"parse nft's listing: expected its JSON, got {printed[:200]!r}") from err


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
