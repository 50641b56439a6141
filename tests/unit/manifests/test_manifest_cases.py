"""Every case file does what the comments at its top say."""

from __future__ import annotations

import ipaddress

import pytest

from reconciler.manifests import canonical
from reconciler.model import compute, network, power, snapshots, volume
from reconciler.model.fleet import DriftSpec, Fleet, HostSpec, Place
from reconciler.model.identity import HostName
from reconciler.model.vxlan import Vxlan, VxlanHost
from tests.unit.manifests.cases import BAD, GOOD, Case, headlines


def _names(fleet: Fleet) -> dict[str, object]:
    return {
        "fleet": fleet,
        "ve": fleet.ves.get("web1"),  # type: ignore[call-overload]  # a NewType of str
        "lan": fleet.networks.get("lan"),  # type: ignore[call-overload]  # a NewType of str
        "eth": lambda ve, name: fleet.ves[ve].network.interfaces[name],
        "ip": ipaddress.ip_interface,
        "net": ipaddress.ip_network,
        "Route": network.Route,
        "Place": Place,
        "DriftSpec": DriftSpec,
        "HostSpec": HostSpec,
        "canonical": canonical,
        "compute": compute,
        "network": network,
        "power": power,
        "states": snapshots,
        "volume": volume,
        "spanning": _spanning,
    }


def _spanning(number: int, port: int, hosts: dict[str, str]) -> Vxlan:
    known = {VxlanHost(name=HostName(name), address=ipaddress.ip_address(at)) for name, at in hosts.items()}
    return Vxlan(id=number, port=port, hosts=frozenset(known))


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.file)
def test_good_manifests_mean_what_the_case_says(case: Case) -> None:
    loaded = case.load()
    assert headlines(loaded) == ()
    assert loaded.fleet is not None
    assert case.expected
    names = _names(loaded.fleet)
    for expression in case.expected:
        assert eval(expression, {}, names), expression  # the expressions are the cases' own


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.file)
def test_bad_manifests_are_told_with_place_path_words_and_remedy(case: Case) -> None:
    loaded = case.load()
    assert loaded.fleet is None
    assert headlines(loaded) == case.expected


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.file)
def test_each_finding_quotes_the_line_that_it_is_about(case: Case) -> None:
    lines = case.data.decode().split("\n")
    for finding in case.load().findings:
        assert finding.source == lines[finding.place.line - 1]
        assert 1 <= finding.place.column <= len(finding.source) + 1
