"""`observe` and `export`: what this host holds, for a plan elsewhere, and as manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output, view
from reconciler.errors import ExitCode, KernelError, StateError

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.model.facts import Json
    from reconciler.model.identity import NetworkName
    from reconciler.model.network import NetworkSpec
    from reconciler.model.observation import HostObservation, VeObservation
    from reconciler.model.volume import Record


def observe() -> int:
    """Print what this host holds, for `plan --observed FILE`."""
    context.need_root()
    output.data(context.run(_observe()))
    return int(ExitCode.OK)


async def _observe() -> str:
    from reconciler.model import exchange

    async with context.looking(context.load_config()) as session:
        observed = await session.reconciler.observe()
        return exchange.encode_observation(session.config.instance.host, observed).decode()


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The VE.")],
    networks: Annotated[
        bool, typer.Option("--networks/--no-networks", help="Print the networks that it is on as well.")
    ] = True,
) -> int:
    """Print a manifest that makes a VE what it is now."""
    context.need_root()
    for number, document in enumerate(context.run(_export(name))):
        if networks or document["kind"] != "Network":
            output.data(("---\n" if number else "") + output.yaml_text(document))
    return int(ExitCode.OK)


async def _export(name: str) -> list[dict[str, Json]]:
    async with context.looking(context.load_config()) as session:
        observed = await session.reconciler.observe()
        row = view.row(session, observed, name)
        if row is None or row.seen is None or row.record is None:
            raise StateError(f"export {name}: this host has no VE of that name; see `vectl get`")
        return _documents(session, observed, row.seen, row.record)


def _documents(
    session: Session, observed: HostObservation, seen: VeObservation, record: Record
) -> list[dict[str, Json]]:
    from reconciler.manifests import written
    from reconciler.plan import export as live
    from reconciler.plan.field import nest
    from reconciler.plan.spec import unknown_paths

    if unknown := unknown_paths(seen):
        raise KernelError(f"export {record.name}: could not read its {', '.join(unknown)}; try again")
    instance = session.config.instance.name
    values = nest(live.live_values(instance, record, seen))
    links = values.pop("interfaces", {})
    assert isinstance(links, dict)
    names = {str(link["network"]) for link in links.values() if isinstance(link, dict)}
    networks = live.live_networks(instance, observed, session.reconciler.fleet.networks, names)
    if values.get("hostname") == record.name:
        del values["hostname"]
    if record.protect:
        values["protect"] = True
    beside = [written.network_document(network, ve=record.name) for network in networks.values()]
    for gateways in (True, False):
        interfaces = [_interface(name, link, networks, given=gateways) for name, link in sorted(links.items())]
        documents = [*beside, written.ve_document(record.name, record.uid, values, interfaces)]
        if _has_routes(documents, record, links):
            break
    return documents


def _interface(name: str, link: Json, networks: Mapping[NetworkName, NetworkSpec], *, given: bool) -> Json:
    """Give an interface. ``given``: its default routes are those that its networks give, and are left out."""
    from reconciler.manifests import written
    from reconciler.manifests.addressing import DEFAULT_ROUTES
    from reconciler.model.identity import NetworkName

    assert isinstance(link, dict)
    network = networks.get(NetworkName(str(link["network"])))
    mtu = network.mtu if network is not None else None
    if not given:
        return written.interface(name, link, mtu=mtu, gateways=())
    routes = link["routes"]
    assert isinstance(routes, list)
    others = [route for route in routes if isinstance(route, dict) and route["to"] not in DEFAULT_ROUTES.values()]
    return written.interface(name, {**link, "routes": [*others]}, mtu=mtu, gateways=None)


def _has_routes(documents: list[dict[str, Json]], record: Record, links: Mapping[str, Json]) -> bool:
    """Say whether the manifests give the VE exactly the routes that it has."""
    from reconciler.manifests.load import load_fleet
    from reconciler.plan.field import to_json

    text = "---\n".join(output.yaml_text(document) for document in documents)
    fleet = load_fleet({"export.yaml": text.encode()}, revision="export").fleet
    if fleet is None:
        return False
    found = fleet.ves[record.name].network.interfaces
    wanted = {name: link["routes"] for name, link in links.items() if isinstance(link, dict)}
    return {name: to_json(interface.routes) for name, interface in found.items()} == wanted
