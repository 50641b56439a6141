"""The nftables of the calling thread's namespace, loaded and listed as an administrator would."""

from __future__ import annotations

import asyncio
import json
import subprocess

from reconciler.kernel import nft

Entry = dict[str, dict[str, object]]
"""One object of a listing: its kind, and what nft says of it."""


def load(ruleset: str) -> None:
    """Load a ruleset."""
    asyncio.run(nft.apply(ruleset))


def list_table(family: str, name: str) -> list[Entry] | None:
    """List a table; None, if it is not there."""
    argv = ["nft", "-j", "list", "table", family, name]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode and "No such file or directory" in done.stderr:
        return None
    done.check_returncode()
    return [entry for entry in json.loads(done.stdout)["nftables"] if "metainfo" not in entry]
