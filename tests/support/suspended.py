"""VEs that are suspended and resumed, by the effects that do it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from reconciler.host.host import RealHost
from reconciler.model.compute import CreateCgroup, Limit, RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.network import AttachInterface
from reconciler.model.power import DeleteRuntime, PowerObservation, StartRuntime, SuspendRuntime
from tests.support.inside import Ve
from tests.support.twins import A, launch, linked

RESUME = replace(launch(A), resume=True)
WIRED = tuple(effect for effect in linked(A) if not isinstance(effect, AttachInterface))
ATTACH = tuple(effect for effect in linked(A) if isinstance(effect, AttachInterface))
CGROUP = CreateCgroup(uid=A, limits={Limit.MEMORY_LIMIT: 1 << 27})
ASLEEP: tuple[Effect, ...] = (SuspendRuntime(uid=A), DeleteRuntime(uid=A), RemoveCgroup(uid=A))
RESUMED: tuple[Effect, ...] = (DeleteRuntime(uid=A), CGROUP, RESUME, *WIRED, StartRuntime(uid=A), *ATTACH)


async def power_of(host: RealHost) -> PowerObservation:
    seen = (await host.observe()).ves[A].power
    assert isinstance(seen, PowerObservation), seen
    return seen


async def shell(host: RealHost, script: str) -> str:
    return await asyncio.to_thread(Ve(host.site.instance, A).shell, script)


async def until(host: RealHost, script: str) -> None:
    """Wait until a script ends well in the VE."""
    ve = Ve(host.site.instance, A)
    for _ in range(500):
        if (await asyncio.to_thread(ve.try_run, "sh", "-c", script))[0] == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never true: {script}")
