"""How long a client hears nothing of a VE that moves between two hosts, beside what criu alone takes of it.

Both hosts are on this machine: no time on a wire is in it. What criu takes is from its own log of the same dump and
restore, without the time in which it waited for us.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench import common
from reconciler.host import memory_files
from reconciler.host.host import RealHost
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.network import (
    AddGateway,
    AnnounceAddress,
    AttachInterface,
    CreateNetwork,
    SetNetworkUp,
    SetUplink,
)
from reconciler.model.placement import ClearMove, CutParcel, EndHeld, HoldRuntime, OpenRuntime, PlaceArrival
from reconciler.model.power import DeleteRuntime, StartRuntime
from reconciler.model.volume import PurgeTrash, TrashVe
from tests.support import two_hosts
from tests.support.effect_choices import LAN
from tests.support.suspended import RESUME
from tests.support.traffic import Client, listening, talking
from tests.support.twins import ADDRESS, SIX, A, data, launch, linked
from tests.support.two_hosts import CLIENT, UPLINK, Remote

ROUNDS = 5
HELD_MIB = 16
SOURCE = Path(common.ROOT, "tests/kernel/state/talk.c")
VE = (str(ADDRESS.ip), str(SIX.ip))
CGROUP = CreateCgroup(uid=A, limits={Limit.MEMORY_LIMIT: 1 << 27})
ALL = tuple(it for it in linked(A) if not isinstance(it, AddGateway))
ATTACH = tuple(it for it in ALL if isinstance(it, AttachInterface))
LAID = (*(it for it in ALL if isinstance(it, CreateNetwork | SetNetworkUp)), SetUplink(network=LAN, uplink=UPLINK))
WIRED = tuple(it for it in ALL if it not in (*LAID, *ATTACH))
ANNOUNCE = tuple(AnnounceAddress(uid=A, interface="eth0", address=it.ip) for it in (ADDRESS, SIX))
_AT = re.compile(r"^\((?P<at>\d+\.\d+)\)")


def main() -> None:
    """Move a VE to and fro, and print each round and the medians."""
    common.machine()
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch, "talk")
        subprocess.run(["gcc", "-O1", "-static", "-o", str(built), str(SOURCE)], check=True, timeout=120)
        two_hosts.between_hosts(partial(_rounds, program=built.read_bytes(), place=scratch))


async def _rounds(source: Remote, target: Remote, program: bytes, place: str) -> None:
    client, rounds = Client(), []
    await source.perform(*data(A), *LAID, CGROUP, launch(A), *WIRED, *ATTACH, StartRuntime(uid=A))
    await target.perform(*LAID)
    await source.do(partial(two_hosts.put_program, uid=A, program=program, name="talk"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(listening(client, CLIENT))
        await source.shell(A, f"talk {HELD_MIB} {' '.join(CLIENT)} </dev/null >/dev/null 2>&1")
        await stack.enter_async_context(talking(client, VE))
        await client.until_all_go_on(at_least=6)
        for number in range(ROUNDS):
            rounds.append(await _move(source, target, client, f"m{number}", place))
            print(f"round {number}: " + ", ".join(f"{what} {ms:.0f}" for what, ms in rounds[-1].items()), flush=True)
            source, target = target, source
    middle = {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
    print("median: " + ", ".join(f"{what} {ms:.0f}" for what, ms in middle.items()))
    common.report("silence of a VE that moves, datagrams", f"{middle['udp']:.0f} ms (median of {ROUNDS})", "<= 400 ms")
    common.report("the same, TCP", f"{middle['tcp']:.0f} ms (median of {ROUNDS})", "as datagrams")
    common.report("criu alone, dump and restore", f"{middle['criu']:.0f} ms (median of {ROUNDS})", "none")


async def _move(source: Remote, target: Remote, client: Client, move: str, place: str) -> dict[str, float]:
    took: dict[str, float] = {}
    record = await source.do(partial(two_hosts.record_of, uid=A))
    await source.perform(CutParcel(uid=A, move=move, number=0))
    await two_hosts.send_all(source, target, A, move, place)
    client.gaps()
    began = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal began
        now = time.perf_counter()
        took[what], began = (now - began) * 1000, now

    await source.perform(HoldRuntime(uid=A, move=move, number=1))
    lap("hold")
    await two_hosts.send_all(source, target, A, move, place)
    lap("send")
    await target.perform(PlaceArrival(record=record, move=move), CGROUP)
    lap("place")
    await target.perform(RESUME, *WIRED)
    lap("create")
    await target.perform(StartRuntime(uid=A, closed=True))
    lap("restore")
    await target.perform(*ATTACH, OpenRuntime(uid=A), *ANNOUNCE)
    lap("open")
    await client.until_all_go_on(at_least=6)
    gaps = client.gaps()
    took["udp"] = max(ms for kind, ms in gaps.items() if kind.startswith("datagrams"))
    took["tcp"] = max(ms for kind, ms in gaps.items() if not kind.startswith("datagrams"))
    dumped = await source.do(partial(_criu_ms, what="dump"))
    took["criu"] = dumped + await target.do(partial(_criu_ms, what="restore"))
    took["of it dump"] = dumped
    await source.perform(EndHeld(uid=A, move=move), DeleteRuntime(uid=A), RemoveCgroup(uid=A))
    await source.perform(ClearMove(uid=A, move=move), TrashVe(uid=A))
    await source.do(_purge)
    await target.perform(ClearMove(uid=A, move=move))
    return took


async def _purge(host: RealHost) -> None:
    for entry in (await host.observe()).trash:  # type: ignore[union-attr]  # it can be read here
        await host.perform(PurgeTrash(trash_id=entry.id))


async def _criu_ms(host: RealHost, what: str) -> float:
    """Add up what criu took by its log, but for the time in which its hooks ran."""
    log = Path(memory_files.work_dir(host.site, A), f"{what}.log")
    text = await asyncio.to_thread(log.read_text, errors="replace")
    taken = last = 0.0
    in_hook = False
    for line in text.splitlines():
        found = _AT.match(line)
        if found is None:
            continue
        at = float(found["at"])
        if not in_hook:
            taken += at - last
        last, in_hook = at, "scripts" in line and "Running" in line
    return taken * 1000


if __name__ == "__main__":
    main()
