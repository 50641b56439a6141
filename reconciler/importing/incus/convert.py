"""Conversion: instances of Incus as VEs, each with what its profiles say, and its networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from reconciler.importing.draft import Draft, Job
from reconciler.importing.incus import devices, options
from reconciler.importing.incus.devices import Device
from reconciler.importing.incus.read import Item, read, text
from reconciler.importing.incus.units import is_true
from reconciler.importing.report import Outcome, Setting
from reconciler.importing.result import STAND_IN, Import
from reconciler.importing.suites import suite_of
from reconciler.importing.words import name_of, shown, whole
from reconciler.model.facts import Json

_DESCRIPTION_MOST = 1024
_TOP_IGNORED = frozenset(
    {"name", "config", "devices", "expanded_config", "expanded_devices", "profiles", "status", "status_code", "state"}
    | {"created_at", "last_used_at", "backups", "stateful", "type", "description", "restore", "disk_only", "project"}
)
_NETWORK_KEYS = frozenset({"ipv4.address", "ipv6.address", "ipv4.nat", "ipv6.nat", "bridge.mtu"}) | frozenset(
    {"bridge.external_interfaces"}
)


def convert(files: Mapping[str, bytes], run: Import) -> None:
    """Draft the manifests of instances and networks; everything that they say is accounted for."""
    items = [item for file, data in sorted(files.items()) for item in read(file, data, run.ledger)]
    profiles = {
        (text(item.values.get("project")) or "default", item.name): item for item in items if item.kind == "profile"
    }
    for item in items:
        if item.kind == "network":
            _network(item, run)
    for item in items:
        if item.kind == "instance":
            _instance(item, profiles, run)
    for item in items:
        if item.kind == "profile":
            here = item.setting("name")
            run.ledger.note(here, Outcome.IGNORED, "a profile: what it says is in each VE that has it")


# Networks


def _network(item: Item, run: Import) -> None:
    here = item.setting("name")
    if item.values.get("managed") is False or item.values.get("type") != "bridge":
        why = "only bridges that Incus manages become networks; VEs are on those that they name"
        run.ledger.note(here, Outcome.IGNORED, why)
        return
    name = name_of(item.name, otherwise="lan")
    draft = run.drafts.setdefault(("Network", name), Draft(kind="Network", name=name))
    draft.head.append(f"Imported from {shown(item.file)}, network {shown(item.name)} of Incus.")
    draft.spec["mode"] = "bridged"
    job = Job(draft=draft, ledger=run.ledger)
    config = item.below("config")
    _subnets(item, config, job)
    for key in sorted(config):
        setting = item.setting("config", key)
        if key in _NETWORK_KEYS or job.has_said(setting):
            continue
        if key.startswith("volatile.") or config[key] == "":
            job.ignore(setting, "what Incus keeps for itself")
        else:
            job.drop(setting, "there is no field for it")


def _subnets(item: Item, config: Mapping[str, str], job: Job) -> None:
    subnets: list[Json] = []
    gateways: list[Json] = []
    for version in (4, 6):
        setting = item.setting("config", f"ipv{version}.address")
        if setting.value in ("", "none", "auto"):
            continue
        try:
            found = ipaddress.ip_interface(setting.value)
        except ValueError:
            job.drop(setting, "expected an address with its prefix length")
            continue
        subnets.append(str(found.network))
        gateways.append(str(found.ip))
        job.mapped(setting, "subnets, gateway")
    if subnets:
        job.draft.spec |= {"subnets": subnets, "gateway": gateways}
    nat = [key for key in ("ipv4.nat", "ipv6.nat") if is_true(config.get(key, ""))]
    for key in nat if subnets else ():
        job.put(item.setting("config", key), "nat", True)
    mtu, uplink = config.get("bridge.mtu", ""), config.get("bridge.external_interfaces", "")
    if mtu:
        try:
            job.put(item.setting("config", "bridge.mtu"), "mtu", whole(mtu, most=65535))
        except ValueError as err:
            job.drop(item.setting("config", "bridge.mtu"), str(err))
    if uplink and "," not in uplink and "/" not in uplink:
        job.put(item.setting("config", "bridge.external_interfaces"), "uplink", uplink)
    elif uplink:
        job.drop(item.setting("config", "bridge.external_interfaces"), "a network has one uplink, which the host makes")


# Instances


def _instance(item: Item, profiles: Mapping[tuple[str, str], Item], run: Import) -> None:
    if text(item.values.get("type")) == "virtual-machine":
        run.ledger.note(item.setting("name"), Outcome.DROPPED, "a virtual machine, and no container")
        return
    project = text(item.values.get("project")) or "default"
    draft = run.add("VirtualEnvironment", item.name, by=project)
    draft.head.append(f"Imported from {shown(item.file)}, instance {shown(item.name)} of Incus.")
    job = Job(draft=draft, ledger=run.ledger)
    sources = [*_profiles(item, project, profiles, job), item]
    settings = _settings(item, sources)
    _template(item, settings, job, run)
    _power(item, settings, job)
    options.convert(settings, job)
    devices.convert(_devices(item, sources), job, run, item)
    _top(item, job)


def _profiles(item: Item, project: str, profiles: Mapping[tuple[str, str], Item], job: Job) -> Iterable[Item]:
    """Give the profiles of an instance that is not written with what they say already."""
    named = item.values.get("profiles")
    if "expanded_config" in item.values or not isinstance(named, list):
        return []
    found = []
    for name in named:
        profile = profiles.get((project, text(name))) or profiles.get(("default", text(name)))
        if profile is None:
            job.drop(
                item.setting("profiles"), f"{shown(text(name))}: the profile is not in the files: import it as well"
            )
        else:
            found.append(profile)
    return found


def _settings(item: Item, sources: list[Item]) -> dict[str, Setting]:
    """Give the configuration with that of profiles below it; each key with where it is said."""
    found = {key: item.setting("expanded_config", key) for key in item.below("expanded_config")}
    for source in sources:
        found |= {key: source.setting("config", key) for key in source.below("config")}
    return {key: _renamed(setting) for key, setting in found.items()}


def _renamed(setting: Setting) -> Setting:
    from dataclasses import replace

    return replace(setting, key=setting.key.replace("expanded_config.", "config.", 1))


def _devices(item: Item, sources: list[Item]) -> list[Device]:
    found: dict[str, Device] = {}
    for name, values in item.devices("expanded_devices").items():
        found[name] = Device(name=name, values=values, item=item, key="expanded_devices")
    for source in sources:
        for name, values in source.devices("devices").items():
            found[name] = Device(name=name, values=values, item=source, key="devices")
    return [found[name] for name in sorted(found)]


def _template(item: Item, settings: Mapping[str, Setting], job: Job, run: Import) -> None:
    words = [settings[key] for key in ("image.description", "image.os", "image.release") if key in settings]
    here = words[0] if words else item.setting("name")
    if run.template:
        job.draft.put("template", run.template)
        return
    suite = suite_of(" ".join(setting.value for setting in words))
    if suite is not None:
        job.draft.put("template", run.suite(suite, suite, here), here)
        why = "the distribution, built anew; its own files come by `vectl import --rootfs` of `incus export`"
        job.draft.remark(("template",), why)
        job.changed(here, "template", why)
        return
    why = "stands in: its own files come by `vectl import --rootfs` of `incus export`, whose name belongs here"
    job.guess(here, "template", STAND_IN, why)


def _power(item: Item, settings: Mapping[str, Setting], job: Job) -> None:
    autostart, last = settings.get("boot.autostart"), settings.get("volatile.last_state.power")
    status = item.setting("status")
    if autostart is not None and autostart.value:
        job.put(autostart, "power", "running" if is_true(autostart.value) else "stopped")
    elif status.value or (last is not None and last.value):
        running = (status.value or (last.value if last else "")).lower() == "running"
        why = "as it was when this was written: Incus starts again what ran"
        job.guess(status if status.value or last is None else last, "power", "running" if running else "stopped", why)
    else:
        job.guess(status, "power", "stopped", "whether it ran is not said; `running`, if it is to run")


def _top(item: Item, job: Job) -> None:
    """Account for what an instance says beside its configuration and its devices."""
    description = item.setting("description")
    if description.value:
        job.put(description, "description", description.value[:_DESCRIPTION_MOST])
    snapshots = item.values.get("snapshots")
    if isinstance(snapshots, list) and snapshots:
        job.drop(item.setting("snapshots"), f"{len(snapshots)} snapshots: their data is not imported")
    if item.values.get("ephemeral") is True:
        job.drop(item.setting("ephemeral"), "a VE stays when it stops")
    location = item.setting("location")
    if location.value not in ("", "none"):
        job.drop(location, "on a fleet of several hosts: write it as host")
    for key in item.values:
        if key not in _TOP_IGNORED and key not in ("snapshots", "ephemeral", "location", "architecture"):
            job.drop(item.setting(key), "no such key is known")
