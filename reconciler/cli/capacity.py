"""`capacity`: what a host has, what of it is promised to VEs, and what is left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from reconciler.model.capacity import Balance, Resource
    from reconciler.model.facts import Json
    from reconciler.model.fleet import Fleet
    from reconciler.model.observation import HostObservation
    from reconciler.state.config import Config

_HEADER = (
    *("HOST", "RESOURCE", "CAPACITY", "RESERVE", "GUARANTEED", "FREE"),
    *("LIMITS", "OVERCOMMIT", "LIMITS-FREE", "USED"),
)
_NONE = "-"


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """One host. ``ves``: how many VEs are promised something; ``warnings``: what its administrator should know."""

    host: str
    ves: int
    balances: Sequence[Balance]
    warnings: Sequence[str] = ()


def capacity(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST|PATH",
            help="A host of the manifests in force, or manifests to add up, - for standard input. This host, if none.",
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TABLE,
) -> int:
    """Tell what a host has, what of it is promised to VEs, and what is left.

    With PATH it needs neither root nor a host: it adds up what manifests ask for.
    """
    accounts = _accounts(what)
    if form is Format.JSON:
        output.document({"format": 1, "hosts": [_item(account) for account in accounts]})
    else:
        output.table(_HEADER, [_cells(account.host, one) for account in accounts for one in account.balances])
    for account in accounts:
        for warning in account.warnings:
            output.words(f"vectl: {warning}")
    return int(ExitCode.OK)


def _accounts(what: str | None) -> list[_Account]:
    if what is not None and (what == "-" or os.path.exists(what)):
        fleet, _ = context.load_fleet(what)
        return _of_manifests(fleet)
    config = context.load_config()
    context.need_root()
    if what is None or what == config.instance.host:
        return [context.run(_of_this_host(config))]
    _, fleet_in_force = context.last_good(config)
    found = [one for one in _of_manifests(fleet_in_force) if one.host == what] if fleet_in_force else []
    if not found:
        raise UsageError(f"add up {what}: expected a host of the manifests in force, or a path of manifests")
    return found


def _of_manifests(fleet: Fleet) -> list[_Account]:
    from reconciler.model.capacity import balances, claim, supplies
    from reconciler.model.identity import HostName

    names = sorted({*fleet.hosts, *(spec.host for spec in fleet.ves.values() if spec.host is not None)})
    accounts = []
    for name in names or [HostName(context.load_config().instance.host)]:
        specs = [spec for spec in fleet.ves.values() if spec.host == name or (spec.host is None and len(names) <= 1)]
        have = supplies(fleet.hosts.get(name), {})
        accounts.append(_Account(host=name, ves=len(specs), balances=balances(map(claim, specs), have, {})))
    return accounts


async def _of_this_host(config: Config) -> _Account:
    from reconciler.agent.unbuilt import observe_unbuilt
    from reconciler.host import ground
    from reconciler.model.fleet import Fleet

    if not ground.has_pool(config.instance):
        return _observed(config, Fleet(revision=""), observe_unbuilt(config.instance))
    async with context.looking(config) as session:
        return _observed(config, session.reconciler.fleet, await session.reconciler.observe())


def _observed(config: Config, fleet: Fleet, seen: HostObservation) -> _Account:
    from reconciler.model.capacity import balances, machine_of, shortfalls, supplies
    from reconciler.model.volume import Record
    from reconciler.plan.capacity import claimed

    host, machine = config.instance.host, machine_of(seen)
    spec = fleet.hosts.get(host)
    records = [ve.record for ve in seen.ves.values() if isinstance(ve.record, Record)]
    return _Account(
        host=host,
        ves=len(records),
        balances=balances((claimed(r.applied) for r in records), supplies(spec, machine), _used(seen)),
        warnings=tuple(shortfalls(spec, machine)),
    )


def _used(seen: HostObservation) -> dict[Resource, int]:
    from reconciler.model.capacity import Resource
    from reconciler.model.compute import ComputeObservation
    from reconciler.model.observation import PoolObservation

    computes = [ve.compute for ve in seen.ves.values() if isinstance(ve.compute, ComputeObservation)]
    used = {Resource.MEMORY: sum(compute.use.memory or 0 for compute in computes)}
    if isinstance(seen.pool, PoolObservation):
        used[Resource.DISK] = seen.pool.size - seen.pool.free
    return used


def _item(account: _Account) -> dict[str, Json]:
    resources: list[Json] = [one.to_json() for one in account.balances]
    return {
        "host": account.host,
        "ves": account.ves,
        "resources": resources,
        "warnings": [*account.warnings],
    }


def _cells(host: str, one: Balance) -> list[str]:
    from reconciler.model.capacity import Kind, amount_text

    def text(size: int | None) -> str:
        return _NONE if size is None else amount_text(one.resource, size).partition(" ")[0]

    have = one.supply
    return [
        host,
        one.resource.value,
        text(have.machine),
        text(have.reserve),
        text(one.guaranteed),
        text(one.free(Kind.GUARANTEE)),
        "unlimited" if one.limits is None else text(one.limits),
        _NONE if have.overcommit is None else f"{have.overcommit:g}",
        text(one.free(Kind.LIMIT)),
        text(one.used),
    ]
