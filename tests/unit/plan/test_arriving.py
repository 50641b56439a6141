"""A VE that arrives is brought up in two halves, the first of which nobody notices."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from reconciler.model.identity import NetworkName, Uid, VeName
from reconciler.model.network import AddAddress, AnnounceAddress, AttachInterface, NetworkMode, SetHostname
from reconciler.model.placement import OpenRuntime
from reconciler.model.power import CreateRuntime, Launch, StartRuntime
from reconciler.plan.arriving import stages

UID = Uid("5b0d9c1e-7a42-4a57-9d10-2f6c4b8e1a00")
CREATED = CreateRuntime(uid=UID, name=VeName("web1"), hostname="web1", launch=Launch(id_base=1 << 16), resume=True)
ADDRESS = AddAddress(uid=UID, interface="eth0", address=ip_interface("10.20.0.10/24"))
ATTACHED = AttachInterface(uid=UID, interface="eth0", network=NetworkName("lan"), mode=NetworkMode.BRIDGED)
ANNOUNCED = AnnounceAddress(uid=UID, interface="eth0", address=ip_address("10.20.0.10"))
NAMED = SetHostname(uid=UID, hostname="web1")


def test_it_is_connected_then_runs_and_is_then_announced() -> None:
    parted = stages((CREATED, ADDRESS, StartRuntime(uid=UID), ATTACHED, ANNOUNCED, NAMED))
    assert parted.closed == (CREATED, ADDRESS, StartRuntime(uid=UID, closed=True))
    assert parted.opened == (ATTACHED, OpenRuntime(uid=UID), ANNOUNCED, NAMED)


def test_what_leads_to_it_comes_after_the_commit_wherever_it_was_planned() -> None:
    parted = stages((CREATED, ATTACHED, ANNOUNCED, StartRuntime(uid=UID), NAMED))
    assert parted.closed == (CREATED, StartRuntime(uid=UID, closed=True))
    assert parted.opened == (ATTACHED, OpenRuntime(uid=UID), ANNOUNCED, NAMED)
