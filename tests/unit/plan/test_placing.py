"""Claims about placing: nobody goes where there is no room, and nothing is proposed twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.capacity import Books, Promise, claim, supplies
from reconciler.model.compute import ComputeSpec
from reconciler.model.fleet import Fleet, HostSpec, VeSpec
from reconciler.model.identity import HostName, TemplateName, VeName
from reconciler.model.network import VeNetworkSpec
from reconciler.model.power import Power, PowerSpec
from reconciler.model.spread import Groups, group_of
from reconciler.model.volume import VolumeSpec
from reconciler.plan.placing import Proposal, Wish, propose
from tests.support.rig import fleet_of, ve

QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=40)
GI = 1 << 30
HOSTS = [HostName(name) for name in ("a", "b", "c")]


def host(name: HostName, memory: int | None, *, maintenance: bool = False) -> HostSpec:
    return HostSpec(name=name, capacity={} if memory is None else {"memory": memory * GI}, maintenance=maintenance)


def guest(
    name: str, memory: int, at: HostName | None, *, tier: str = "", running: bool = True, apart: bool = True
) -> VeSpec:
    return VeSpec(
        name=VeName(name),
        host=at,
        labels={"tier": tier} if tier else {},
        spread=("tier",) if tier and apart else (),
        compute=ComputeSpec(memory_guarantee=memory * GI, memory_limit=memory * GI),
        power=PowerSpec(state=Power.RUNNING if running else Power.STOPPED),
        volume=VolumeSpec(template=TemplateName("busybox"), size=GI),
        network=VeNetworkSpec(hostname=name),
    )


def fleet(hosts: Iterable[HostSpec], ves: Iterable[VeSpec]) -> Fleet:
    return Fleet(revision="r", hosts={one.name: one for one in hosts}, ves={one.name: one for one in ves})


@st.composite
def fleets(draw: st.DrawFn, *, homeless: bool = False, most: int = 6) -> Fleet:
    """Draw a fleet in which no host has promised more than it has, unless it is under maintenance."""
    hosts = [host(name, draw(st.integers(2, 9)), maintenance=draw(st.integers(0, 4)) == 0) for name in HOSTS]
    made, room = [], {one.name: one.capacity["memory"] for one in hosts}
    for number in range(draw(st.integers(1, most))):
        one = guest(
            f"v{number}",
            draw(st.integers(0, 5)),
            None if homeless else draw(st.sampled_from([None, *HOSTS])),
            tier=draw(st.sampled_from(["", "web", "db"])),
            running=draw(st.integers(0, 5)) > 0,
            apart=draw(st.integers(0, 3)) > 0,
        )
        need = claim(one).memory_guarantee
        if one.host is not None and room[one.host] < need:
            one = replace(one, host=None)
        elif one.host is not None:
            room[one.host] -= need
        made.append(one)
    return fleet(hosts, made)


wishes = st.builds(
    Wish,
    fleet=fleets(),
    drained=st.frozensets(st.sampled_from(HOSTS), max_size=2),
    levels=st.booleans(),
    only=st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from([VeName(f"v{n}") for n in range(6)]))),
).map(lambda wish: replace(wish, only=wish.only & wish.fleet.ves.keys()))


def carried_out(before: Fleet, found: Proposal) -> Fleet:
    moved = {seat.ve: replace(before.ves[seat.ve], host=seat.after) for seat in found.seats}
    return replace(before, ves={**before.ves, **moved})


def shortages(found: Fleet) -> list[str]:
    said = []
    for one in found.hosts.values():
        books = Books(one.name, supplies(one, {}))
        for spec in found.ves.values():
            if spec.host == one.name:
                books.promise(Promise(name=spec.name, claim=claim(spec)))
        said += [str(short) for short in books.shortages()]
    return said


def clashes(found: Fleet) -> int:
    """Count the pairs that are together and are to be apart, by the words of the field's description."""
    specs = [spec for spec in found.ves.values() if spec.host is not None]
    groups = Groups(specs)
    pairs = ((one, other) for number, one in enumerate(specs) for other in specs[:number] if one.host == other.host)
    return sum(group_of(a) in tuple(groups.of(b)) or group_of(b) in tuple(groups.of(a)) for a, b in pairs)


