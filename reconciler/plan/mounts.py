"""Mounts: directories of the host, put into a running VE and taken out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.model.action import Impact
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.mounts import AddMount, MountsObservation, MountSpec, RemoveMount
from reconciler.model.observation import Facet
from reconciler.model.paths import key_in_path, key_of
from reconciler.plan.field import Difference, Field, Value

FIELDS = (
    Field(path="mounts.*", facet=Facet.MOUNTS, impact=Impact.LIVE, default=None, effect="directory shown or hidden"),
    Field(path="mounts.*.source", facet=Facet.MOUNTS, impact=Impact.LIVE, default="<required>"),
    Field(path="mounts.*.readOnly", facet=Facet.MOUNTS, impact=Impact.LIVE, default=False),
)


def record_values(mounts: Mapping[str, MountSpec]) -> dict[str, Value]:
    """Give the values by path."""
    values: dict[str, Value] = {}
    for target, mount in sorted(mounts.items()):
        values |= {f"mounts.{key_in_path(target)}.{part}": value for part, value in _parts(mount).items()}
    return values


def _parts(mount: MountSpec) -> dict[str, Value]:
    return {"source": mount.source, "readOnly": mount.read_only}


def differences(wanted: Mapping[str, MountSpec], observed: MountsObservation) -> Iterator[tuple[str, Value, Value]]:
    """Yield (path, desired, observed) of everything that is not as desired."""
    for target in sorted(observed.mounts.keys() - wanted.keys()):
        yield f"mounts.{key_in_path(target)}", None, observed.mounts[target].source
    for target, mount in sorted(wanted.items()):
        path, seen = f"mounts.{key_in_path(target)}", observed.mounts.get(target)
        if seen is None:
            yield path, mount.source, None
            continue
        now = _parts(seen)
        yield from ((f"{path}.{part}", value, now[part]) for part, value in _parts(mount).items() if value != now[part])


def set_effects(uid: Uid, wanted: Mapping[str, MountSpec], difference: Difference) -> tuple[Effect, ...]:
    """Carry out one difference."""
    target = key_of(difference.path.split(".")[1])
    if difference.desired is None:
        return (RemoveMount(uid=uid, target=target),)
    return (AddMount(uid=uid, target=target, mount=wanted[target]),)


def boot_effects(uid: Uid, wanted: Mapping[str, MountSpec]) -> tuple[Effect, ...]:
    """Show the directories before init is let go."""
    return tuple(AddMount(uid=uid, target=target, mount=mount) for target, mount in sorted(wanted.items()))
