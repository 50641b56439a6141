"""Conversion: containers of Proxmox as VEs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from reconciler.importing.draft import Job
from reconciler.importing.proxmox import compute, network, raw, storage
from reconciler.importing.proxmox.config import PENDING, Config, options, parse
from reconciler.importing.report import Outcome, Setting
from reconciler.importing.result import STAND_IN, Import
from reconciler.importing.words import name_of, shown, visible, whole
from reconciler.model.facts import Json

_ID = re.compile(r"(?:.*/)?([1-9][0-9]{0,9})\.conf\Z")
_ORDER_FIRST = -1000
_DESCRIPTION_MOST = 1024
_TAG = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")

_CONVERTED = frozenset({"cpuunits", "cpulimit", "cores", "memory", "swap", "rootfs", "nameserver", "searchdomain"})

_LOST: Mapping[str, str] = {
    "timezone": "the time zone is set inside, by /etc/localtime",
    "hookscript": "a script that Proxmox runs, which is not run, and not read",
    "entrypoint": "an init is declared by the template, as init",
    "env": "an init that boots a system makes its own environment",
    "lock": "something of Proxmox was under way when this was written",
    "arch": "a VE runs what its files are for, on a host that can",
}
_NEEDLESS: Mapping[str, str] = {
    "console": "`vectl enter` opens a shell",
    "tty": "`vectl enter` opens a shell",
    "cmode": "`vectl enter` opens a shell",
    "debug": "vectl's logs say what happens",
    "parent": "what Proxmox keeps for itself",
    "snaptime": "what Proxmox keeps for itself",
    "snapstate": "what Proxmox keeps for itself",
    "digest": "what Proxmox keeps for itself",
}
_USUAL = ("arch", "amd64")
_FEATURES: Mapping[str, str] = {
    "keyctl": "keys of the kernel are open to a VE as far as its system calls are",
    "mknod": "devices are declared below devices",
    "mount": "a VE mounts no file systems of the host's devices",
    "force_rw_sys": "/sys of a VE is as systemd needs it",
}


def convert(files: Mapping[str, bytes], run: Import) -> None:
    """Draft the manifests of containers; everything that they say is accounted for."""
    for file, data in sorted(files.items()):
        match = _ID.match(file)
        ctid = match[1] if match else name_of(file.rpartition("/")[2].removesuffix(".conf"), otherwise="ct")
        _container(parse(file, data, run.ledger), ctid, run)


def _container(config: Config, ctid: str, run: Import) -> None:
    template = config.get("template")
    if template is not None and template.value == "1":
        why = "a template of Proxmox, and no container: its files become a Template by `vectl import --rootfs`"
        run.ledger.note(template, Outcome.DROPPED, why)
        return
    hostname = config.get("hostname")
    wanted = hostname.value.split(".")[0] if hostname is not None else ""
    draft = run.add("VirtualEnvironment", wanted, by=f"ct{ctid}")
    draft.head.append(f"Imported from {shown(config.file)}, container {shown(ctid)} of Proxmox.")
    draft.label("proxmox/id", ctid)
    job = Job(draft=draft, ledger=run.ledger)
    _identity(config, job, run)
    _life(config, job)
    compute.convert(config, job)
    storage.convert(config, job)
    network.convert(config, job, run)
    _features(config, job)
    raw.convert(config.raw, job)
    _account(config, job)


def _identity(config: Config, job: Job, run: Import) -> None:
    kind = config.get("ostype")
    here = kind or Setting(file=config.file, line=0, key="ostype")
    if run.template:
        job.draft.put("template", run.template, kind)
        if kind is not None:
            job.ignore(kind, f"template {run.template} was named instead")
    else:
        why = "stands in: its own files come by `vectl import --rootfs DIR|BACKUP --name NAME`, whose name belongs here"
        job.guess(here, "template", STAND_IN, why)
    if (hostname := config.get("hostname")) is not None and hostname.value:
        job.put(hostname, "hostname", hostname.value)
    text = visible("\n".join(config.description)).strip()
    if (written := config.get("description")) is not None:
        text = text or written.value
        job.mapped(written, "description")
    if text:
        job.draft.put("description", text[:_DESCRIPTION_MOST])
        if len(text) > _DESCRIPTION_MOST:
            here = Setting(file=config.file, line=1, key="#")
            job.changed(here, "description", f"only {_DESCRIPTION_MOST} characters of it")
    if (tags := config.get("tags")) is not None:
        _tags(job, tags)


def _tags(job: Job, setting: Setting) -> None:
    for tag in re.split(r"[;,\s]+", setting.value)[:64]:
        if _TAG.match(tag):
            job.draft.label(f"tag/{tag}", "true")
            job.mapped(setting, "metadata.labels")
        elif tag:
            job.drop(setting, f"{shown(tag)}: expected what a label may be")


def _life(config: Config, job: Job) -> None:
    onboot = config.get("onboot")
    why = "it is not started at boot; if it runs now and is to run: `running`"
    if onboot is None:
        job.guess(Setting(file=config.file, line=0, key="onboot"), "power", "stopped", why)
    else:
        job.put(onboot, "power", "running" if onboot.value == "1" else "stopped")
    if (protection := config.get("protection")) is not None and protection.value == "1":
        job.put(protection, "protect", True)
    if (startup := config.get("startup")) is not None:
        _startup(job, startup)
    if (unprivileged := config.get("unprivileged")) is not None and unprivileged.value == "1":
        job.ignore(unprivileged, "every VE has a user namespace of its own")
    elif unprivileged is not None:
        job.drop(unprivileged, "it was privileged; every VE has a user namespace of its own")


def _startup(job: Job, setting: Setting) -> None:
    """Proxmox starts the lowest number first, and those without one last."""
    said = options(setting.value, "order")
    try:
        if "order" in said:
            order = min(_ORDER_FIRST + whole(said["order"], most=1000), -1)
            why = f"counted from {_ORDER_FIRST} on, so that those without an order start last"
            job.change(setting, "boot.order", order, why)
        if "down" in said:
            job.put(setting, "boot.stopTimeout", f"{whole(said['down'], most=10**6)}s")
    except ValueError as err:
        job.drop(setting, str(err))
    if "up" in said:
        job.drop(setting, f"up={shown(said['up'])}: the next one starts as soon as this one runs")


def _features(config: Config, job: Job) -> None:
    setting = config.get("features")
    for key, value in {} if setting is None else options(setting.value, "").items():
        assert setting is not None, "it has keys"
        if key in ("nesting", "fuse"):
            is_on: Json = value == "1"
            if is_on:
                job.put(setting, f"features.{key}", True)
        elif value != "0":
            job.drop(setting, f"{shown(key)}={shown(value)}: {_FEATURES.get(key, 'there is no field for it')}")


def _account(config: Config, job: Job) -> None:
    """Account for the keys of which nothing was said so far, and for the sections."""
    for key, setting in config.settings.items():
        if job.has_said(setting):
            continue
        if key in _NEEDLESS or (key, setting.value) == _USUAL:
            job.ignore(setting, _NEEDLESS.get(key, "what nearly all hosts are"))
        elif key in _LOST:
            job.drop(setting, _LOST[key])
        elif key in _CONVERTED or key in ("features", "template", "protection", "hostname", "tags", "startup"):
            job.ignore(setting, "it says nothing that is not so anyway")
        else:
            job.drop(setting, "no such key is known")
    for section in config.sections:
        if section.key == PENDING:
            job.drop(section, "changes that wait for a restart are not in force, and not imported")
        else:
            job.drop(section, "a snapshot: its state is not imported, and neither is its data")
