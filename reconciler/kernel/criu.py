"""CRIU: what it is told to dump and to restore the processes of a VE, and what it says when it cannot.

Nothing is run here. A dump or a restore that is killed half-way leaves things behind; `dumping` and `restoring` see
to those.

Source: criu(8); criu.org, "Action scripts", "CGroups", "External bind mounts".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.kernel.syscalls import translated

GHOST_LIMIT = 64 << 20
"""The largest file without a name that goes into an image whole. Units: bytes."""

IMAGES_MODE = 0o711
"""Of a directory of images. A restore opens some of them as the VE's root: what keeps others out is the way to it."""

ASK, ANSWER = "ask", "answer"
"""FIFOs in the work directory, by which a hook asks whoever runs criu, and is answered."""

_COMMON = ("--no-default-config", "-v4", "--tcp-established", "--file-locks", "--link-remap")
_LOG_BYTES = 1 << 20  # the end of it, where the errors are
_ERROR = re.compile(r"^(?:\([\d.]+\)\s+)?(?:(?P<vpid>\d+): )?Error \([^)]*\): (?P<text>.*)$")
_DUMPING = re.compile(r"Dumping task \(pid: (?P<pid>\d+) comm: (?P<comm>.*)\)$")
_NUMBER = re.compile(r"\b\d+\b")
# What is said on the way out of any failure, or is none: limits that a host's root may not raise.
_NO_REASON = re.compile(
    r"Can't setup RLIMIT_|cgroupd: |FAILED\.?$|exited with |Aborting |Dump (?:files|core) .* failed|"
    r"Detected that criu|Unable to (?:suspend|resume)|recv req error|Pre dumping"
)

DUMPED = "post-dump"
"""All is written, and all stands still: what criu is told here decides whether it kills or lets go on."""
HELD = "post-setup-namespaces"
"""The namespaces and mounts are there, and an init in its cgroups; nothing that has sockets is."""
SOCKETS = "network-unlock"
"""The sockets are there, cut off; whatever criu is told here, it goes on, and they begin to speak. A dump that is given
up comes by here as well."""
RESTORED = "pre-resume"
"""All is made and stands still; the next thing is that it runs."""

# criu executes a file, without arguments, in its work directory, where the FIFOs are. What a VE decides about comes in
# no variable of it.
HOOK = f"""#!/bin/sh
case "$CRTOOLS_SCRIPT_ACTION" in {DUMPED}|{HELD}|{SOCKETS}|{RESTORED}) ;; *) exit 0 ;; esac
echo "$CRTOOLS_SCRIPT_ACTION ${{CRTOOLS_INIT_PID:-0}}" >{ASK} && read -r status <{ANSWER} && exit "$status"
kill -KILL "$PPID"
exit 1
"""
"""What runs at the actions of a dump or a restore, and asks at four of them.

Nobody to hear it is the end of criu: it must neither give up a VE that is held nor let one run that is closed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpSpec:
    """What to write to a directory of images.

    Shape: ``freezer`` is exactly the cgroup that stands still already; ``externals`` names the mounts that are the
    host's, by where they are in the VE; ``hook`` is a file with the text `HOOK` that may be executed.
    """

    program: str
    pid: int
    images: str
    work: str
    freezer: str
    externals: Mapping[str, str]
    hook: str
    leave_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSpec:
    """What to make of a directory of images.

    Shape: ``externals`` gives a path of the host for each name that the dump gave to a mount; ``cgroup`` is the one
    that the topmost process is to be in, wherever it was.
    """

    program: str
    images: str
    work: str
    root: str
    externals: Mapping[str, str]
    hook: str
    cgroup: str


def dump_argv(spec: DumpSpec) -> tuple[str, ...]:
    """Build the command that dumps a process and all below it, and kills them unless they are left running."""
    return (
        *_command(spec.program, "dump", images=spec.images, work=spec.work, hook=spec.hook),
        *("--tree", str(spec.pid), "--freeze-cgroup", spec.freezer),
        *_externals(spec.externals),
        *(("--leave-running",) if spec.leave_running else ()),
    )


def restore_argv(spec: RestoreSpec) -> tuple[str, ...]:
    """Build the command that restores the processes and ends, without waiting for them."""
    return (
        *_command(spec.program, "restore", images=spec.images, work=spec.work, hook=spec.hook),
        *("--restore-detached", "--root", spec.root, "--cgroup-root", spec.cgroup),
        *_externals(spec.externals),
    )


def _command(program: str, what: str, *, images: str, work: str, hook: str) -> tuple[str, ...]:
    return (
        *(program, what, "--images-dir", images, "--work-dir", work, "--log-file", log_name(what)),
        *_COMMON,
        *("--ghost-limit", str(GHOST_LIMIT), "--empty-ns", "net", "--network-lock", "nftables"),
        # With "ignore" the VE would lose its cgroup namespace.
        "--manage-cgroups=soft",
        *("--action-script", hook),
    )


def _externals(named: Mapping[str, str]) -> Iterator[str]:
    for one, other in sorted(named.items()):
        yield from ("--external", f"mnt[{one}]:{other}")


def log_name(what: str) -> str:
    """Name the file in the work directory in which criu says what it does in a dump or a restore."""
    return f"{what}.log"


def read_error(log: str, names: Mapping[str, str]) -> str | None:
    """Find out of a log why a dump or a restore failed; None if it does not say.

    Raises: KernelError, if the log is there and cannot be read.
    """
    with translated("read", log):
        try:
            with open(log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
                return parse_error(file.read().decode(errors="replace"), names)
        except FileNotFoundError:
            return None


def parse_error(text: str, names: Mapping[str, str]) -> str | None:
    """Find the first error in the text of a log, with the process that it is about.

    Shape: ``names`` of the processes by their pids, for a dump those on the host, for a restore those inside.
    """
    process = ""
    for line in text.splitlines():
        if found := _DUMPING.search(line):
            process = _named(found["pid"], found["comm"])
            continue
        error = _ERROR.match(line)
        if error is not None and not _NO_REASON.search(error["text"]):
            return f"{_process_of(error, names) or process}{error['text'].strip()}"
    return None


def _process_of(error: re.Match[str], names: Mapping[str, str]) -> str:
    """Name the process that speaks, or the first one that is spoken of."""
    pids = [error["vpid"]] if error["vpid"] else _NUMBER.findall(error["text"])
    return next((_named(pid, names[pid]) for pid in pids if pid in names), "")


def _named(pid: str, comm: str) -> str:
    return f"process {pid} ({comm}): "
