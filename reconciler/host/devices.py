"""Devices: device files of the host in a VE, each a node of the VE's own, and what its cgroup may do with them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping
from dataclasses import replace

from reconciler.errors import BusyError, KernelError, MissingToolError
from reconciler.host import compute, grafts, interface_ends, nics
from reconciler.host.bundle import BASE_DEVICES
from reconciler.host.grafts import Graft
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import device_rules, graft
from reconciler.kernel.device_rules import DeviceId
from reconciler.kernel.graft import Target
from reconciler.kernel.pidfd import ProcessId
from reconciler.model.devices import AddDevice, DevicesObservation, RemoveDevice
from reconciler.model.identity import Uid

_KIND = "devices"

NOTES = frozenset({grafts.file_name(_KIND), nics.NOTE})
"""Where it is written down what devices of the host a VE has."""

NOTHING = DevicesObservation()

_PLACE = "/dev/"


def observe(site: Site, uid: Uid, init: ProcessId) -> DevicesObservation:
    """Look at the devices of the host that a VE has.

    Raises: KernelError, StateError.
    """
    noted = grafts.read(site, uid, _KIND, init)
    moved = nics.observe(site, uid, init)
    if not noted:
        return DevicesObservation(nics=moved)
    there = {path: it for path, it in grafts.in_place(init.pid, noted).items() if _is_still(path, it)}
    return DevicesObservation(nodes=_accesses(site, uid, there), nics=moved)


def _is_still(path: str, it: Graft) -> bool:
    """Say whether a path of the host leads to the device that a VE was given."""
    try:
        return _id_of(it) == _id(os.stat(path))
    except OSError:
        return False


def _accesses(site: Site, uid: Uid, there: Mapping[str, Graft]) -> dict[str, str]:
    directory, unified = _cgroup(site, uid)
    if unified:
        programs = device_rules.loaded(directory)
        return {
            path: it.about["access"] if programs == (int(it.about["program"]),) else "" for path, it in there.items()
        }
    rules = device_rules.listed(directory)
    return {path: rules.get(_id_of(it), "") for path, it in there.items()}


def _cgroup(site: Site, uid: Uid) -> tuple[str, bool]:
    hierarchy = site.layout.of("devices")
    if hierarchy is None:
        raise MissingToolError("set device rules: no cgroup hierarchy of this host has the devices controller")
    return hierarchy.path(compute.tree(site, uid).inner), hierarchy.unified


async def add(site: Site, effect: AddDevice) -> None:
    """Give a VE a device file of the host with exactly this access.

    Raises: StateError, if the VE does not run; KernelError, if it is no device of the host, or the VE's root has
    mounted something in its place; BusyError, if the VE has the same device by another path with another access.
    """
    into = interface_ends.inside(site, effect.uid)
    await asyncio.to_thread(_add, site, effect, into)


def _add(site: Site, effect: AddDevice, into: Inside) -> None:
    uid, path = effect.uid, effect.path
    info = _device(path)
    device = _id(info)
    noted = dict(grafts.read(site, uid, _KIND, into.init))
    there = grafts.in_place(into.init.pid, noted).get(path)
    _refuse_other_access(path, effect.access, device, noted)
    if there is None or _id_of(there) != device:
        if there is not None:
            grafts.take_out(into, _target(site, uid, into, path), there)
        there = _put(site, uid, into, path, info)
    about = {"access": effect.access, "device": str(device), "program": "0"}
    noted[path] = replace(there, about=about)
    _write(site, uid, into, noted, device)


def _device(path: str) -> os.stat_result:
    real = os.path.realpath(path)
    try:
        info = os.stat(real)
    except OSError as err:
        raise KernelError(f"add device {path}: this host has none; plug it in, or load its driver") from err
    if not real.startswith(_PLACE) or not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise KernelError(f"add device {path}: expected a device file below /dev")
    return info


def _id(info: os.stat_result) -> DeviceId:
    major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    return DeviceId(block=stat.S_ISBLK(info.st_mode), major=major, minor=minor)


def _id_of(it: Graft) -> DeviceId:
    return device_rules.parse_id(it.about["device"])


def _refuse_other_access(path: str, access: str, device: DeviceId, noted: Mapping[str, Graft]) -> None:
    for other, it in noted.items():
        if other != path and _id_of(it) == device and it.about["access"] != access:
            raise BusyError(f"add device {path}: it is {other}, too, which the VE has with access {it.about['access']}")


def _target(site: Site, uid: Uid, into: Inside, path: str) -> Target:
    owner, dev = site.need_record(uid).id_base, grafts.dev_of(into)
    return Target(path=path.removeprefix(_PLACE), owner=owner, directory=False, dev=dev)


def _put(site: Site, uid: Uid, into: Inside, path: str, info: os.stat_result) -> Graft:
    """Put a node of the VE's own in its place: whatever the VE's root does to that, the host's stays as it is."""
    target = _target(site, uid, into, path)
    node = graft.device(info.st_mode, info.st_rdev, owner=target.owner)
    try:
        return grafts.put(uid, into, node, target, locked=False)
    finally:
        os.close(node)


def _write(site: Site, uid: Uid, into: Inside, noted: Mapping[str, Graft], changed: DeviceId) -> None:
    """Make the cgroup's rules those of the devices that a VE has, and write down which they are."""
    directory, unified = _cgroup(site, uid)
    rules = {_id_of(it): it.about["access"] for it in noted.values()}
    if not unified:
        device_rules.change_listed(directory, changed, rules.get(changed, ""))
        program = 0
    else:
        program = device_rules.load(directory, {**BASE_DEVICES, **rules})
    marked = {path: replace(it, about={**it.about, "program": str(program)}) for path, it in noted.items()}
    grafts.write(site, uid, _KIND, into.init, marked)


def allow(site: Site, uid: Uid, accesses: Mapping[str, str]) -> None:
    """Give the cgroup of a VE that no runtime makes the rules that one would, and those of devices that it had.

    Shape: ``accesses`` by the numbers of a device as a `DeviceId` is written.
    Raises: KernelError; MissingToolError.
    """
    directory, unified = _cgroup(site, uid)
    rules = {**BASE_DEVICES, **{device_rules.parse_id(device): access for device, access in accesses.items()}}
    if unified:
        device_rules.load(directory, rules)
    else:
        device_rules.list_only(directory, rules)


def program_of(site: Site, uid: Uid) -> int:
    """Give the number of the program that decides about a VE's devices; 0 where that is a list.

    Raises: KernelError.
    """
    directory, unified = _cgroup(site, uid)
    return next(iter(device_rules.loaded(directory)), 0) if unified else 0


async def remove(site: Site, effect: RemoveDevice) -> None:
    """Take a device file from a VE; absent is success.

    Raises: StateError, if the VE does not run; KernelError.
    """
    into = interface_ends.inside(site, effect.uid)
    await asyncio.to_thread(_remove, site, effect, into)


def _remove(site: Site, effect: RemoveDevice, into: Inside) -> None:
    uid, path = effect.uid, effect.path
    noted = dict(grafts.read(site, uid, _KIND, into.init))
    present = noted.pop(path, None)
    if present is None:
        return
    if path in grafts.in_place(into.init.pid, {path: present}):
        grafts.take_out(into, _target(site, uid, into, path), present)
    _write(site, uid, into, noted, _id_of(present))