@QUICK
@given(wishes)
def test_no_host_is_promised_more_than_it_has(wish: Wish) -> None:
    assert shortages(carried_out(wish.fleet, propose(wish))) == []


@QUICK
@given(wishes)
def test_nobody_comes_where_nobody_is_to_come(wish: Wish) -> None:
    for seat in propose(wish).seats:
        assert seat.after not in wish.drained
        assert not wish.fleet.hosts[seat.after].maintenance


@QUICK
@given(wishes)
def test_placing_again_proposes_nothing(wish: Wish) -> None:
    found = propose(wish)
    again = propose(replace(wish, fleet=carried_out(wish.fleet, found)))
    assert again.seats == ()
    assert again.unplaced == found.unplaced or {one.ve for one in again.unplaced} == {one.ve for one in found.unplaced}


@QUICK
@given(wishes)
def test_the_order_of_the_manifests_does_not_matter(wish: Wish) -> None:
    turned = replace(
        wish.fleet,
        ves=dict(reversed(list(wish.fleet.ves.items()))),
        hosts=dict(reversed(list(wish.fleet.hosts.items()))),
    )
    assert propose(replace(wish, fleet=turned)) == propose(wish)


@QUICK
@given(wishes)
def test_who_has_no_host_is_told_why_of_each_host(wish: Wish) -> None:
    found = propose(wish)
    due = {
        name
        for name, spec in wish.fleet.ves.items()
        if (spec.host is None or spec.host in wish.drained) and (not wish.only or name in wish.only)
    }
    assert {one.ve for one in found.unplaced} == due - {seat.ve for seat in found.seats}
    for one in found.unplaced:
        assert one.hosts.keys() == set(HOSTS) - {one.host}
        assert all(one.hosts.values())


@QUICK
@given(wishes)
def test_a_drain_moves_only_who_has_to_leave(wish: Wish) -> None:
    wish = replace(wish, levels=False, only=frozenset())
    for seat in propose(wish).seats:
        assert seat.before is None or seat.before in wish.drained


@QUICK
@given(fleets())
def test_every_move_that_evens_out_helps(before: Fleet) -> None:
    before = replace(before, ves={name: spec for name, spec in before.ves.items() if spec.host})
    found = propose(Wish(fleet=before, levels=True))
    after = carried_out(before, found)
    assert clashes(after) <= clashes(before)
    for seat in found.seats:
        stays = replace(after, ves={**after.ves, seat.ve: replace(after.ves[seat.ve], host=seat.before)})
        assert (clashes(after), fullest(after)) < (clashes(stays), fullest(stays)) or shortages(stays)


def fullest(found: Fleet) -> list[float]:
    """Give how full the hosts are, fullest first."""
    return sorted((fullness(found, one) for one in found.hosts.values()), reverse=True)


def fullness(found: Fleet, one: HostSpec) -> float:
    there = [claim(spec).memory_guarantee for spec in found.ves.values() if spec.host == one.name]
    return sum(there) / one.capacity["memory"]


@QUICK
@given(wishes)
def test_every_wave_finds_room_beside_who_is_still_there(wish: Wish) -> None:
    found = propose(wish)
    at = wish.fleet
    for number in sorted({seat.wave for seat in found.seats}):
        now = [seat for seat in found.seats if seat.wave == number]
        coming = [replace(at.ves[seat.ve], name=VeName(f"{seat.ve}-new"), host=seat.after) for seat in now]
        both = replace(at, ves={**at.ves, **{spec.name: spec for spec in coming}})
        assert shortages(both) == []
        at = carried_out(at, replace(found, seats=tuple(now)))


def every_way(before: Fleet, due: list[VeName]) -> Iterator[tuple[int, int, float]]:
    """Give what each way to place VEs comes to: who is left, who is together, and how full the fullest host is."""
    free = [None, *(one.name for one in before.hosts.values() if not one.maintenance)]
    for chosen in product(free, repeat=len(due)):
        hosts = dict(zip(due, chosen, strict=True))
        after = replace(before, ves={n: replace(s, host=hosts.get(n, s.host)) for n, s in before.ves.items()})
        if not shortages(after):
            yield chosen.count(None), clashes(after), fullest(after)[0]


