"""The inventory and the allocations in it: written before, whole or not at all, never reused while in use."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import StateError
from reconciler.model.facts import Unknown
from reconciler.model.identity import IDS_PER_VE, Allocation, Uid, VeName
from reconciler.model.seam import Coordinator
from reconciler.state import ids
from reconciler.state.coordinator import DryCoordinator, LocalCoordinator
from reconciler.state.ids import IdRange
from reconciler.state.inventory import Entry, Inventory, Phase

UID = Uid("7c9e6679-7425-40de-944b-e07fc1f90ae7")
OTHER = Uid("11111111-2222-4333-8444-555555555555")
WEB1 = VeName("web1")
ENTRY = Entry(uid=UID, name=WEB1, source="dir:/srv/desired", id_base=524288, phase=Phase.CREATING)

_CRASH = """
import os, signal, sys
from reconciler.model.identity import Uid, VeName
from reconciler.state.inventory import Entry, Inventory, Phase
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Inventory(sys.argv[1]).put(
    Entry(uid=Uid(sys.argv[2]), name=VeName("web1"), source="s", id_base=1, phase=Phase.REMOVING)
)
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(str(tmp_path / "inventory"))


def _killed_while_writing(directory: Path, uid: Uid) -> None:
    done = subprocess.run([sys.executable, "-c", _CRASH, str(directory), uid], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def test_an_entry_comes_back_as_it_was_put(inventory: Inventory) -> None:
    assert inventory.read() == {}
    inventory.put(ENTRY)
    inventory.put(replace(ENTRY, uid=OTHER, phase=Phase.PRESENT))
    assert inventory.read() == {UID: ENTRY, OTHER: replace(ENTRY, uid=OTHER, phase=Phase.PRESENT)}


def test_format_1_of_an_entry_is_what_it_was(inventory: Inventory, tmp_path: Path) -> None:
    inventory.put(ENTRY)
    assert json.loads((tmp_path / "inventory" / f"{UID}.json").read_text()) == {
        "format": 1,
        "uid": UID,
        "name": "web1",
        "source": "dir:/srv/desired",
        "id_base": 524288,
        "phase": "creating",
    }


def test_clearing_twice_is_clearing_once(inventory: Inventory) -> None:
    inventory.put(ENTRY)
    inventory.clear(UID)
    inventory.clear(UID)
    assert inventory.read() == {}


def test_a_crash_before_the_rename_leaves_the_old_entry(inventory: Inventory, tmp_path: Path) -> None:
    inventory.put(ENTRY)
    _killed_while_writing(tmp_path / "inventory", UID)
    assert len(os.listdir(tmp_path / "inventory")) == 2, "the crash left no temporary file: nothing was tested"
    assert inventory.read() == {UID: ENTRY}


def test_a_crash_before_the_first_rename_leaves_no_entry(inventory: Inventory, tmp_path: Path) -> None:
    _killed_while_writing(tmp_path / "inventory", UID)
    assert os.listdir(tmp_path / "inventory")
    assert inventory.read() == {}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:40], id="cut-off"),
        pytest.param(lambda data: data.replace(b'"format": 1', b'"format": 9'), id="newer-format"),
        pytest.param(lambda data: data.replace(b"creating", b"pondering"), id="unknown-phase"),
        pytest.param(lambda data: data.replace(UID.encode(), OTHER.encode()), id="of-another-ve"),
    ],
)
def test_a_damaged_entry_is_unknown_and_leaves_the_others_readable(
    inventory: Inventory, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    inventory.put(ENTRY)
    inventory.put(replace(ENTRY, uid=OTHER))
    path = tmp_path / "inventory" / f"{UID}.json"
    path.write_bytes(damage(path.read_bytes()))
    found = inventory.read()
    assert found[OTHER] == replace(ENTRY, uid=OTHER)
    damaged = found[UID]
    assert isinstance(damaged, Unknown)
    assert str(path) in damaged.reason
    assert "mend it" in damaged.reason


def test_a_uid_that_is_a_path_writes_no_file(inventory: Inventory, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="expected a UUID"):
        inventory.put(replace(ENTRY, uid=Uid("../../etc/passwd")))
    assert list(tmp_path.rglob("*.json")) == []


def given(coordinator: Coordinator, name: str, *, uid: Uid | None = None) -> Allocation:
    """Ask for the allocation of one VE."""
    one = asyncio.run(coordinator.allocate({VeName(name): uid}))[VeName(name)]
    if not isinstance(one, Allocation):
        raise one
    return one


class Host:
    """What else there is on a host that ids depend on."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.existing: dict[Uid, int] = {}
        self.reserved: tuple[IdRange, ...] = ()

    def coordinator(self, instance: str = "vectl") -> LocalCoordinator:
        return LocalCoordinator(
            self.inventory,
            instance=instance,
            source="dir:/srv",
            existing=lambda: self.existing,
            reserved=lambda: self.reserved,
        )

    def allocate(self, name: str, *, uid: Uid | None = None) -> Allocation:
        return given(self.coordinator(), name, uid=uid)

    def release(self, name: str) -> None:
        asyncio.run(self.coordinator().release(VeName(name)))


@pytest.fixture
def host(inventory: Inventory) -> Host:
    return Host(inventory)


def test_the_default_instance_begins_where_containers_may(host: Host) -> None:
    assert host.allocate("web1").id_base == 524288
    assert host.allocate("web2").id_base == 524288 + IDS_PER_VE


def test_an_allocation_is_in_the_inventory_before_anything_is_made(host: Host) -> None:
    given = host.allocate("web1")
    expected = Entry(uid=given.uid, name=WEB1, source="dir:/srv", id_base=given.id_base, phase=Phase.CREATING)
    assert host.inventory.read() == {given.uid: expected}


def test_the_same_name_gets_the_same_allocation_after_a_restart(host: Host) -> None:
    first = host.allocate("web1")
    host.allocate("web2")
    assert host.allocate("web1") == first


def test_a_name_whose_ve_exists_gets_an_identity_of_its_own(host: Host) -> None:
    first = host.allocate("web1")
    host.existing[first.uid] = first.id_base
    second = host.allocate("web1")
    assert second.uid != first.uid
    assert second.id_base != first.id_base


def test_a_purged_identity_is_not_given_again(host: Host) -> None:
    first = host.allocate("web1")
    host.inventory.put(Entry(uid=first.uid, name=WEB1, source="s", id_base=first.id_base, phase=Phase.REMOVING))
    assert host.allocate("web1").uid != first.uid
    host.inventory.clear(first.uid)
    assert host.allocate("web1").uid != first.uid


def test_a_released_allocation_frees_its_range(host: Host) -> None:
    first = host.allocate("web1")
    host.release("web1")
    host.release("web1")
    assert host.inventory.read() == {}
    assert host.allocate("web2").id_base == first.id_base


def test_what_exists_is_not_released(host: Host) -> None:
    first = host.allocate("web1")
    host.existing[first.uid] = first.id_base
    host.release("web1")
    assert first.uid in host.inventory.read()


def test_ranges_of_users_records_trash_and_inventory_are_skipped(host: Host) -> None:
    host.existing[OTHER] = 8 * IDS_PER_VE
    host.inventory.put(replace(ENTRY, id_base=9 * IDS_PER_VE, phase=Phase.PRESENT))
    host.reserved = (IdRange(10 * IDS_PER_VE + 5, 10), IdRange(11 * IDS_PER_VE + 65535, 2))
    assert host.allocate("web9").id_base == 13 * IDS_PER_VE


def test_an_unreadable_entry_stops_allocation(host: Host, tmp_path: Path) -> None:
    host.inventory.put(ENTRY)
    (tmp_path / "inventory" / f"{UID}.json").write_bytes(b"{")
    with pytest.raises(StateError, match=f"range of {UID} is not known"):
        host.allocate("web2")


def test_an_entry_that_a_power_cut_emptied_stops_nobody_if_a_record_tells_the_range(host: Host, tmp_path: Path) -> None:
    first = host.allocate("web")
    (tmp_path / "inventory" / f"{first.uid}.json").write_bytes(b"")
    host.existing[first.uid] = first.id_base
    assert host.allocate("db").id_base == first.id_base + 65536


def test_an_identity_pinned_by_the_manifest_is_kept(host: Host) -> None:
    assert host.allocate("web1", uid=UID) == Allocation(uid=UID, id_base=524288)
    assert host.allocate("web1", uid=UID) == Allocation(uid=UID, id_base=524288)


def test_pinning_an_identity_later_leaves_no_second_allocation(host: Host) -> None:
    host.allocate("web1")
    assert host.allocate("web1", uid=UID) == Allocation(uid=UID, id_base=524288)
    assert set(host.inventory.read()) == {UID}


def test_several_at_once_get_different_ranges_and_the_same_ones_again(host: Host) -> None:
    names = [VeName(f"web{number}") for number in range(9)]
    first = asyncio.run(host.coordinator().allocate(dict.fromkeys(names)))
    bases = [one.id_base for one in first.values() if isinstance(one, Allocation)]
    assert bases == [524288 + number * IDS_PER_VE for number in range(9)]
    assert asyncio.run(host.coordinator().allocate(dict.fromkeys(reversed(names)))) == first


def test_the_last_free_range_is_given_and_whoever_comes_after_is_told(host: Host) -> None:
    host.reserved = (IdRange(IDS_PER_VE * 9, 2**32),)
    one, other = asyncio.run(host.coordinator().allocate({VeName("a"): None, VeName("b"): None})).values()
    assert isinstance(one, Allocation)
    assert "ranges are taken" in str(other)


def test_with_every_range_taken_nothing_is_given(host: Host) -> None:
    host.reserved = (IdRange(0, 2**32),)
    with pytest.raises(StateError, match=r"all \d+ ranges are taken"):
        host.allocate("web1")


def test_after_the_last_range_the_first_free_one_is_next() -> None:
    taken = [IdRange(slot * IDS_PER_VE) for slot in range(5000, ids.LAST_SLOT + 1)]
    assert next(ids.free(5000, taken)) == ids.FIRST_SLOT * IDS_PER_VE


@pytest.mark.parametrize("instance", ["a", "test-1", "lab", "vectl2"])
def test_other_instances_begin_apart_from_the_default_one_and_stay_in_bounds(instance: str) -> None:
    assert 4096 <= ids.first_slot(instance) <= ids.LAST_SLOT
    assert ids.first_slot(instance) == ids.first_slot(instance)


def test_instances_rarely_begin_at_the_same_slot() -> None:
    starts = {ids.first_slot(f"i{number}") for number in range(200)}
    assert len(starts) > 195


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        pytest.param("", (), id="empty"),
        pytest.param("ann:100000:65536\nroot:1000000:5\n", (IdRange(100000), IdRange(1000000, 5)), id="two"),
        pytest.param("# note\nann:x:1\nann:1\n:::\nbob:7:8", (IdRange(7, 8),), id="others-skipped"),
    ],
)
def test_subordinate_ids_are_parsed(text: str, ranges: Iterable[IdRange]) -> None:
    assert ids.parse_subids(text) == ranges


def test_a_range_of_nothing_takes_nothing() -> None:
    assert list(IdRange(9 * IDS_PER_VE, 0).slots()) == []


def test_a_dry_allocation_is_the_same_every_time_and_differs_by_name() -> None:
    first, again, other = (given(DryCoordinator(), name) for name in ("a", "a", "b"))
    assert first == again
    assert first.uid != other.uid
    assert ids.FIRST_SLOT * IDS_PER_VE <= first.id_base <= ids.LAST_SLOT * IDS_PER_VE


def test_both_are_coordinators(host: Host) -> None:
    coordinators: list[Coordinator] = [host.coordinator(), DryCoordinator()]
    for one in coordinators:
        asyncio.run(one.release(WEB1))
