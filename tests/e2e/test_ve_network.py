"""Claims about networks with packets: bridged and routed, both families, inwards, outwards and side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fleet import Document, Fleet, network, reaches, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.inside import Ve
from tests.support.world import HOST_V4, HOST_V6, WORLD_V4, WORLD_V6, World
from tests.support.world import world as made_world

pytestmark = pytest.mark.xdist_group("ve-network")

BRIDGED = {"a": ("10.191.6.11", "fd91:6::11"), "b": ("10.191.6.12", "fd91:6::12")}
ROUTED = {"ra": ("10.191.7.11", "fd91:7::11"), "rb": ("10.191.7.12", "fd91:7::12")}
ISOLATED = {"ia": ("10.191.8.11", "fd91:8::11"), "ib": ("10.191.8.12", "fd91:8::12")}
PRIVATE = {"pa": ("10.191.9.11", "fd91:9::11")}
GATEWAYS = {
    "lan": ("10.191.6.1", "fd91:6::1"),
    "cells": ("10.191.8.1", "fd91:8::1"),
    "private": ("10.191.9.1", "fd91:9::1"),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    forwards = [{"listen": 8080, "to": "a:80"}]
    routed_forwards = [{"listen": 8081, "to": "ra:80"}]
    documents = (
        network("lan", *subnets(6), gateway=list(GATEWAYS["lan"]), nat=True, forwards=forwards),
        network("routed", *subnets(7), mode="routed", nat=True, forwards=routed_forwards),
        network("cells", *subnets(8), gateway=list(GATEWAYS["cells"]), isolated=True),
        network("private", *subnets(9), gateway=list(GATEWAYS["private"])),
        *(described(name, "lan", *addresses) for name, addresses in BRIDGED.items()),
        *(described(name, "routed", *addresses) for name, addresses in ROUTED.items()),
        *(described(name, "cells", *addresses) for name, addresses in ISOLATED.items()),
        *(described(name, "private", *addresses) for name, addresses in PRIVATE.items()),
    )
    with made_fleet(tmp_path_factory.getbasetemp(), *documents) as made:
        yield made


@pytest.fixture(scope="module")
def world(fleet: Fleet) -> Iterator[World]:
    with made_world(fleet) as made:
        fleet.start_agent()
        fleet.await_ready(*BRIDGED, *ROUTED, *ISOLATED, *PRIVATE)
        for name in (*BRIDGED, *ROUTED):
            until(lambda name=name: serves(fleet.ve(name)), f"the web server of {name}")  # type: ignore[misc]  # bound now
        yield made
        fleet.end_agent()


@pytest.fixture(autouse=True)
def _connected(world: World) -> None:
    """Let every test run in a world."""


def subnets(number: int) -> tuple[str, str]:
    return f"10.191.{number}.0/24", f"fd91:{number}::/64"


def described(name: str, on: str, *addresses: str) -> Document:
    return ve(name, *(f"{address}/{64 if ':' in address else 24}" for address in addresses), on=on)


def serves(one: Ve) -> bool:
    return one.try_run("wget", "-q", "-O", "-", "http://127.0.0.1/")[0] == 0


def page(one: Ve, address: str, port: int = 80) -> str:
    at = f"[{address}]" if ":" in address else address
    return one.run("wget", "-q", "-O", "-", f"http://{at}:{port}/")


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a"), ("ra", "rb"), ("rb", "ra")])
def test_ves_of_a_network_reach_each_other(fleet: Fleet, one: str, other: str) -> None:
    for address in (BRIDGED | ROUTED)[other]:
        reaches(fleet.ve(one), address)
        assert "It works" in page(fleet.ve(one), address)


@pytest.mark.parametrize("name", ["a", "ra", "ia", "pa"])
def test_the_host_reaches_its_ves_and_they_reach_it(fleet: Fleet, name: str) -> None:
    for address in (BRIDGED | ROUTED | ISOLATED | PRIVATE)[name]:
        reaches(fleet, address)
    for address in (HOST_V4, HOST_V6) if name == "ra" else gateways_of(name):
        reaches(fleet.ve(name), address)


def gateways_of(name: str) -> tuple[str, str]:
    return GATEWAYS[{"a": "lan", "ia": "cells", "pa": "private"}[name]]


@pytest.mark.parametrize("name", ["a", "ra"])
def test_a_ve_behind_nat_is_seen_as_its_host(fleet: Fleet, world: World, name: str) -> None:
    assert world.called_by(fleet.ve(name), WORLD_V4) == HOST_V4
    assert world.called_by(fleet.ve(name), WORLD_V6) == HOST_V6


def test_a_ve_without_nat_gets_no_answer_from_a_world_that_knows_no_way_back(fleet: Fleet) -> None:
    for address in (WORLD_V4, WORLD_V6):
        assert fleet.ve("pa").try_run("ping", "-c", "1", "-W", "1", address)[0] != 0


@pytest.mark.parametrize(("port", "names"), [(8080, ("b", "ra")), (8081, ("a", "ra", "rb"))], ids=["bridged", "routed"])
def test_a_forwarded_port_leads_in_from_everywhere(fleet: Fleet, world: World, port: int, names: tuple[str]) -> None:
    for address in (HOST_V4, HOST_V6):
        assert "It works" in world.fetch(address, port)
        assert "It works" in World(fleet.namespace).fetch(address, port)
        for name in names:
            assert "It works" in page(fleet.ve(name), address, port)


def test_a_port_that_is_not_forwarded_leads_nowhere(world: World) -> None:
    for address in (HOST_V4, HOST_V6):
        with pytest.raises(ConnectionRefusedError):
            world.fetch(address, 8082)


def test_ves_of_an_isolated_network_reach_the_gateway_only(fleet: Fleet) -> None:
    one, other = fleet.ve("ia"), fleet.ve("ib")
    for address in GATEWAYS["cells"]:
        reaches(one, address)
        reaches(other, address)
    for address in ISOLATED["ib"]:
        assert one.try_run("ping", "-c", "1", "-W", "1", address)[0] != 0
    one.net("ip", "neigh", "replace", "10.191.8.12", "lladdr", mac(other), "dev", "eth0")
    assert one.try_run("ping", "-c", "1", "-W", "1", "10.191.8.12")[0] != 0


def mac(one: Ve) -> str:
    found: str = one.net_json("ip", "-j", "link", "show", "eth0")[0]["address"]
    return found


def test_a_routed_ve_is_renumbered_while_it_runs(fleet: Fleet) -> None:
    one, other = fleet.ve("ra"), fleet.ve("rb")
    init = one.init
    text = (fleet.manifests / "all.yaml").read_text()
    moved = text.replace("10.191.7.11", "10.191.7.41").replace("fd91:7::11", "fd91:7::41")
    try:
        fleet.put_text("all.yaml", moved)
        fleet.await_ready("ra")
        for address in ("10.191.7.41", "fd91:7::41"):
            reaches(other, address)
            reaches(fleet, address)
        for address in ROUTED["ra"]:
            assert other.try_run("ping", "-c", "1", "-W", "1", address)[0] != 0
        assert one.init == init
    finally:
        fleet.put_text("all.yaml", text + "\n")
        fleet.await_ready("ra")


def test_a_forward_follows_its_manifest(fleet: Fleet, world: World) -> None:
    text = (fleet.manifests / "all.yaml").read_text()
    try:
        fleet.put_text("all.yaml", text.replace('"listen": 8080', '"listen": 8090'))
        fleet.await_ready("a")
        assert "It works" in world.fetch(HOST_V4, 8090)
        with pytest.raises(ConnectionRefusedError):
            world.fetch(HOST_V4, 8080)
    finally:
        fleet.put_text("all.yaml", text + "\n")
        fleet.await_ready("a")
