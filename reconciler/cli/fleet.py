"""What the hosts of a fleet told of themselves and their VEs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.cli import output
from reconciler.errors import ConfigError, StateError

if TYPE_CHECKING:
    from reconciler.fleet.bulletin import Told
    from reconciler.model.facts import Json
    from reconciler.model.identity import HostName
    from reconciler.state.config import Config

Item = Mapping[str, "Json"]

_HEADER = ("NAME", "HOST", "POWER", "READY", "CPU", "MEM", "DISK", "ADDRESSES", "SEEN")
_WIDE = ("TEMPLATE", "UID")


async def read(config: Config) -> Mapping[HostName, Told]:
    """Ask the coordinator what the hosts told.

    Raises: ConfigError, if there is none; CoordinatorAwayError.
    """
    if config.etcd is None:
        raise ConfigError("look at the fleet: expected `coordinator: {etcd: ...}` in the configuration")
    from reconciler.fleet.bulletin import read_bulletins
    from reconciler.fleet.etcd import EtcdStore
    from reconciler.fleet.keys import Keys

    store = EtcdStore(config.etcd)
    try:
        return await read_bulletins(store, Keys(config.etcd.fleet))
    finally:
        store.close()


def items(told: Mapping[HostName, Told], names: Sequence[str], *, now: float) -> list[dict[str, Json]]:
    """Give the VEs of all hosts by name, each with its host and the age of what is said of it.

    Raises: StateError, naming the first one that nobody told of.
    """
    found = [
        {**row, "host": str(host), "hostAlive": one.alive, "seenSecondsAgo": _age(one.status, now)}
        for host, one in told.items()
        for row in one.rows.values()
    ]
    found.sort(key=lambda item: (str(item.get("name")), str(item["host"])))
    there = {item.get("name") for item in found}
    for name in names:
        if name not in there:
            raise StateError(f"get --fleet {name}: no host told of a VE of that name")
    return [item for item in found if not names or item.get("name") in names]


def table(found: Sequence[Item], *, wide: bool) -> None:
    """Print VEs as a table; what other hosts said is shown as text, whatever it is."""
    header = (*_HEADER, *(_WIDE if wide else ()))
    output.table(header, [[output.one_line(cell) for cell in _cells(item, wide=wide)] for item in found])


def _cells(item: Item, *, wide: bool) -> Iterator[str]:
    yield from (str(item.get("name")), str(item["host"]), str(item.get("power") or "-"), _ready(item))
    for path in (("cpu", "limit"), ("memory", "limit"), ("disk", "size")):
        yield _limit(item, path)
    yield ",".join(sorted(_addresses(item))) or "-"
    yield age_text(item.get("seenSecondsAgo"), alive=bool(item["hostAlive"]))
    if wide:
        yield from (str(_at(item, "desired", "template") or "-"), str(item.get("uid") or "-"))


def _ready(item: Item) -> str:
    conditions = item.get("conditions")
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, dict) and one.get("type") == "Ready":
            return "True" if one.get("status") == "True" else f"{one.get('status')} ({one.get('reason')})"
    return "Unknown"


def _limit(item: Item, path: Sequence[str]) -> str:
    from reconciler.model.compute import CPU_PERIOD_US
    from reconciler.model.units import format_size

    value = _at(item, "observed", *path)
    if not isinstance(value, int):
        value = _at(item, "desired", *path)
    if not isinstance(value, int):
        return "unlimited"
    return f"{value / CPU_PERIOD_US:g}" if path[0] == "cpu" else format_size(value)


def _addresses(item: Item) -> Iterator[str]:
    links = _at(item, "observed", "interfaces")
    for link in links.values() if isinstance(links, dict) else ():
        addresses = link.get("addresses") if isinstance(link, dict) else None
        yield from (str(one).partition("/")[0] for one in (addresses if isinstance(addresses, list) else ()))


def _at(item: Item, *path: str) -> Json:
    found: Json = dict(item)
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def hosts(config_host: str, told: Mapping[HostName, Told], declared: Mapping[HostName, Item]) -> list[dict[str, Json]]:
    """Give the hosts that manifests name or that told anything."""
    now = time.time()
    found: list[dict[str, Json]] = []
    for name in sorted(told.keys() | declared.keys()):
        one = told.get(name)
        status = {} if one is None else one.status
        found.append(
            {
                "name": str(name),
                "here": name == config_host,
                "alive": one is not None and one.alive,
                "maintenance": None,
                "address": None,
                **declared.get(name, {}),
                "declared": name in declared,
                "ves": status.get("ves"),
                "running": status.get("running"),
                "version": status.get("version"),
                "revision": status.get("revision"),
                "capacity": status.get("capacity"),
                "seenSecondsAgo": _age(status, now),
            }
        )
    return found


def _age(status: Mapping[str, Json], now: float) -> float | None:
    """Give how old what a host said is; None, if it said nothing. Clocks differ a little, and nothing is from later."""
    told_at = status.get("time")
    return round(max(0.0, now - told_at), 1) if isinstance(told_at, int | float) else None


def age_text(age: Json, *, alive: bool) -> str:
    """Give an age in words, and whether whoever said it is silent since."""
    from reconciler.model.units import format_duration

    if not isinstance(age, int | float):
        return "never"
    words = f"{format_duration(float(int(age)))} ago"
    return words if alive else f"{words} (silent)"
