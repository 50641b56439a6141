"""Settings: fields that become parameters of the VE's namespaces, and limits of its sockets and terminals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.model.action import Impact
from reconciler.model.counters import PAGE
from reconciler.model.facts import Json
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities, Facet
from reconciler.model.settings import (
    OTHER_SOCKETS,
    SYSCTLS,
    TCP_SOCKETS,
    TERMINALS,
    SetSetting,
    SettingsObservation,
    SettingsSpec,
)
from reconciler.plan.field import Difference, Field, Value

_PATHS: Mapping[str, str] = {
    "kernel.shmall": "ipc.shmall",
    "kernel.shmmax": "ipc.shmmax",
    "kernel.shmmni": "ipc.shmmni",
    "kernel.msgmax": "ipc.msgmax",
    "kernel.msgmnb": "ipc.msgmnb",
    "kernel.msgmni": "ipc.msgmni",
    "kernel.sem": "ipc.semmni",
    "net.ipv4.tcp_wmem": "beancounters.tcpsndbuf.limit",
    "net.ipv4.tcp_rmem": "beancounters.tcprcvbuf.limit",
    TCP_SOCKETS: "beancounters.numtcpsock.limit",
    OTHER_SOCKETS: "beancounters.numothersock.limit",
    TERMINALS: "beancounters.numpty.limit",
}
_NAMES = {path: name for name, path in _PATHS.items()}
_RESTS_ON: Mapping[str, tuple[str, ...]] = {
    "rlimits": ("rlimits", "beancounters.lockedpages.limit", "beancounters.numsiginfo.limit"),
    "ipc.shmall": ("ipc.shmall", "beancounters.shmpages.limit"),
    "ipc.semmni": ("ipc.semmni", "ipc.semmsl"),
}
_EFFECTS: Mapping[str, str] = {
    "ipc.shmall": "hard limit",
    "ipc.shmmax": "hard limit",
    "ipc.shmmni": "hard limit",
    "ipc.msgmax": "hard limit",
    "ipc.msgmnb": "hard limit",
    "ipc.msgmni": "hard limit",
    "ipc.semmni": "hard limit",
    "beancounters.tcpsndbuf.limit": "hard limit of each socket",
    "beancounters.tcprcvbuf.limit": "hard limit of each socket",
    "beancounters.numtcpsock.limit": "hard limit",
    "beancounters.numothersock.limit": "hard limit",
    "beancounters.numpty.limit": "hard limit",
}

_EACH_PROCESS = "hard limit of each process, fixed at start"
_EACH_USER = "hard limit of each user, fixed at start"

FIELDS = (
    *(
        Field(path=path, facet=Facet.SETTINGS, impact=Impact.LIVE, default=None, effect=effect)
        for path, effect in _EFFECTS.items()
    ),
    *(Field(path=f"sysctls.{name}", facet=Facet.SETTINGS, impact=Impact.LIVE, default=None) for name in SYSCTLS),
    Field(path="ipc.semmsl", facet=Facet.SETTINGS, impact=Impact.LIVE, default=None, effect="hard limit"),
    Field(path="beancounters.*.barrier", facet=None, impact=Impact.NONE, default=None, effect="told of above"),
    Field(path="beancounters.lockedpages.limit", facet=None, impact=Impact.RESTART, default=None, effect=_EACH_PROCESS),
    Field(path="beancounters.numsiginfo.limit", facet=None, impact=Impact.RESTART, default=None, effect=_EACH_USER),
    Field(path="beancounters.shmpages.limit", facet=None, impact=Impact.LIVE, default=None, effect="see ipc.shmall"),
    Field(path="beancounters.*.limit", facet=None, impact=Impact.NONE, default=None, effect="told of above"),
)


NAMES = frozenset({*_PATHS, *SYSCTLS})
"""All settings that there are."""


def wanted(spec: SettingsSpec, capabilities: Capabilities) -> dict[str, str]:
    """Give the settings that this host can hold, by name."""
    return {name: value for name, value in spec.values.items() if path_of(name) not in capabilities.why_not}


def unenforceable(spec: SettingsSpec, capabilities: Capabilities) -> dict[str, str]:
    """Name the fields that were asked for and that this host can only observe, with the reason by path."""
    paths = map(path_of, spec.values)
    return {path: capabilities.why_not[path] for path in paths if path in capabilities.why_not}


def path_of(name: str) -> str:
    """Give the path of the field that a setting stands for."""
    return _PATHS.get(name, f"sysctls.{name}")


def recorded_as(path: str) -> tuple[str, ...]:
    """Name the paths of the record on which a setting, or a limit of each process, rests."""
    return ("sysctls",) if path.startswith("sysctls.") else _RESTS_ON.get(path, (path,))


def differences(
    spec: SettingsSpec, observed: SettingsObservation, capabilities: Capabilities
) -> Iterator[tuple[str, Value, Value]]:
    """Yield the path of each setting that is not as desired, with both values; None: not set, or no longer."""
    desired = wanted(spec, capabilities)
    for name in dict.fromkeys((*desired, *observed.values)):
        values = desired.get(name), observed.values.get(name)
        if values[0] != values[1]:
            yield path_of(name), *values


def set_effects(uid: Uid, difference: Difference) -> tuple[SetSetting, ...]:
    """Carry out one difference."""
    value = difference.desired
    assert value is None or isinstance(value, str)
    return (_set(uid, difference.path, value),)


def _set(uid: Uid, path: str, value: str | None) -> SetSetting:
    return SetSetting(uid=uid, name=_NAMES.get(path, path.removeprefix("sysctls.")), value=value)


def explain(path: str, value: Value) -> Json:
    """Give a setting as its field has it: pages as bytes, of several numbers the one that is meant, none as null."""
    if not isinstance(value, str) or path.startswith("sysctls."):
        return value if isinstance(value, str) else None
    words = value.split()
    if not words or not words[-1].isdecimal():
        return None
    return int(words[-1]) * (PAGE if path == "ipc.shmall" else 1)


def boot_effects(uid: Uid, spec: SettingsSpec, capabilities: Capabilities) -> tuple[SetSetting, ...]:
    """Set everything before init is let go."""
    return tuple(SetSetting(uid=uid, name=name, value=value) for name, value in wanted(spec, capabilities).items())


def observed_values(observed: SettingsObservation) -> dict[str, Json]:
    """Give what was seen, by path; parameters under their own names below ``sysctls``."""
    values = {path_of(name): explain(path_of(name), value) for name, value in observed.values.items() if name in _PATHS}
    sysctls: dict[str, Json] = {name: value for name, value in sorted(observed.values.items()) if name not in _PATHS}
    return values | ({"sysctls": sysctls} if sysctls else {})
