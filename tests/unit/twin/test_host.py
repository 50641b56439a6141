"""What is seen of the twin, by scope and facet, and that every effect finds its way."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from reconciler.model.effects import EFFECT_TYPES
from reconciler.model.facts import Unknown
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Facet, Scope, VeObservation
from reconciler.model.seam import Host
from reconciler.model.settings import SetSetting
from reconciler.model.views import ShowViews
from reconciler.model.volume import PurgeTrash, Record
from reconciler.twin import (
    compute,
    devices,
    holding,
    mounts,
    network,
    placement,
    power,
    reach,
    snapshots,
    ve_network,
    volume,
)
from reconciler.twin.clock import StoppedClock
from reconciler.twin.host import TwinHost
from reconciler.twin.world import World
from tests.support.twins import INSTANCE, A, B, data, look, perform, running, see, twin_after

FAMILIES = (
    compute.ComputeEffect,
    mounts.MountsEffect,
    devices.DevicesEffect,
    network.HostNetworkEffect,
    placement.PlacementEffect,
    holding.HoldingEffect,
    power.PowerEffect,
    reach.ReachEffect,
    snapshots.SnapshotEffect,
    SetSetting,
    ve_network.NamesEffect,
    ve_network.LinkEffect,
    ve_network.AddressEffect,
    volume.VolumeEffect,
    ShowViews,
)
OF_NETWORK = ("networks", "filter", "reach")
ON_DISK = ("templates", "trash", "pool")


def part_of(ve: VeObservation, facet: Facet) -> object:
    return {
        Facet.POWER: ve.power,
        Facet.COMPUTE: ve.compute,
        Facet.VOLUME: ve.volume,
        Facet.NETWORK: ve.network,
        Facet.MOUNTS: ve.mounts,
        Facet.VIEWS: ve.views,
        Facet.DEVICES: ve.devices,
        Facet.SETTINGS: ve.settings,
        Facet.SNAPSHOTS: ve.snapshots,
    }[facet]


def test_every_effect_belongs_to_exactly_one_facet() -> None:
    kinds = [kind for family in FAMILIES for kind in get_args(family) or (family,)]
    assert sorted(kinds, key=str) == sorted(EFFECT_TYPES, key=str)


def test_the_twin_is_a_host() -> None:
    host: Host = TwinHost(INSTANCE)

    async def use() -> None:
        await host.perform(PurgeTrash(trash_id=f"{A}.1"))
        assert (await host.observe()).complete

    asyncio.run(use())


def test_a_scope_limits_the_ves_and_never_claims_to_be_complete() -> None:
    twin = twin_after(*data(A), *data(B))
    seen = asyncio.run(twin.observe(Scope(uids=frozenset({B})), ALL_FACETS))
    assert list(seen.ves) == [B]
    assert not seen.complete
    assert list(look(twin).ves) == [A, B]
    assert look(twin).complete


def test_without_the_host_its_own_objects_are_unknown() -> None:
    seen = asyncio.run(twin_after(*data(A)).observe(Scope(host=False), ALL_FACETS))
    assert list(seen.ves) == [A]
    assert all(isinstance(getattr(seen, name), Unknown) for name in (*OF_NETWORK, *ON_DISK))


@pytest.mark.parametrize("facet", Facet)
def test_only_the_facets_that_were_asked_for_are_looked_at(facet: Facet) -> None:
    seen = asyncio.run(twin_after(*running(A)).observe(EVERYTHING, frozenset({facet})))
    for other in Facet:
        assert isinstance(part_of(seen.ves[A], other), Unknown) == (other is not facet)
    for name in OF_NETWORK:
        assert isinstance(getattr(seen, name), Unknown) == (facet is not Facet.NETWORK)
    assert not any(isinstance(getattr(seen, name), Unknown) for name in ON_DISK)


@pytest.mark.parametrize("facet", Facet)
def test_what_cannot_be_read_is_unknown_for_that_ve_and_facet_only(facet: Facet) -> None:
    twin = twin_after(*running(A), *data(B))
    world, before = World(twin), look(twin)
    world.hide(facet, A, "no luck")
    seen = look(twin)
    assert part_of(seen.ves[A], facet) == Unknown("no luck")
    assert all(part_of(seen.ves[A], other) == part_of(before.ves[A], other) for other in Facet if other is not facet)
    assert seen.ves[B] == before.ves[B]
    world.reveal()
    assert look(twin) == before


def test_the_hosts_own_objects_can_be_unreadable() -> None:
    twin = twin_after(*running(A))
    World(twin).hide(Facet.NETWORK)
    seen = look(twin)
    assert isinstance(seen.networks, Unknown)
    assert isinstance(seen.filter, Unknown)
    assert not isinstance(seen.trash, Unknown)
    assert not isinstance(seen.ves[A].network, Unknown)


def test_ves_that_cannot_be_listed_are_not_absent() -> None:
    twin = twin_after(*data(A))
    World(twin).hide_listing()
    assert look(twin).ves == {}
    assert not look(twin).complete


def test_a_damaged_record_is_unknown_and_can_be_written_again() -> None:
    twin = twin_after(*data(A))
    World(twin).damage_record(A)
    assert isinstance(see(twin, A).record, Unknown)
    perform(twin, *data(A))
    assert isinstance(see(twin, A).record, Record)


def test_a_copy_of_the_machine_goes_its_own_way() -> None:
    twin = twin_after(*data(A))
    other = TwinHost.of(twin.machine.copy())
    perform(other, *running(B))
    assert list(look(twin).ves) == [A]
    assert look(twin).networks == {}
    assert list(look(other).ves) == [A, B]


def test_what_was_seen_does_not_change_afterwards() -> None:
    twin = twin_after(*running(A))
    before = look(twin)
    kept = repr(before)
    perform(twin, *running(B))
    World(twin).reboot_host()
    assert repr(before) == kept


def test_a_clock_is_only_turned_forwards() -> None:
    clock = StoppedClock(now=10.0)
    clock.advance(5)
    assert (clock.now(), clock.monotonic()) == (15.0, 5.0)
    with pytest.raises(ValueError, match="advance clock"):
        clock.advance(-1)