@settings(QUICK, max_examples=20)
@given(fleets(most=5))
def test_nobody_finds_room_for_more_or_keeps_more_apart_by_trying_everything(before: Fleet) -> None:
    due = [name for name, spec in before.ves.items() if spec.host is None]
    found = propose(Wish(fleet=before))
    best = min(every_way(before, due))
    after = carried_out(before, found)
    assert (len(found.unplaced), clashes(after)) == best[:2]


def test_room_is_found_where_the_best_host_of_each_would_leave_none() -> None:
    hosts = [host(HOSTS[0], 10), host(HOSTS[1], 9)]
    ves = [guest(f"v{number}", size, None) for number, size in enumerate((5, 5, 4, 3, 2))]
    assert propose(Wish(fleet=fleet(hosts, ves))).unplaced == ()


def test_more_ves_than_hosts_are_spread_evenly_and_that_is_said() -> None:
    hosts = [host(name, 100) for name in HOSTS]
    found = propose(Wish(fleet=fleet(hosts, [guest(f"v{n}", 1, None, tier="web") for n in range(7)])))
    counts = sorted(sum(seat.after == name for seat in found.seats) for name in HOSTS)
    assert counts == [2, 2, 3]
    assert len(found.notes) == 3
    assert "tier=web" in found.notes[0]


def test_what_holds_a_ve_to_its_host_is_told() -> None:
    documents = (
        "kind: Host\nmetadata: {name: a}\n",
        "kind: Host\nmetadata: {name: b}\n",
        ve("files", "host: a, mounts: [{source: /srv, target: /data}]"),
        ve("card", "host: a, devices: [{nic: enp5s0}]"),
        ve("disk", "host: a, devices: [{path: /dev/sdb}]"),
        ve("vpn", "host: a, devices: [{path: /dev/net/tun}]"),
    )
    found = propose(Wish(fleet=fleet_of(*documents), drained=frozenset({HostName("a")})))
    assert [(seat.ve, seat.after) for seat in found.seats] == [("vpn", "b")]
    assert {one.ve: one.reason.partition(";")[0] for one in found.unplaced} == {
        "files": "mounts /srv of its host",
        "card": "has the interface enp5s0 of its host",
        "disk": "has the device /dev/sdb of its host",
    }


def test_a_host_of_which_nobody_knows_the_size_comes_last_and_that_is_said() -> None:
    hosts = [host(HOSTS[0], None), host(HOSTS[1], 4)]
    found = propose(Wish(fleet=fleet(hosts, [guest(f"v{n}", 3, None) for n in range(2)])))
    assert sorted(seat.after for seat in found.seats) == ["a", "b"]
    assert found.notes == ("a declares no capacity: nobody can tell from here how much fits on it",)


def test_without_any_sizes_ves_are_counted() -> None:
    hosts = [host(name, None) for name in HOSTS]
    ves = [guest(f"v{n}", 3, HOSTS[0]) for n in range(6)]
    found = propose(Wish(fleet=fleet(hosts, ves), levels=True))
    assert [one.ves for one in found.hosts] == [(6, 2), (0, 2), (0, 2)]


def test_ports_and_networks_that_a_host_has_given_away_keep_others_out() -> None:
    def network(name: str, ve: str) -> str:
        forwards = f"forwards: [{{listen: 80, to: {ve}:80}}]"
        return f'kind: Network\nmetadata: {{name: {name}}}\nspec: {{subnets: ["10.{name[1]}.0.0/16"], {forwards}}}\n'

    def on(name: str, where: str) -> str:
        return f"host: {where}, interfaces: [{{name: eth0, network: {name}, addresses: [10.{name[1]}.0.9/16]}}]"

    documents = [f"kind: Host\nmetadata: {{name: {name}}}\n" for name in HOSTS]
    documents += [network("n1", "one"), network("n2", "two"), ve("one", on("n1", "a")), ve("two", on("n2", "b"))]
    found = propose(Wish(fleet=fleet_of(*documents), drained=frozenset({HOSTS[0]})))
    assert [(seat.ve, seat.after) for seat in found.seats] == [("one", "c")]
    shut = propose(Wish(fleet=fleet_of(*documents), drained=frozenset({HOSTS[0], HOSTS[2]})))
    assert shut.unplaced[0].hosts[HOSTS[1]] == "tcp 80 of b is forwarded to two"
