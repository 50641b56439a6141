"""Conversion: configurations of OpenVZ as VEs, samples as profiles, with the networks and templates they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.importing.draft import Job
from reconciler.importing.openvz import compute, disk, keys, life, memory, network
from reconciler.importing.openvz.config import Config, parse
from reconciler.importing.report import Outcome, Setting
from reconciler.importing.result import STAND_IN, Import
from reconciler.importing.suites import suite_of
from reconciler.importing.words import name_of, shown

GLOBAL = "vz.conf"
_CTID = re.compile(r"(?:.*/)?\{?([0-9]{1,10}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\}?\.conf\Z")
_SAMPLE = re.compile(r"(?:.*/)?ve-(.{1,200})\.conf-sample\Z")
_SCRIPT = re.compile(r"(?:.*/)?(.+)\.(premount|mount|start|stop|umount|postumount|migrate|mount\.post)\Z")
_UUID_LENGTH = 36
_ANY_ID = "\0"
"""Stands for the container in values of the global configuration; no file says it."""
_OF_A_VE = frozenset({"IP_ADDRESS", "NETIF", "HOSTNAME", "VE_PRIVATE", "VE_ROOT", "OSTEMPLATE", "ORIGIN_SAMPLE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is imported. ``scripts``: names of files beside the configurations that OpenVZ would run."""

    files: Mapping[str, bytes]
    global_file: str = ""
    global_data: bytes = b""
    scripts: Sequence[str] = ()


def convert(given: Given, run: Import) -> None:
    """Draft the manifests of configurations; everything that they say is accounted for."""
    below = _global(given, run)
    for file, data, ctid in _configurations(given, run):
        settings = parse(file, data, run.ledger, veid=ctid)
        _container(Config(file=file, settings=settings, below=_with_id(below, ctid)), ctid, run)
    for file, data in sorted(given.files.items()):
        if match := _SAMPLE.match(file):
            _sample(Config(file=file, settings=parse(file, data, run.ledger)), match[1], run)
    _level_io(run)
    for script in given.scripts:
        if _SCRIPT.match(script):
            why = "a script that OpenVZ runs, which is not run, and not read: declare below mounts what it mounts"
            run.ledger.note(Setting(file=script, line=0, key="script"), Outcome.DROPPED, why)


def _global(given: Given, run: Import) -> Mapping[str, Setting]:
    """Read the global configuration; what is not about containers is accounted for here."""
    if not given.global_file:
        return {}
    settings = parse(given.global_file, given.global_data, run.ledger, veid=_ANY_ID)
    below: dict[str, Setting] = {}
    for key, setting in settings.items():
        if key in keys.HOST:
            run.ledger.note(setting, Outcome.IGNORED, keys.HOST_WHY)
        elif key in keys.CONVERTED or key in keys.LOST or key in keys.NEEDLESS:
            below[key] = setting
        else:
            run.ledger.note(setting, Outcome.DROPPED, "no such key is known")
    return below


def _with_id(below: Mapping[str, Setting], ctid: str) -> Mapping[str, Setting]:
    return {key: replace(setting, value=setting.value.replace(_ANY_ID, ctid)) for key, setting in below.items()}


def _configurations(given: Given, run: Import) -> Iterator[tuple[str, bytes, str]]:
    """Give the configurations of containers; what the other files are is told."""
    for file, data in sorted(given.files.items()):
        match = _CTID.match(file)
        if _SAMPLE.match(file):
            continue
        if match is not None and match[1] != "0":
            yield file, data, match[1]
        elif match is None and file.endswith(".conf") and not file.endswith(GLOBAL):
            yield file, data, name_of(file.rpartition("/")[2].removesuffix(".conf"), otherwise="ve")
        else:
            why = "the host's own, and no container's" if match else "expected CTID.conf or ve-NAME.conf-sample"
            run.ledger.note(Setting(file=file, line=0, key=""), Outcome.IGNORED if match else Outcome.DROPPED, why)


