"""What was carried out on the host's networks outlives the process, and a damaged file says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.model.facts import JsonMap
from reconciler.model.identity import NetworkName
from reconciler.state.networks import AppliedNetworks

LAN, DMZ = NetworkName("lan"), NetworkName("dmz")
BOTH: dict[NetworkName, JsonMap] = {LAN: {"mtu": 1500, "gateway": ["10.0.0.1/24"]}, DMZ: {"uplink": None}}


def test_nothing_was_carried_out_yet(tmp_path: Path) -> None:
    assert AppliedNetworks(str(tmp_path)).read() == {}


def test_what_was_put_is_read_by_the_next_process(tmp_path: Path) -> None:
    AppliedNetworks(str(tmp_path)).put(BOTH)
    assert AppliedNetworks(str(tmp_path)).read() == BOTH


def test_a_network_that_is_left_out_is_forgotten(tmp_path: Path) -> None:
    networks = AppliedNetworks(str(tmp_path))
    networks.put(BOTH)
    networks.put({LAN: BOTH[LAN]})
    assert networks.read() == AppliedNetworks(str(tmp_path)).read() == {LAN: BOTH[LAN]}


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    networks = AppliedNetworks(str(tmp_path))
    networks.put(BOTH)
    before = (tmp_path / "networks.json").stat()
    networks.put(dict(BOTH))
    assert (tmp_path / "networks.json").stat().st_ino == before.st_ino


def test_a_damaged_file_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "networks.json").write_text("{")
    with pytest.raises(StateError, match="remove it: then every change of a network counts as wanted"):
        AppliedNetworks(str(tmp_path)).read()
