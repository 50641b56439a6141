"""The directories of an instance's own files, which only root enters."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress

from reconciler.kernel import files
from reconciler.kernel.syscalls import translated
from reconciler.model.instance import Instance

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp\Z")
"""The names that `files.write_atomic` gives to what it has not finished."""

_SWEEP_AFTER_S = 3600.0


def inventory_dir(instance: Instance) -> str:
    """Give the directory of the inventory's entries."""
    return f"{instance.state_dir}/inventory"


def journal_dir(instance: Instance) -> str:
    """Give the directory of the journal's open intents."""
    return f"{instance.state_dir}/journal"


def conditions_dir(instance: Instance) -> str:
    """Give the directory of the conditions, gone after a reboot as what they tell of is."""
    return f"{instance.run_dir}/conditions"


def events_file(instance: Instance) -> str:
    """Give the path of the newer part of the events."""
    return f"{instance.state_dir}/events.jsonl"


def parsed_file(instance: Instance) -> str:
    """What was parsed of manifests, which a start then need not parse; anybody may remove it."""
    return f"{instance.state_dir}/parsed.json"


def source_dir(instance: Instance) -> str:
    """Give the directory of what is remembered of the source: its mirrors, and whom of it was trusted."""
    return f"{instance.state_dir}/source"


def mirror_dir(instance: Instance, urls: Iterable[str]) -> str:
    """Give the directory of the mirror of a repository by its addresses."""
    name = hashlib.sha256("\n".join(urls).encode()).hexdigest()[:16]
    return f"{source_dir(instance)}/{name}.git"


def prepare(instance: Instance) -> None:
    """Make the directories that are not there yet.

    Raises: KernelError, NoSpaceError.
    """
    for path in (inventory_dir(instance), journal_dir(instance), conditions_dir(instance)):
        make_directory(path)


def sweep(instance: Instance, *, now: float) -> None:
    """Remove the temporary files that crashes left. Those of the last hour stay: somebody may be writing them.

    Units: ``now`` seconds since the epoch.
    Raises: KernelError.
    """
    for directory in (instance.state_dir, inventory_dir(instance), journal_dir(instance), conditions_dir(instance)):
        for name in names_in(directory):
            path = f"{directory}/{name}"
            if _TEMPORARY.match(name) and _modified_at(path) < now - _SWEEP_AFTER_S:
                remove_file(path)


def make_directory(path: str) -> None:
    """Make a directory and those above it, so that they outlive a power cut; "already so" is success.

    Raises: KernelError, NoSpaceError.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "."
    make_directory(parent)
    with translated("make directory", path), suppress(FileExistsError):
        os.mkdir(path, 0o700)
    files.sync_directory(parent)


def names_in(path: str) -> tuple[str, ...]:
    """List a directory, sorted; none, if there is no such directory.

    Raises: KernelError.
    """
    with translated("list", path):
        try:
            return tuple(sorted(os.listdir(path)))
        except FileNotFoundError:
            return ()


def _modified_at(path: str) -> float:
    with translated("read", path):
        try:
            return os.lstat(path).st_mtime
        except FileNotFoundError:
            return math.inf


def remove_file(path: str) -> None:
    """Remove a file so that it stays removed after a power cut; absent is success.

    Raises: KernelError.
    """
    if drop_file(path):
        files.sync_directory(os.path.dirname(path))


def drop_file(path: str) -> bool:
    """Remove a file that may come back with a power cut; say whether there was one.

    Raises: KernelError.
    """
    with translated("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    return True
