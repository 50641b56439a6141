"""Beancounters, IPC limits and sysctls of a manifest as the settings that the kernel is given."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.manifests.kinds.base import Section
from reconciler.manifests.kinds.compute import Beancounters, Ipc
from reconciler.manifests.kinds.ve import VeBody
from reconciler.model.counters import PAGE
from reconciler.model.facts import Json
from reconciler.model.settings import OTHER_SOCKETS, TCP_SOCKETS, TERMINALS, SettingsSpec

_SEM = {"semmsl": 32000, "semmns": 1_024_000_000, "semopm": 500, "semmni": 32000}
"""What a new namespace has. Source: Linux include/uapi/linux/sem.h."""

_WMEM, _RMEM = (4096, 16384, 4194304), (4096, 131072, 6291456)
"""Least, first and greatest size of a TCP socket's buffers. Source: Linux Documentation/networking/ip-sysctl.rst."""

_GROUPS = "net.ipv4.ping_group_range"
_LAST_ID = 65535


def settings(body: VeBody) -> SettingsSpec:
    """Make the settings of a VE, with what is declared by the paths that a record has them under."""
    declared: dict[str, Json] = {
        **{f"ipc.{name}": value for name, value in _set(body.ipc).items()},
        **{
            f"beancounters.{name}.{edge}": value
            for name in Beancounters.model_fields
            if name in body.beancounters.model_fields_set
            for edge, value in _set(getattr(body.beancounters, name)).items()
        },
    }
    sysctls: dict[str, str] = {name: _spaced(name, text) for name, text in sorted(body.sysctls.items())}
    if sysctls:
        declared["sysctls"] = {**sysctls}
    return SettingsSpec(
        values={**_of_ipc(body.ipc, body.beancounters), **_of_counters(body), **sysctls}, declared=declared
    )


def rlimits(counters: Beancounters) -> dict[str, int]:
    """Give the limits of each process that come of counters: the kernel limits these things by process or by user."""
    found = {"memlock": counters.lockedpages.limit, "sigpending": counters.numsiginfo.limit}
    return {name: value for name, value in found.items() if value is not None}


def _set(section: Section) -> dict[str, int]:
    return {name: value for name, value in section if value is not None} if section.model_fields_set else {}


def _spaced(name: str, text: str) -> str:
    words = text.split()
    if name == _GROUPS and len(words) == 2 and all(word.isdecimal() for word in words):
        words = [str(min(int(word), _LAST_ID)) for word in words]
    return " ".join(words)


def _of_ipc(ipc: Ipc, counters: Beancounters) -> dict[str, str]:
    limits = _set(ipc)
    found = {f"kernel.{name}": str(value) for name, value in limits.items() if name not in ("shmall", *_SEM)}
    shared = [value for value in (ipc.shmall, counters.shmpages.limit) if value is not None]
    if shared:
        found["kernel.shmall"] = str(min(shared) // PAGE)
    if limits.keys() & _SEM.keys():
        found["kernel.sem"] = " ".join(str(limits.get(name, default)) for name, default in _SEM.items())
    return found


def _of_counters(body: VeBody) -> dict[str, str]:
    counters = body.beancounters
    limits: Mapping[str, int | None] = {
        TCP_SOCKETS: counters.numtcpsock.limit,
        OTHER_SOCKETS: counters.numothersock.limit,
        TERMINALS: counters.numpty.limit,
    }
    found = {name: str(limit) for name, limit in limits.items() if limit is not None}
    for name, limit, sizes in (
        ("net.ipv4.tcp_wmem", counters.tcpsndbuf.limit, _WMEM),
        ("net.ipv4.tcp_rmem", counters.tcprcvbuf.limit, _RMEM),
    ):
        if limit is not None:
            found[name] = " ".join(str(min(size, max(limit, sizes[0]))) for size in sizes)
    return found
