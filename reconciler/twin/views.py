"""Views: the lxcfs of the in-memory host, and which VEs see what it serves."""

from __future__ import annotations

from dataclasses import replace

from reconciler.errors import MissingToolError
from reconciler.model.identity import Uid
from reconciler.model.views import PATH, ShowViews, Views
from reconciler.twin import power
from reconciler.twin.machine import Machine


def perform(machine: Machine, effect: ShowViews) -> None:
    """Carry out one effect.

    Raises: KernelError, if nothing of the VE runs; MissingToolError, if there can be no lxcfs.
    """
    doing = f"show {effect.views} views"
    runtime = power.require_files(machine, effect.uid, doing)
    reason = machine.capabilities.why_not.get(PATH)
    if effect.views is Views.OWN and reason is not None:
        raise MissingToolError(f"{doing} to VE {effect.uid}: {reason}")
    served_by = machine.ensure_lxcfs() if effect.views is Views.OWN else None
    machine.runtimes[effect.uid] = replace(runtime, views=served_by)


def observe(machine: Machine, uid: Uid) -> Views | None:
    """Tell what a VE sees; None, if nothing of it runs."""
    runtime = machine.runtimes.get(uid)
    if runtime is None:
        return None
    if runtime.views is None:
        return Views.HOST
    return Views.OWN if runtime.views == machine.lxcfs else Views.BROKEN
