"""Settings: those of a VE of the in-memory host that were set since it was made."""

from __future__ import annotations

from dataclasses import replace

from reconciler.errors import KernelError
from reconciler.model.identity import Uid
from reconciler.model.settings import TERMINALS, SetSetting, SettingsObservation
from reconciler.plan.settings import NAMES
from reconciler.twin import power
from reconciler.twin.machine import Machine


def perform(machine: Machine, effect: SetSetting) -> None:
    """Carry out one effect.

    Raises: KernelError.
    """
    doing = f"set {effect.name} of VE {effect.uid}"
    require = power.require_files if effect.name == TERMINALS else power.require_runtime
    runtime = require(machine, effect.uid, doing)
    settings = dict(runtime.settings)
    if effect.value is None:
        settings.pop(effect.name, None)
    elif effect.name in NAMES:
        settings[effect.name] = effect.value
    else:
        raise KernelError(f"{doing}: no such parameter")
    machine.runtimes[effect.uid] = replace(runtime, settings=settings)


def observe(machine: Machine, uid: Uid) -> SettingsObservation | None:
    """Look at what was set of a VE."""
    runtime = machine.runtimes.get(uid)
    return None if runtime is None else SettingsObservation(values=dict(runtime.settings))
