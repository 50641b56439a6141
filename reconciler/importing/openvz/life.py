"""Life: who a VE is, when it starts and stops, its devices and what it may do."""

from __future__ import annotations

import re

from reconciler.importing.draft import Job
from reconciler.importing.openvz.config import Config
from reconciler.importing.openvz.values import truth
from reconciler.importing.report import Setting
from reconciler.importing.words import shown, whole
from reconciler.model.facts import Json

KEYS = frozenset({"HOSTNAME", "DESCRIPTION", "NAME", "UUID", "ORIGIN_SAMPLE", "ONBOOT", "BOOTORDER", "STOP_TIMEOUT"})
KEYS |= {"DISABLED", "DEVICES", "DEVNODES", "FEATURES", "CAPABILITY"}

_ORDER_MOST = 1000
_DESCRIPTION_MOST = 1024
_STOP_DEFAULT_S = 120
_WORDS_MAX = 256
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")

_NODES = {"c:10:200": "/dev/net/tun", "c:10:229": "/dev/fuse", "c:108:0": "/dev/ppp"}
"""Devices that have the same number on every host. Source: Linux Documentation/admin-guide/devices.txt."""

_FEATURES = {
    "nfs": "a VE cannot mount NFS: mount it on the host, and declare it below mounts",
    "nfsd": "a VE cannot serve NFS from the kernel: use a server that runs as a program",
    "time": "a VE cannot set the host's clock",
}
_POSSIBLE = frozenset({"sysfs", "bridge", "sit", "ipip", "ipgre"})
_PPP = "/dev/ppp"
_FUSE = "/dev/fuse"


def convert(config: Config, job: Job) -> None:
    """Set what says who a VE is, how it starts, and what it may do."""
    _identity(config, job)
    _power(config, job)
    for key, take in (("DEVNODES", _node), ("DEVICES", _device), ("FEATURES", _feature), ("CAPABILITY", _capability)):
        setting = config.get(key)
        for word in () if setting is None else re.split(r"[\s,]+", setting.value)[:_WORDS_MAX]:
            if word and setting is not None:
                take(job, setting, word)


def _identity(config: Config, job: Job) -> None:
    if (hostname := config.settings.get("HOSTNAME")) is not None and hostname.value.strip():
        job.put(hostname, "hostname", hostname.value.strip().rstrip("."))
    if (text := config.get("DESCRIPTION")) is not None and text.value.strip():
        if len(text.value) > _DESCRIPTION_MOST:
            job.change(text, "description", text.value[:_DESCRIPTION_MOST], f"only {_DESCRIPTION_MOST} characters")
        else:
            job.put(text, "description", text.value)
    for key, label in (("UUID", "openvz/uuid"), ("ORIGIN_SAMPLE", "openvz/sample")):
        setting = config.settings.get(key)
        if setting is None or not setting.value:
            continue
        if _LABEL.match(setting.value.strip()):
            job.draft.label(label, setting.value.strip())
            job.mapped(setting, "metadata.labels")
        else:
            job.drop(setting, "expected what a label may be")
    if (name := config.settings.get("NAME")) is not None:
        if name.value == job.draft.name:
            job.mapped(name, "metadata.name")
        elif name.value:
            job.changed(name, "metadata.name", "a name has lower-case letters, digits and '-', and is one VE's alone")


def _power(config: Config, job: Job) -> None:
    onboot, disabled = config.get("ONBOOT"), config.get("DISABLED")
    if disabled is not None and truth(disabled.value):
        job.change(disabled, "power", "stopped", "it was not to be started; nothing refuses that now but this line")
        if onboot is not None:
            job.ignore(onboot, "it is disabled")
    elif onboot is not None and onboot.value.strip().lower() in ("yes", "on", "no", "off"):
        job.put(onboot, "power", "running" if truth(onboot.value) else "stopped")
    elif job.draft.kind == "VirtualEnvironment":
        here = onboot or Setting(file=config.file, line=0, key="ONBOOT")
        why = "it is as it was when the host went down, which no file says; `running`, if it is to run"
        job.guess(here, "power", "stopped", why)
    for key, take in (("BOOTORDER", _order), ("STOP_TIMEOUT", _stop)):
        setting = config.get(key)
        if setting is None or not setting.value.strip():
            continue
        try:
            take(job, setting)
        except ValueError as err:
            job.drop(setting, str(err))


def _order(job: Job, setting: Setting) -> None:
    """OpenVZ starts the highest number first, and those without one last."""
    number = whole(setting.value.strip())
    if number > _ORDER_MOST:
        job.change(setting, "boot.order", -_ORDER_MOST, f"lower ones start earlier, and the lowest is {-_ORDER_MOST}")
    else:
        job.put(setting, "boot.order", -number)


def _stop(job: Job, setting: Setting) -> None:
    job.put(setting, "boot.stopTimeout", f"{whole(setting.value.strip()) or _STOP_DEFAULT_S}s")


def _node(job: Job, setting: Setting, word: str) -> None:
    name, _, access = word.rpartition(":")
    _put_device(job, setting, f"/dev/{name}", access)


def _device(job: Job, setting: Setting, word: str) -> None:
    number, _, access = word.rpartition(":")
    if access == "none":
        job.ignore(setting, f"{shown(word)}: a VE has no device that is not declared")
    elif number in _NODES:
        _put_device(job, setting, _NODES[number], access)
    else:
        job.drop(setting, f"{shown(word)}: a device is declared by its path on the host, not by its number")


def _put_device(job: Job, setting: Setting, path: str, access: str) -> None:
    if access == "none":
        job.ignore(setting, f"{shown(path)}: a VE has no device that is not declared")
    elif path == _FUSE:
        job.put(setting, "features.fuse", True)
    elif not (wanted := "".join(letter for letter in "rw" if letter in access)):
        job.drop(setting, f"{shown(path)}: expected r, w or both")
    else:
        entry: dict[str, Json] = {"path": path, "access": wanted}
        job.draft.append("devices", entry, setting)
        if "q" in access:
            job.changed(setting, "devices", f"{shown(path)}: a VE does not manage the quotas of a device")
        else:
            job.mapped(setting, "devices")


def _feature(job: Job, setting: Setting, word: str) -> None:
    name, _, state = word.partition(":")
    if state == "off":
        job.ignore(setting, f"{shown(name)} was off")
    elif name == "ppp":
        paths = [entry.get("path") for entry in job.draft.entries("devices")]
        if _PPP not in paths:
            job.draft.append("devices", {"path": _PPP, "access": "rw"}, setting)
        job.mapped(setting, "devices")
    elif name in _POSSIBLE:
        job.ignore(setting, f"{shown(name)}: a VE may do so by itself, with modules that the host has loaded")
    else:
        job.drop(setting, _FEATURES.get(name, f"{shown(name)}: no such feature is known"))


def _capability(job: Job, setting: Setting, word: str) -> None:
    name, _, state = word.partition(":")
    if state == "off":
        job.drop(setting, f"{shown(name)}: capabilities cannot be taken from a VE one by one")
    else:
        job.drop(setting, f"{shown(name)}: root of a VE has the capabilities of its own user namespace, and no others")
