"""The promises hold whatever happens: edits, drift, faults, crashes and reboots at random, in virtual time.

Each seed is one story on one host. At its end everything heals, and the host must be as the manifests say (I1), with
every VE's data there and every memory kept until it was spent, once (I4, I5), what is not ours untouched (I3), nothing
left to do (I2), and the books in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_interface
from random import Random

import pytest

from reconciler.apply.seam import FailpointEffects, parse_failpoints
from reconciler.model.compute import Limit
from reconciler.model.facts import Unknown
from reconciler.model.identity import Uid
from reconciler.model.observation import Facet
from reconciler.model.power import EndCause
from reconciler.model.seam import Effects, Wake
from reconciler.model.snapshots import SnapshotKind
from reconciler.model.volume import Record
from reconciler.state.inventory import Entry, Inventory, Phase
from reconciler.state.layout import inventory_dir
from reconciler.twin.host import crash
from reconciler.twin.machine import Machine
from tests.support import simloop
from tests.support.memories import assert_memories_kept
from tests.support.rig import LAN, Rig, on_lan, text_of, ve
from tests.support.scenarios import NOT_OURS, STRANGER, make_stranger
from tests.support.simulation import Simulation, agent_on, clocked_rig
from tests.support.stored import stored

SEEDS = range(24)
CHAPTERS, EVENTS = 4, 8
NAMES = "abcd"
LAN2 = LAN.replace("nat: true", "isolated: true, mtu: 1400")
SPECS = (
    "",
    "memory: {limit: 64Mi}",
    "memory: {limit: 1Gi}, processes: 99",
    "rlimits: {nofile: 99}",
    "power: stopped",
    "disk: {size: 1Gi}, description: small",
    "boot: {restart: always}",
    "snapshots: [{name: one}]",
    "snapshots: [{name: one}, {name: two, memory: true}]",
    "snapshots: [{name: one}], rollback: {to: one, request: first}",
    "snapshots: [{name: one}], rollback: {to: one, request: second}, rlimits: {nofile: 98}",
    "snapshotSchedule: {every: 1d, keep: 1}",
    "power: suspended",
    "power: suspended, memory: {limit: 64Mi}, rlimits: {nofile: 99}",
)


@dataclass
class Story:
    """What a seed tells. ``born``: the data of every VE that ever was, by uid; ``written``: the files made in it.

    ``before``: the host a moment ago.
    """

    rig: Rig
    random: Random
    born: dict[Uid, int] = field(default_factory=dict)
    written: dict[Uid, set[str]] = field(default_factory=dict)
    documents: tuple[str, ...] = ()
    before: Machine | None = None

    def edit(self) -> bytes:
        """Write other manifests: the VEs that there are with other specs, rarely one VE less."""
        names = self.random.sample(NAMES, self.random.choice([2, 3, 3, 4, 4]))
        self.documents = (self.random.choice([LAN, LAN, LAN2]), *map(self._ve, names))
        return text_of(*self.documents)

    def _ve(self, name: str) -> str:
        number = 10 + NAMES.index(name) + self.random.choice([0, 0, 20])
        parts = [self.random.choice(SPECS), on_lan(number) if self.random.random() < 0.7 else ""]
        return ve(name, ", ".join(part for part in parts if part))

    def remember(self) -> None:
        """Give every VE that is new some data, and remember it."""
        for uid in self.rig.machine.volumes.keys() - self.born.keys() - {STRANGER}:
            self.born[uid] = self.random.randrange(1, 1 << 20)
            self.rig.world.set_use(uid, disk=self.born[uid])
        if self.before is not None:
            assert_memories_kept(self.before, self.rig.machine)
        self.before = self.rig.machine.copy()

    def happen(self, agent: Simulation) -> None:
        """Let something happen, and tell of it more often than not."""
        world, random = self.rig.world, self.random
        running = sorted(self.rig.machine.runtimes.keys() - {STRANGER})
        if not running:
            return
        uid = random.choice(running)
        link = next(iter(self.rig.machine.runtimes[uid].network.interfaces), None)
        things: list[Callable[[], None]] = [
            lambda: world.set_limit(uid, Limit.MEMORY_LIMIT, 1 << 20) if uid in self.rig.machine.cgroups else None,
            lambda: world.set_volume_size(uid, 1 << 20) if uid in self.rig.machine.volumes else None,
            lambda: world.end_init(uid, random.choice([EndCause.KILLED, EndCause.REBOOT, EndCause.EXITED])),
            lambda: world.set_hostname(uid, "strange"),
            lambda: self.write(uid),
            lambda: self.write(uid),
            lambda: world.forbid_suspension(uid, random.choice(["it has a terminal open", ""])),
            lambda: world.hide(random.choice([Facet.POWER, Facet.COMPUTE, Facet.NETWORK]), uid),
            lambda: world.reveal(),
            world.flush_filter,
            world.fill_pool,
            world.free_pool,
        ]
        if link is not None:
            things += [
                lambda: world.set_link_down(uid, link),
                lambda: world.delete_link(uid, link),
                lambda: world.add_address(uid, link, ip_interface("192.0.2.9/24")),
            ]
        if self.rig.machine.networks:
            things.append(lambda: world.delete_network(random.choice(sorted(self.rig.machine.networks))))
        random.choice(things)()
        if random.random() < 0.7:
            agent.events.tell(Wake(uid=random.choice([uid, None])))

    def write(self, uid: Uid) -> None:
        """Let root of a VE make a file."""
        if uid in self.rig.machine.volumes:
            files = self.written.setdefault(uid, set())
            files.add(f"/file{len(files)}")
            self.rig.world.write_file(uid, f"/file{len(files) - 1}")

    def heal(self) -> None:
        """Let everything work again."""
        self.rig.world.reveal()
        self.rig.world.free_pool()
        self.rig.machine.obstacles.clear()


def faulty(random: Random) -> Callable[[Effects], Effects]:
    """Let one effect of eight fail, half of them after it was done; and perhaps die at some effect."""
    points = "*:before=6%error(EIO);*:after=6%error(EIO)"
    if random.random() < 0.5:
        points = f"*:{random.choice(['before', 'after'])}={random.randrange(60)}*off->kill;{points}"
    failpoints = parse_failpoints(points)
    return lambda inner: FailpointEffects(inner, failpoints, random=random, kill=crash)


async def tell(story: Story, seed: int) -> None:
    files: dict[str, bytes] | None = {"fleet.yaml": story.edit()}
    for chapter in range(CHAPTERS):
        wrap = faulty(story.random)
        async with agent_on(story.rig, files, seed=seed + chapter, resync_s=120, wrap=wrap) as agent:
            for _ in range(EVENTS):
                await asyncio.sleep(story.random.choice([0.1, 1.0, 5.0, 45.0]))
                if agent.died:
                    break
                story.remember()
                story.happen(agent)
                if story.random.random() < 0.3:
                    agent.manifests.files = files = {"fleet.yaml": story.edit()}
                    agent.manifests.hint()
        assert_not_ours_untouched(story)
        if story.random.random() < 0.3:
            story.rig.world.reboot_host()
            story.heal()
            make_stranger(story.rig)
    await end(story, seed, files or {})


async def end(story: Story, seed: int, files: dict[str, bytes]) -> None:
    """Heal everything; everything must be well soon, and stay so."""
    story.heal()
    async with agent_on(story.rig, files, seed=seed, resync_s=60) as agent:
        story.remember()
        await agent.until(lambda: is_well(agent), "all to be well", within_s=900)
        await asyncio.sleep(200)
        agent.kernel.log.clear()
        await asyncio.sleep(1200)
        assert agent.kernel.log == []
        _, plan = await agent.reconciler.plan(await agent.reconciler.look())
        assert plan.actions == ()
    story.remember()
    assert_not_ours_untouched(story)
    assert_data_kept(story)
    assert_books_agree(story.rig)


def is_well(agent: Simulation) -> bool:
    """Say whether each VE of the manifests is ready, or held for a reason that time does not mend."""
    held = {"MassRemoval", "LooksLikeRename", "HaltedInside", "NeedsConsent", "SnapshotMissing", "NotRunning"}
    states = [agent.condition(name) for name in agent.reconciler.fleet.ves]
    return bool(states) and all(state.status == "True" or state.reason in held for state in states)


def assert_not_ours_untouched(story: Story) -> None:
    machine: Machine = story.rig.machine
    assert STRANGER in machine.runtimes
    assert set(machine.host_links) == set(NOT_OURS)
    assert set(machine.host_links.values()) == {""}


def assert_data_kept(story: Story) -> None:
    """I4: all that was ever written is in force, in a snapshot or in the trash; nobody consented to its end."""
    here = stored(story.rig.machine)
    for uid, used in story.born.items():
        assert {used, *story.written.get(uid, ())} <= here[uid], uid
    for record in story.rig.machine.records.values():
        assert isinstance(record, Record)
        aside = [k for k in story.rig.machine.snapshots.get(record.uid, {}).values() if k.kind is SnapshotKind.SAFETY]
        assert len(aside) <= len(set(record.requests_done)) == len(record.requests_done)


def assert_books_agree(rig: Rig) -> None:
    entries = Inventory(inventory_dir(rig.instance)).read()
    assert all(isinstance(entry, Entry) for entry in entries.values())
    present = {uid for uid, entry in entries.items() if not isinstance(entry, Unknown) and entry.phase is Phase.PRESENT}
    assert present >= rig.machine.records.keys() - {STRANGER}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_story_ends_well(seed: int) -> None:
    with clocked_rig() as rig:

        async def main() -> None:
            for link in NOT_OURS:
                rig.world.add_host_link(link)
            make_stranger(rig)
            await tell(Story(rig=rig, random=Random(seed)), seed)

        simloop.run(seed, main())
