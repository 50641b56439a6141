"""What the keeper writes down of each init, for whoever looks: ``init.json`` and ``exit.json`` of a VE.

Neither is flushed to disk: they speak of this boot only, and name it.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from reconciler.errors import KeeperError, StateError
from reconciler.host.keeper.codec import from_json, to_json
from reconciler.kernel.cgroup_file import read, read_optional
from reconciler.kernel.pidfd import Exit, ProcessId
from reconciler.kernel.syscalls import file_errors

FORMAT = 1

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

R = TypeVar("R", "InitRecord", "ExitRecord")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitRecord:
    """The init of a VE, written when it was made; it may have ended since."""

    format: int
    boot_id: str
    init: ProcessId


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How an init ended. It is about the present one only if ``init`` is equal.

    Units: ``at_s`` in seconds since boot, time asleep included.
    """

    format: int
    boot_id: str
    init: ProcessId
    exit: Exit
    at_s: float


@cache
def boot_id() -> str:
    """Read the number that the kernel drew at boot.

    Raises: KernelError.
    """
    return read(_BOOT_ID).strip()


def directory(run_dir: str, uid: str) -> str:
    """Give the directory of a VE's records.

    Raises: KeeperError, if the uid could lead elsewhere.
    """
    if not _UID.match(uid):
        raise KeeperError(f"use uid {uid!r:.100}: expected letters, digits, '-', '_' and '.'")
    return f"{run_dir}/ves/{uid}"


def write_init(run_dir: str, uid: str, init: ProcessId) -> None:
    """Write who the init of a VE is.

    Raises: KernelError, NoSpaceError.
    """
    _write(f"{directory(run_dir, uid)}/init.json", InitRecord(format=FORMAT, boot_id=boot_id(), init=init))


def write_exit(run_dir: str, uid: str, init: ProcessId, exit_: Exit) -> None:
    """Write how the init of a VE ended.

    Raises: KernelError, NoSpaceError.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    record = ExitRecord(format=FORMAT, boot_id=boot_id(), init=init, exit=exit_, at_s=now)
    _write(f"{directory(run_dir, uid)}/exit.json", record)


def read_init(run_dir: str, uid: str) -> InitRecord | None:
    """Read who the newest init of a VE is or was; None if there was none in this boot.

    Raises: KernelError; StateError, if the file is damaged or of another format.
    """
    return _read(InitRecord, f"{directory(run_dir, uid)}/init.json")


def read_exit(run_dir: str, uid: str) -> ExitRecord | None:
    """Read the newest end of an init of a VE that was seen; None if none was in this boot.

    Raises: KernelError; StateError, if the file is damaged or of another format.
    """
    return _read(ExitRecord, f"{directory(run_dir, uid)}/exit.json")


def _write(path: str, record: InitRecord | ExitRecord) -> None:
    temporary = f"{path}.tmp"  # one writer: the keeper
    with file_errors("write", path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(to_json(record)))
        os.rename(temporary, path)


def parse_init(data: bytes, *, where: str) -> InitRecord | None:
    """Parse an ``init.json``; None if it speaks of another boot.

    Raises: StateError.
    """
    return _parse(InitRecord, data, where)


def parse_exit(data: bytes, *, where: str) -> ExitRecord | None:
    """Parse an ``exit.json``; None if it speaks of another boot.

    Raises: StateError.
    """
    return _parse(ExitRecord, data, where)


def _read(kind: type[R], path: str) -> R | None:
    text = read_optional(path)
    return None if text is None else _parse(kind, text.encode(), path)


def _parse(kind: type[R], data: bytes, path: str) -> R | None:
    try:
        record = from_json(kind, json.loads(data))
    except (ValueError, KeeperError) as err:
        raise StateError(f"read {path}: {err}; remove it, and the last end of this VE is of unknown cause") from err
    if record.format != FORMAT:
        raise StateError(f"read {path}: expected format {FORMAT}, got {record.format}")
    return record if record.boot_id == boot_id() else None
