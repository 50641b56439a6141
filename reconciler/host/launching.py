"""Launching: how a VE comes to run, from the bundle to the moment its init is let go."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import suppress

from reconciler.errors import BusyError, CommandError, StateError
from reconciler.host import (
    bundle,
    compute,
    image,
    kept,
    power,
    resuming,
    runtime,
    settings,
    switching,
    templates,
    views,
    volume,
)
from reconciler.host.keeper import protocol
from reconciler.host.keeper.client import NOT_FOUND
from reconciler.host.site import Site
from reconciler.kernel import command, files, runc
from reconciler.kernel.image import QUOTA_DIRECTORY, ImageMount
from reconciler.kernel.launch import LaunchSpec
from reconciler.kernel.overlay import OverlayMount
from reconciler.model.identity import IDS_PER_VE
from reconciler.model.power import CreateRuntime, Launch, PowerState, StartRuntime, launch_to_json

_CREATE_S = 60.0
_NOFILE = (1024, 524288)
"""Open files of a process, soft and hard, as systemd's DefaultLimitNOFILE has them."""


async def create(site: Site, effect: CreateRuntime) -> None:
    """Make the namespaces and the root file system, with init held back; the same again is success.

    Raises: StateError, if record, volume or cgroup is missing; TemplateError; BusyError, if something runs already;
    MissingToolError, without the runtime; CommandError, with its complaint.
    """
    await switching.settle(site, effect.uid)
    uid, seen = effect.uid, power.observe(site, effect.uid)
    is_same = seen.launch == effect.launch and resuming.is_resumed(site, uid) is effect.resume
    if seen.state is PowerState.CREATED and is_same:
        return
    if seen.pid is not None:
        raise BusyError(f"create runtime of {effect.name}: one is there already, {seen.state.value}")
    if effect.resume:
        await asyncio.to_thread(resuming.prepare, site, uid)
    elif seen.state is PowerState.SUSPENDED:
        raise StateError(f"create runtime of {effect.name}: it is suspended; resume it, or discard its memory")
    at = f"{site.instance.ve_run_dir(uid)}/bundle/disk"
    with image.attached(site.instance.volume(uid), at=at) as disk, volume.room_to_mount(site, uid):
        await _create(site, effect, disk)


async def _create(site: Site, effect: CreateRuntime, disk: ImageMount | None) -> None:
    uid, overlay = effect.uid, _overlay(site, effect, disk)
    settings.begin(site, uid)
    maker = runtime.of(site, uid)
    os.makedirs(overlay.target, mode=0o711, exist_ok=True)
    if disk is not None:
        os.makedirs(disk.attached_at, mode=0o711, exist_ok=True)
    if effect.resume:
        await resuming.create(site, effect, overlay)
        return
    if runc.remembers(maker, uid):
        await asyncio.to_thread(runc.delete, maker, uid)
    with suppress(FileNotFoundError):
        os.unlink(maker.log)
    directory = site.instance.ve_run_dir(uid)
    seen_by = await views.prepare(site)
    _write_bundle(site, effect, overlay, (*views.binds(site, seen_by), *_quota_binds(overlay)))
    files.write_volatile(runtime.file(site, uid, "launch.json"), json.dumps(launch_to_json(effect.launch)).encode())
    pid_file = f"{directory}/pid"
    request = protocol.Launch(
        uid=uid,
        spec=LaunchSpec(
            argv=maker.create_argv(uid, bundle=f"{directory}/bundle", pid_file=pid_file),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            overlay=overlay,
        ),
        pid_file=pid_file,
        timeout_s=_CREATE_S,
    )
    keeper = await site.keeper()
    try:
        views.note(site, uid, await keeper.launch(request), seen_by)
    except CommandError as err:
        complaint = runc.read_error(maker.log)
        if complaint is None and err.status == NOT_FOUND:
            raise command.missing_tool(maker.program, "no such program") from err
        raise CommandError(
            f"create runtime of {effect.name}: {complaint or err}", status=err.status, output=complaint or err.output
        ) from err


def _overlay(site: Site, effect: CreateRuntime, disk: ImageMount | None) -> OverlayMount:
    uid = effect.uid
    _, digest = kept.base_of(site, uid)
    volume = site.instance.volume(uid)
    if disk is None and not os.path.isdir(f"{volume}/work"):
        raise StateError(f"create runtime of {effect.name}: it has no volume")
    if not compute.tree(site, uid).exists():
        raise StateError(f"create runtime of {effect.name}: it has no cgroup")
    return OverlayMount(
        lower=templates.ensure_mounted(site, digest),
        volume=volume,
        target=site.instance.ve_rootfs(uid),
        id_base=effect.launch.id_base,
        id_count=IDS_PER_VE,
        nfs_export=True,
        image=disk,
    )


def _write_bundle(site: Site, effect: CreateRuntime, root: OverlayMount, binds: tuple[bundle.Bind, ...]) -> None:
    directory = site.instance.ve_run_dir(effect.uid)
    spec = bundle.BundleSpec(
        hostname=effect.hostname,
        rootfs=root.target,
        id_base=effect.launch.id_base,
        id_count=IDS_PER_VE,
        cgroup=site.instance.ve_cgroup(effect.uid),
        init=effect.launch.init,
        nesting=effect.launch.nesting,
        rlimits=rlimits(effect.launch),
        binds=binds,
        cgroup_mount="v2" if site.layout.is_pure_v2 else "hybrid",
        criu_config=f"{site.instance.run_dir}/criu.conf",
    )
    files.write_volatile(f"{directory}/bundle/config.json", json.dumps(bundle.build_config(spec)).encode())


def _quota_binds(root: OverlayMount) -> Iterator[bundle.Bind]:
    """Show the file system of an image and the name of its device, so that quota(1) finds both.

    It is an empty directory, and the rules for devices let nobody open the node.
    """
    if root.image is None or not root.image.quotas:
        return
    shown = f"{root.image.attached_at}/{QUOTA_DIRECTORY}"
    yield bundle.Bind(source=shown, target="/dev/quota", read_only=True)
    yield bundle.Bind(source=root.image.device, target=root.image.device, is_device=True)


def rlimits(launch: Launch) -> dict[str, tuple[int, int]]:
    """Give the limits of each process by their kernel names; open files always, so that the host's do not leak in."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    default = {"RLIMIT_NOFILE": (min(_NOFILE[0], hard), min(_NOFILE[1], hard))}
    return default | {f"RLIMIT_{name.upper()}": (value, value) for name, value in launch.rlimits.items()}


async def start(site: Site, effect: StartRuntime) -> None:
    """Let init of a created VE go; a running one is success.

    Raises: StateError, if nothing was created; KernelError, if init ended before; what `resuming.start` raises.
    """
    uid, seen = effect.uid, power.observe(site, effect.uid)
    if seen.pid is None:
        raise StateError(f"start VE {uid}: its runtime was not created")
    runs, is_resumed = seen.state is PowerState.RUNNING, resuming.is_resumed(site, uid)
    if effect.closed and (runs or not is_resumed):
        raise BusyError(f"start VE {uid} closed: it does not come from a memory, or runs already")
    if runs or (effect.closed and seen.held is not None):
        return
    if effect.closed:
        await resuming.start_closed(site, effect)
    elif is_resumed:
        await resuming.start(site, effect)
    else:
        runc.start(runtime.of(site, uid), uid)
