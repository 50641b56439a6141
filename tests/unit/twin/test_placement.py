"""What the in-memory host sends of a VE, and what another one makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from reconciler.errors import NoSpaceError, PeerError, StateError, TemplateError
from reconciler.model.compute import RemoveCgroup
from reconciler.model.fleet_seam import Carrier
from reconciler.model.identity import HostName, SnapshotName
from reconciler.model.placement import ClearMove, CutParcel, PlaceArrival
from reconciler.model.power import DeleteRuntime, PowerState, SuspendRuntime
from reconciler.model.snapshots import SnapshotKind, TakeSnapshot
from reconciler.model.volume import Record, VolumeObservation
from reconciler.twin.carrier import TwinCarrier
from reconciler.twin.host import TwinHost
from reconciler.twin.world import World
from tests.support.twins import INSTANCE, A, data, perform, running, see, see_power, twin_after

MOVE = "m1"
CUT = CutParcel(uid=A, move=MOVE, number=0)
SNAPSHOTS = (SnapshotName("s1"), SnapshotName("s2"))


def other_host() -> TwinHost:
    return TwinHost(replace(INSTANCE, host=HostName("other")))


def carry(source: TwinHost, target: TwinHost) -> list[str]:
    """Send all that there is."""

    async def send_all() -> list[str]:
        sender: Carrier = TwinCarrier(source.machine)
        receiver: Carrier = TwinCarrier(target.machine)
        parcels = await sender.parcels(A, MOVE)
        for parcel in parcels:
            await receiver.receive(A, MOVE, parcel, sender.send(A, MOVE, parcel))
        assert {str(parcel) for parcel in parcels} <= await receiver.received(A, MOVE)
        return [str(parcel) for parcel in parcels]

    return asyncio.run(send_all())


def record_of(host: TwinHost) -> Record:
    record = host.machine.records[A]
    assert isinstance(record, Record)
    return record


def test_a_stopped_ve_arrives_with_its_snapshots_its_limits_and_its_record() -> None:
    source, target = twin_after(*data(A)), other_host()
    perform(source, *(TakeSnapshot(uid=A, name=name, kind=SnapshotKind.NAMED) for name in SNAPSHOTS), CUT)
    assert carry(source, target)[1:] == ["snapshot:s1", "snapshot:s2", "data:0"]
    perform(target, PlaceArrival(record=record_of(source), move=MOVE), ClearMove(uid=A, move=MOVE))
    there, here = see(target, A), see(source, A)
    assert (there.record, there.snapshots) == (here.record, here.snapshots)
    assert isinstance(there.volume, VolumeObservation)
    assert isinstance(here.volume, VolumeObservation)
    assert there.volume == here.volume
    assert target.machine.arrived == {}


def test_a_suspended_ve_arrives_suspended() -> None:
    source, target = twin_after(*running(A)), other_host()
    perform(source, SuspendRuntime(uid=A), DeleteRuntime(uid=A), RemoveCgroup(uid=A), CUT)
    assert "memory:memory" in carry(source, target)
    perform(target, PlaceArrival(record=record_of(source), move=MOVE))
    assert see_power(target, A).state is PowerState.SUSPENDED
    assert see_power(target, A).launch == see_power(source, A).launch


def test_what_is_cut_off_on_the_way_is_not_there() -> None:
    source, target = twin_after(*data(A), CUT), other_host()

    async def cut_off() -> None:
        sender, receiver = TwinCarrier(source.machine), TwinCarrier(target.machine)
        parcel = (await sender.parcels(A, MOVE))[-1]

        async def half() -> AsyncIterator[bytes]:
            async for chunk in sender.send(A, MOVE, parcel):
                yield chunk
                raise PeerError("the line is gone")

        with pytest.raises(PeerError):
            await receiver.receive(A, MOVE, parcel, half())
        assert str(parcel) not in await receiver.received(A, MOVE)

    asyncio.run(cut_off())


def test_a_difference_is_refused_before_what_it_is_a_difference_of() -> None:
    source, target = twin_after(*data(A), CUT, replace(CUT, number=1)), other_host()

    async def send_last() -> None:
        sender, receiver = TwinCarrier(source.machine), TwinCarrier(target.machine)
        parcel = (await sender.parcels(A, MOVE))[-1]
        with pytest.raises(StateError, match="data:0 is to be here"):
            await receiver.receive(A, MOVE, parcel, sender.send(A, MOVE, parcel))

    asyncio.run(send_last())


def test_nothing_is_placed_before_its_data_and_its_template_are_here() -> None:
    source, target = twin_after(*data(A), CUT), other_host()
    place = PlaceArrival(record=record_of(source), move=MOVE)
    with pytest.raises(StateError, match="have not arrived"):
        perform(target, place)
    carry(source, target)
    images = dict(target.machine.images), dict(target.machine.templates)
    target.machine.templates.clear()
    with pytest.raises(TemplateError):
        perform(target, place)
    assert target.machine.records == {}
    target.machine.images, target.machine.templates = images
    perform(target, place, place)
    assert record_of(target) == record_of(source)


def test_a_full_pool_takes_neither_a_parcel_nor_a_ve() -> None:
    source, target = twin_after(*data(A), CUT), other_host()
    carry(source, target)
    World(target).fill_pool()
    with pytest.raises(NoSpaceError):
        perform(target, PlaceArrival(record=record_of(source), move=MOVE))
    with pytest.raises(NoSpaceError):
        carry(source, target)
    assert target.machine.records == {}
