"""The carrier of this host: what a VE is that is to leave, and its parcels, sent and received."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing

from reconciler.errors import BusyError
from reconciler.host import compute, image, kept, memory_files, parcel_notes, power, receptions, sendings, volume
from reconciler.host.site import Site
from reconciler.kernel import cgroup_use, criu_program, files
from reconciler.model.identity import Digest, Uid
from reconciler.model.placement import Cargo, Parcel, ParcelKind
from reconciler.model.power import PowerState

_CPU = "/proc/cpuinfo"


class HostCarrier:
    """Implements `model.fleet_seam.Carrier` over what lies in the pool."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._taking: set[tuple[Uid, str, str]] = set()

    async def cargo(self, uid: Uid) -> Cargo:
        """Say what a VE is, as the seam says."""
        return await asyncio.to_thread(_cargo, self._site, uid)

    async def parcels(self, uid: Uid, move: str) -> tuple[Parcel, ...]:
        """Give what there is to be sent, as the seam says."""
        return await asyncio.to_thread(sendings.list_parcels, self._site, uid, move)

    async def received(self, uid: Uid, move: str) -> frozenset[str]:
        """Name the parcels that are here whole, as the seam says."""
        directory = parcel_notes.received_in(parcel_notes.directory_of(self._site, uid, move))
        arrived = [str(parcel) for parcel in parcel_notes.arrived_in(directory)]
        found = [name.removesuffix(".erofs") for name in parcel_notes.listed(self._site.instance.templates)]
        templates = [str(Parcel(kind=ParcelKind.TEMPLATE, name=name)) for name in found if _is_digest(name)]
        return frozenset({*arrived, *templates})

    async def send(self, uid: Uid, move: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Give a parcel's bytes, as the seam says."""
        async with aclosing(sendings.send(self._site, uid, move, parcel)) as pieces:
            async for piece in pieces:
                yield piece

    async def receive(self, uid: Uid, move: str, parcel: Parcel, chunks: AsyncIterator[bytes]) -> None:
        """Take a parcel, as the seam says; one that is here already is not taken again.

        Raises: BusyError, if it is just being taken.
        """
        if str(parcel) in await self.received(uid, move):
            async for _ in chunks:
                pass
            return
        taken = uid, move, str(parcel)
        if taken in self._taking:
            raise BusyError(f"receive {parcel} of VE {uid}: it is just being received")
        self._taking.add(taken)
        try:
            await receptions.receive(self._site, uid, move, parcel, chunks)
        finally:
            self._taking.discard(taken)


def _is_digest(name: str) -> bool:
    return len(name) == len("0" * 64) and "." not in name


def _cargo(site: Site, uid: Uid) -> Cargo:
    record, present = site.need_record(uid), kept.need_volume(site, uid, f"look what VE {uid} takes to move")
    digest: Digest = kept.base_of(site, uid)[1]
    observed = volume.observe(site, uid, volume.read_quotas(site, (uid,)))
    used = observed.used or 0
    is_image = os.path.exists(image.path_in(present))
    return Cargo(
        record=record,
        template=digest,
        data=observed.size or used if is_image else used,
        snapshots=max(0, (observed.held or used) - used),
        memory=_memory(site, uid),
        is_image=is_image,
        facts=_facts(site),
    )


def _memory(site: Site, uid: Uid) -> int | None:
    match power.observe(site, uid).state:
        case PowerState.RUNNING:
            return cgroup_use.read_use(site.layout, compute.tree(site, uid).cgroup).memory or 0
        case PowerState.SUSPENDED:
            return memory_files.size_of(f"{site.instance.suspended_dir(uid)}/{kept.MEMORY}")
        case _:
            return None


def _facts(site: Site) -> dict[str, str]:
    """Say what processes in memory depend on: they go on only where all of it is, or more."""
    text = (files.read_bytes_if_exists(_CPU) or b"").decode(errors="replace")
    flags = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("flags")), "")
    return {
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cpu": " ".join(sorted(flags.split())),
        "cgroup": "v1" if site.layout.unified is None else "v2",
        "criu": criu_program.why_not(site.instance.programs) or "ready",
    }