def _container(config: Config, ctid: str, run: Import) -> None:
    draft = run.add("VirtualEnvironment", _name(config, ctid), by=ctid)
    draft.head.append(f"Imported from {shown(config.file)}, container {shown(ctid)} of OpenVZ.")
    draft.label("openvz/ctid", ctid)
    job = Job(draft=draft, ledger=run.ledger)
    is_vz7 = len(ctid) == _UUID_LENGTH or "VE_TYPE" in config.settings
    _template(config, job, run)
    _facets(config, job, run, is_vz7=is_vz7)
    _account(config, job)


def _facets(config: Config, job: Job, run: Import, *, is_vz7: bool) -> None:
    life.convert(config, job)
    compute.convert(config, job)
    memory.convert(config, job, is_vz7=is_vz7)
    disk.convert(config, job)
    network.convert(config, job, run)


def _sample(config: Config, name: str, run: Import) -> None:
    """Draft a profile: what a sample says, without what is one container's own."""
    draft = run.add("Profile", name, by=name)
    draft.head.append(f"Imported from {shown(config.file)}, a sample of OpenVZ.")
    job = Job(draft=draft, ledger=run.ledger)
    own = {key: setting for key, setting in config.settings.items() if key in _OF_A_VE}
    for setting in own.values():
        job.drop(setting, "it is one container's own, and of no profile")
    shared = {key: setting for key, setting in config.settings.items() if key not in _OF_A_VE}
    said = Config(file=config.file, settings=shared)
    _facets(said, job, run, is_vz7=False)
    _account(said, job)


def _name(config: Config, ctid: str) -> str:
    for key in ("NAME", "HOSTNAME"):
        setting = config.settings.get(key)
        if setting is not None and setting.value.strip():
            text = setting.value.strip()
            return name_of(text if key == "NAME" else text.split(".")[0], otherwise=f"ct{ctid}")
    return f"ct{ctid}"


def _template(config: Config, job: Job, run: Import) -> None:
    setting = config.settings.get("OSTEMPLATE")
    here = setting or Setting(file=config.file, line=0, key="OSTEMPLATE")
    if run.template:
        job.draft.put("template", run.template, setting)
        if setting is not None:
            job.ignore(setting, f"template {run.template} was named instead")
        return
    suite = suite_of(setting.value) if setting is not None else None
    if suite is not None and setting is not None:
        job.draft.put("template", run.suite(suite, setting.value, setting), setting)
        why = "the distribution, built anew; its own files come by `vectl import --rootfs`"
        job.draft.remark(("template",), f"{setting.key}: {why}")
        job.changed(setting, "template", why)
        return
    why = "stands in: its own files come by `vectl import --rootfs DIR --name NAME`, whose name belongs here"
    job.guess(here, "template", STAND_IN, why)


def _account(config: Config, job: Job) -> None:
    """Account for the keys of which nothing was said so far."""
    for key, setting in config.all().items():
        if job.has_said(setting):
            continue
        if key in keys.CONVERTED:
            job.ignore(setting, "it says nothing that is not so anyway")
        elif key in keys.NEEDLESS:
            job.ignore(setting, keys.NEEDLESS[key])
        elif key in keys.LOST:
            job.drop(setting, keys.LOST[key])
        elif key in keys.HOST:
            job.ignore(setting, keys.HOST_WHY)
        else:
            job.drop(setting, "no such key is known")


def _level_io(run: Import) -> None:
    """Give those without a priority of I/O the weight of OpenVZ's default, where others have one."""
    ves = [draft for (kind, _), draft in run.drafts.items() if kind == "VirtualEnvironment"]
    if any(draft.get("io.weight") is not None for draft in ves):
        for draft in ves:
            if draft.get("io.weight") is None:
                draft.put(
                    "io.weight", compute.DEFAULT_IO_WEIGHT, comment="a guess: OpenVZ's default, beside the others'"
                )
                here = Setting(file=draft.file, line=0, key="IOPRIO")
                why = "OpenVZ's default priority, beside others that have one"
                run.ledger.note(here, Outcome.GUESSED, why, of=draft.title, path="io.weight")
