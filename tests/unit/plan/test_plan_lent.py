"""What the host lends to a VE, directories, devices and interfaces: put back, given back, and never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.action import Action, Impact, Origin
from reconciler.model.compute import Limit
from reconciler.model.observation import Facet
from reconciler.model.power import EndCause
from reconciler.plan.render import is_bookkeeping
from tests.support.rig import Rig, fleet_of, scratch_state, ve

LENT = "devices: [{path: /dev/fuse}, {nic: eno9}], mounts: [{source: /srv, target: /data}]"
FLEET = fleet_of(ve("web1", LENT))


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scratch_state() as state:
        made = Rig(state=Path(state))
        (made.state / "policy.yaml").write_text("nics: [eno9]\nmounts: [{source: /srv}]")
        made.world.add_host_link("eno9")
        made.converge(FLEET)
        yield made


def planned(rig: Rig, spec: str = LENT) -> list[Action]:
    plan = rig.plan(fleet_of(ve("web1", spec)))
    return [action for action in plan.actions if not is_bookkeeping(action)]


def test_what_the_ves_root_took_away_is_put_back(rig: Rig) -> None:
    uid = rig.uid("web1")
    rig.world.unmount(uid, "/data")
    rig.world.unmount_device(uid, "/dev/fuse")
    found = [(action.path, action.origin, action.impact) for action in planned(rig)]
    assert found == [("mounts./data", Origin.DRIFT, Impact.LIVE), ("devices./dev/fuse", Origin.DRIFT, Impact.LIVE)]
    rig.converge(FLEET)
    assert planned(rig) == []


def test_what_is_taken_out_of_the_manifest_goes_live_and_an_interface_takes_its_connections_along(rig: Rig) -> None:
    impacts = {action.path: action.impact for action in planned(rig, "processes: 4096")}
    assert impacts == {
        "mounts./data": Impact.LIVE,
        "devices./dev/fuse": Impact.LIVE,
        "devices.eno9.nic": Impact.NETWORK,
    }
    rig.converge(fleet_of(ve("web1")))
    assert rig.machine.host_links == {"eno9": ""}


@pytest.mark.parametrize("cause", EndCause)
def test_an_interface_is_the_hosts_again_once_its_ve_has_ended(rig: Rig, cause: EndCause) -> None:
    assert "eno9" not in rig.machine.host_links
    rig.world.end_init(rig.uid("web1"), cause)
    assert "eno9" in rig.machine.host_links


@pytest.mark.parametrize("facet", [Facet.MOUNTS, Facet.DEVICES])
def test_a_mount_table_that_cannot_be_read_keeps_nobody_from_the_limits(rig: Rig, facet: Facet) -> None:
    uid = rig.uid("web1")
    rig.world.hide(facet, uid)
    rig.world.set_limit(uid, Limit.PROCESSES, None)
    assert [action.path for action in planned(rig)] == ["processes"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mounts: [{source: /etc, target: /data}]", "/etc lies in none of /srv"),
        ("devices: [{path: /dev/sda}]", "/dev/sda (rw) is none of"),
        ("devices: [{nic: eno1}]", "eno1 is none of eno9"),
    ],
)
def test_what_the_policy_does_not_lend_is_refused_by_name(rig: Rig, spec: str, said: str) -> None:
    refused = rig.plan(fleet_of(ve("web1", spec))).refused
    assert [said in refusal.message for refusal in refused] == [True]
