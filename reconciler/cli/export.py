"""`observe` and `export`: what this host holds, for a plan elsewhere, and as manifests."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode, KernelError, StateError
from reconciler.model.identity import NetworkName

BUILT_IN = "busybox"
"""The template that exists without a manifest."""

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.model.facts import Json
    from reconciler.model.network import NetworkSpec
    from reconciler.model.observation import HostObservation
    from reconciler.model.volume import Record


def observe() -> int:
    """Print what this host holds, for `plan --observed FILE`."""
    context.need_root()
    output.data(context.run(_observe()))
    return int(ExitCode.OK)


async def _observe() -> str:
    from reconciler.agent.clock import SystemClock
    from reconciler.model import exchange

    async with context.looking(context.load_config()) as session:
        observed = await session.reconciler.observe()
        now = SystemClock().now()
        return exchange.encode_observation(session.config.instance.host, observed, at=now).decode()


def export(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="VEs.")],
    networks: Annotated[
        bool, typer.Option("--networks/--no-networks", help="Print the networks that they are on as well.")
    ] = True,
) -> int:
    """Print manifests that make VEs what they are now."""
    context.need_root()
    wanted = [document for document in context.run(_export(names)) if networks or document["kind"] != "Network"]
    output.data("---\n".join(output.yaml_text(document) for document in wanted))
    return int(ExitCode.OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A VE as it is now. ``values``: of its spec, nested, without ``links``, its interfaces by name."""

    record: Record
    values: dict[str, Json]
    links: dict[str, dict[str, Json]]


async def _export(names: Sequence[str]) -> list[dict[str, Json]]:
    async with context.looking(context.load_config()) as session:
        observed = await session.reconciler.observe()
        ves = [live(session, observed, name) for name in dict.fromkeys(names)]
        return documents(session, observed, ves)


def live(session: Session, observed: HostObservation, name: str) -> Live:
    """Look at a VE.

    Raises: StateError, if there is none of that name; KernelError, if not all of it can be read.
    """
    from reconciler.agent import view
    from reconciler.plan import export as now
    from reconciler.plan.field import nest
    from reconciler.plan.spec import unknown_paths

    row = view.row(session, observed, name)
    if row is None or row.seen is None or row.record is None:
        raise StateError(f"export {name}: this host has no VE of that name; see `vectl get`")
    if unknown := unknown_paths(row.seen):
        raise KernelError(f"export {name}: could not read its {', '.join(unknown)}; try again")
    values = nest(now.live_values(session.config.instance.name, row.record, row.seen))
    links = values.pop("interfaces", {})
    assert isinstance(links, dict)
    if values.get("hostname") == name:
        del values["hostname"]
    if row.record.protect:
        values["protect"] = True
    return Live(
        record=row.record, values=values, links={key: one for key, one in links.items() if isinstance(one, dict)}
    )


def documents(
    session: Session, observed: HostObservation, ves: Sequence[Live], *, known: Container[str] = ()
) -> list[dict[str, Json]]:
    """Give VEs' manifests, after those of what they are made of and on. ``known``: other VEs that manifests name."""
    from reconciler.manifests import written
    from reconciler.plan import export as now

    names = {str(ve.record.name) for ve in ves}
    for ve in ves:
        _leave_out_dependencies(ve, names, known)
    fleet, used = session.reconciler.fleet, {str(link["network"]) for ve in ves for link in ve.links.values()}
    networks = now.live_networks(session.config.instance.name, observed, fleet.networks, used)
    templates = {
        name: fleet.templates[name] for name in sorted({ve.record.template for ve in ves} & set(fleet.templates))
    }
    beside = [written.template_document(template) for template in templates.values() if template.name != BUILT_IN]
    beside += [written.network_document(network, ves=names) for network in networks.values()]
    return [*beside, *(_document(ve, networks, beside) for ve in ves)]


def _leave_out_dependencies(ve: Live, names: Container[str], known: Container[str]) -> None:
    """Leave out of a VE's dependencies those that no manifest is beside it of: none may name what is nowhere."""
    boot = ve.values.get("boot")
    found = boot.get("dependsOn") if isinstance(boot, dict) else None
    if isinstance(boot, dict) and isinstance(found, list):
        kept = [name for name in map(str, found) if name in names or name in known]
        boot["dependsOn"] = [*kept]
        for name in map(str, found):
            if name not in kept:
                output.words(f"{ve.record.name} depends on {name}, which is left out: export it as well")


def _document(
    ve: Live, networks: Mapping[NetworkName, NetworkSpec], beside: Sequence[dict[str, Json]]
) -> dict[str, Json]:
    """Give a VE's manifest; default routes are left to the networks where those give exactly the ones that it has."""
    from reconciler.manifests import written

    document: dict[str, Json] = {}
    for given in (True, False):
        interfaces = [_interface(name, link, networks, given=given) for name, link in sorted(ve.links.items())]
        document = written.ve_document(ve.record.name, ve.record.uid, ve.values, interfaces)
        if _has_routes([*beside, document], ve):
            break
    return document


def _interface(
    name: str, link: Mapping[str, Json], networks: Mapping[NetworkName, NetworkSpec], *, given: bool
) -> Json:
    """Give an interface. ``given``: its default routes are those that its networks give, and are left out."""
    from reconciler.manifests import written
    from reconciler.manifests.addressing import DEFAULT_ROUTES

    network, routes = networks.get(NetworkName(str(link["network"]))), link["routes"]
    mtu = network.mtu if network is not None else None
    if not given or not isinstance(routes, list):
        return written.interface(name, link, mtu=mtu, gateways=())
    others = [route for route in routes if isinstance(route, dict) and route["to"] not in DEFAULT_ROUTES.values()]
    return written.interface(name, {**link, "routes": [*others]}, mtu=mtu, gateways=None)


def _has_routes(documents: Sequence[dict[str, Json]], ve: Live) -> bool:
    """Say whether manifests give a VE exactly the routes that it has, whatever else is missing beside them."""
    from reconciler.manifests.load import load_fleet
    from reconciler.plan.field import to_json

    text = "---\n".join(output.yaml_text({**one}) for one in documents)
    fleet = load_fleet({"export.yaml": text.encode()}, revision="export").fleet
    if fleet is None:
        return False
    found = fleet.ves[ve.record.name].network.interfaces
    wanted = {name: link["routes"] for name, link in ve.links.items()}
    return {name: to_json(interface.routes) for name, interface in found.items()} == wanted
