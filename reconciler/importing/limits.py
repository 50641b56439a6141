"""Limits of processes and parameters of the kernel, which LXC and Incus write alike."""

from __future__ import annotations

from reconciler.importing.draft import Job
from reconciler.importing.report import Setting
from reconciler.importing.words import count, shown, size, whole
from reconciler.manifests.kinds.compute import Rlimits
from reconciler.model.counters import PAGE
from reconciler.model.facts import Json
from reconciler.model.settings import SYSCTLS

_RLIMITS = {info.alias or name for name, info in Rlimits.model_fields.items()}
_SIZED = frozenset({"as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"})
_IPC = frozenset({"shmmax", "shmmni", "msgmax", "msgmnb", "msgmni"})


def rlimit(job: Job, setting: Setting, name: str) -> None:
    """Set a resource limit of ``soft:hard``. Raises: ValueError."""
    if name not in _RLIMITS:
        raise ValueError(f"{shown(name)}: no such limit is known")
    soft, sign, hard = setting.value.partition(":")
    word = (hard if sign else soft).strip()
    value: Json = "unlimited"
    if word.lower() not in ("unlimited", "infinity"):
        number = whole(word)
        value = size(number) if name in _SIZED else count(number)
    if sign and soft.strip() != hard.strip():
        job.change(setting, f"rlimits.{name}", value, "the hard limit, soft and hard alike")
    else:
        job.put(setting, f"rlimits.{name}", value)


def sysctl(job: Job, setting: Setting, name: str) -> None:
    """Set a parameter of the kernel, if it is one that a VE may have. Raises: ValueError."""
    _, _, last = name.rpartition(".")
    if name == "kernel.shmall":
        job.put(setting, "ipc.shmall", size(whole(setting.value) * PAGE))
    elif name == f"kernel.{last}" and last in _IPC:
        value: Json = count(whole(setting.value)) if last.endswith("ni") else size(whole(setting.value))
        job.put(setting, f"ipc.{last}", value)
    elif name in SYSCTLS:
        sysctls = job.draft.spec.setdefault("sysctls", {})
        assert isinstance(sysctls, dict), "nothing else is put there"
        sysctls[name] = setting.value
        job.draft.origins["sysctls", name] = setting
        job.mapped(setting, "sysctls")
    else:
        job.drop(setting, "not one of the parameters that a manifest may set")
