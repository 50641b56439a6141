"""Debris: what a crash has left of VEs, and of states of their data, that were being made, switched in or deleted."""

from __future__ import annotations

import os
from contextlib import suppress

from reconciler.errors import VectlError
from reconciler.host import capturing, cloning, dumps, kept, resuming, switching
from reconciler.host.site import Site
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Uid


def sweep(site: Site) -> None:
    """Bring every switch to its end, and delete what was never whole, or is no more: VEs and states of their data.

    What fails for one VE is met again, and told, by whatever is done with that VE.

    Raises: KernelError; BusyError, if something is mounted in what is no more.
    """
    for directory in (site.instance.trash, site.instance.ves):
        with file_errors("list", directory):
            names = os.listdir(directory)
        for name in names:
            if name.startswith("."):
                kept.delete(site, f"{directory}/{name}")
    kept.forget_empty_groups(site)
    for uid in site.uids():
        with suppress(VectlError):
            switching.settle_now(site, uid)
            capturing.sweep(site, uid)
            cloning.discard_unborn(site, uid)
            dumps.sweep(site, uid)
            resuming.sweep(site, uid)
            _sweep_snapshots(site, uid)


def _sweep_snapshots(site: Site, uid: Uid) -> None:
    directory = site.instance.snapshots_dir(uid)
    if not os.path.isdir(directory):
        return
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        # A memory may be being written by the keeper, which outlives whoever asked for it.
        if name.startswith(".") and not os.path.isdir(f"{path}/{kept.MEMORY}"):
            kept.delete(site, path)
