"""Devices: device files and interfaces of the host, given to a running VE and taken from it."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model.action import Impact
from reconciler.model.devices import AddDevice, AddNic, DevicesObservation, DevicesSpec, RemoveDevice, RemoveNic
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.observation import Facet
from reconciler.model.paths import key_in_path, key_of
from reconciler.plan.field import Difference, Field, Value

FIELDS = (
    Field(path="features.fuse", facet=None, impact=Impact.LIVE, default=False, effect="gives it /dev/fuse"),
    Field(path="devices.*", facet=Facet.DEVICES, impact=Impact.LIVE, default=None, effect="given or taken"),
    Field(
        path="devices.*.access", facet=Facet.DEVICES, impact=Impact.LIVE, default="rw", effect="of those who open it"
    ),
    Field(path="devices.*.nic", facet=Facet.DEVICES, impact=Impact.LIVE, default=None, effect="moved in and back"),
)


def record_values(spec: DevicesSpec | DevicesObservation) -> dict[str, Value]:
    """Give the values by path."""
    nodes: dict[str, Value] = {f"{_path(path)}.access": access for path, access in sorted(spec.nodes.items())}
    return nodes | {f"{_path(nic)}.nic": nic for nic in sorted(spec.nics)}


def _path(key: str) -> str:
    return f"devices.{key_in_path(key)}"


def differences(wanted: DevicesSpec, observed: DevicesObservation) -> Iterator[tuple[str, Value, Value]]:
    """Yield (path, desired, observed) of everything that is not as desired."""
    for path in sorted(observed.nodes.keys() - wanted.nodes.keys()):
        yield _path(path), None, observed.nodes[path]
    for nic in sorted(observed.nics - wanted.nics):
        yield f"{_path(nic)}.nic", None, nic
    for path, access in sorted(wanted.nodes.items()):
        seen = observed.nodes.get(path)
        if seen is None:
            yield _path(path), access, None
        elif seen != access:
            yield f"{_path(path)}.access", access, seen
    for nic in sorted(wanted.nics - observed.nics):
        yield f"{_path(nic)}.nic", nic, None


def impact(difference: Difference) -> Impact:
    """Judge a change: an interface that leaves takes its connections along."""
    leaves = difference.path.endswith(".nic") and difference.desired is None
    return Impact.NETWORK if leaves else difference.field.impact


def set_effects(uid: Uid, wanted: DevicesSpec, difference: Difference) -> tuple[Effect, ...]:
    """Carry out one difference."""
    key, leaves = key_of(difference.path.split(".")[1]), difference.desired is None
    if difference.path.endswith(".nic"):
        return (RemoveNic(uid=uid, nic=key) if leaves else AddNic(uid=uid, nic=key),)
    return (RemoveDevice(uid=uid, path=key) if leaves else AddDevice(uid=uid, path=key, access=wanted.nodes[key]),)


def boot_effects(uid: Uid, wanted: DevicesSpec) -> tuple[Effect, ...]:
    """Give the devices before init is let go."""
    nodes = (AddDevice(uid=uid, path=path, access=access) for path, access in sorted(wanted.nodes.items()))
    return (*nodes, *(AddNic(uid=uid, nic=nic) for nic in sorted(wanted.nics)))
