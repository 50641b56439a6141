"""Random sequences of effects for the contract between the two hosts.

A sequence is found by walking a twin: what is to be made next is the likely choice, so that most sequences boot a VE,
change it, stop it and throw it away. In between come repetitions, and effects drawn blindly, many of which must fail.
Trash ids are ordinal (``<uid>.<n>``, oldest first), as real ones hold the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from reconciler.errors import VectlError
from reconciler.model.effects import EFFECT_TYPES, Effect
from reconciler.model.identity import Uid, bridge_name
from reconciler.model.network import (
    AddHostRoute,
    AttachInterface,
    InterfaceObservation,
    NetworkMode,
    SetInterfaceUp,
)
from reconciler.model.snapshots import RollBack
from reconciler.model.volume import CreateVolume, SetVolumeSize, TrashVe, WriteRecord
from reconciler.twin import volume
from reconciler.twin.host import TwinHost, perform
from reconciler.twin.machine import Machine
from tests.support import effect_blind
from tests.support.contract import with_real_trash_id
from tests.support.effect_choices import NIC, Choices, Setting

_DRAWN = tuple(kind for kind in EFFECT_TYPES if kind not in effect_blind.NOT_DRAWN)


def new_twin(setting: Setting) -> TwinHost:
    """Make the twin of a host on which the sequences of a setting begin: it forwards IPv6, as nothing ends that."""
    twin = TwinHost(setting.instance, setting.capabilities)
    twin.machine.forwards_ipv6 = True
    twin.machine.host_links[NIC] = ""
    if setting.taken is not None:
        twin.machine.host_links[bridge_name(setting.instance.name, setting.taken)] = ""
    return twin


def sequences(setting: Setting, *, seed: int, count: int, length: int) -> Iterator[list[Effect]]:
    """Yield sequences of effects; equal arguments give equal sequences."""
    for number in range(count):
        yield list(_walk(setting, Random(f"{seed}.{number}"), length))


def outcomes(setting: Setting, effects: list[Effect]) -> Iterator[tuple[Effect, VectlError | None]]:
    """Yield what comes of each effect of a sequence."""
    machine = new_twin(setting).machine
    for effect in effects:
        yield effect, _perform(machine, effect)


def _walk(setting: Setting, random: Random, length: int) -> Iterator[Effect]:
    choices = Choices(setting, new_twin(setting).machine, random)
    done: list[Effect] = []
    for _ in range(length):
        effect = next(drawn for drawn in _draws(choices, done) if not _is_open(choices.machine, drawn))
        if _perform(choices.machine, effect) is None:
            done.append(effect)
        yield effect


def _draws(choices: Choices, done: list[Effect]) -> Iterator[Effect]:
    while True:
        chance = choices.random.random()
        if chance < 0.70:
            yield choices.likely()
        elif chance < 0.80:
            yield choices.of_host()
        elif chance < 0.84 and done:
            yield done[-1]
        else:
            yield effect_blind.draw(choices, choices.random.choice(_DRAWN))


def _perform(machine: Machine, effect: Effect) -> VectlError | None:
    try:
        perform(machine, with_real_trash_id(effect, volume.observe_trash(machine)))
    except VectlError as err:
        return err
    return None


def _is_open(machine: Machine, effect: Effect) -> bool:
    """Say whether the contract leaves open what comes of an effect in this state, so that it proves nothing."""
    match effect:
        case SetInterfaceUp():
            return effect.uid in machine.runtimes and not machine.runtimes[effect.uid].network.loopback_up
        case AttachInterface():
            return _is_open_attachment(machine, effect)
        case AddHostRoute():
            link = _link(machine, effect.uid, effect.interface)
            return link is not None and (link.bridge is not None or effect.address.version == 6)
        case TrashVe():
            return effect.uid in machine.holdings or (
                effect.uid not in machine.records and (effect.uid in machine.cgroups or effect.uid in machine.runtimes)
            )
        case CreateVolume() | SetVolumeSize():
            # An empty volume shares nothing with a copy of it, and the kernel comes to know that nothing is shared any
            # more some time after the last copy is deleted.
            present = machine.volumes.get(effect.uid)
            return effect.total is not None and present is not None and present.shares and not present.grouped
        case RollBack():
            kept = machine.snapshots.get(effect.uid, {}).get(effect.to)
            return effect.total is not None and kept is not None and not (kept.volume.is_image or kept.volume.grouped)
        case WriteRecord():
            return effect.record.uid in machine.records and effect.template_key not in machine.templates
        case _:
            return False


def _is_open_attachment(machine: Machine, effect: AttachInterface) -> bool:
    if effect.mode is NetworkMode.ROUTED:
        return effect.network not in machine.networks
    link = _link(machine, effect.uid, effect.interface)
    return link is not None and bool(link.host_routes)


def _link(machine: Machine, uid: Uid, interface: str) -> InterfaceObservation | None:
    runtime = machine.runtimes.get(uid)
    return None if runtime is None else runtime.network.interfaces.get(interface)
