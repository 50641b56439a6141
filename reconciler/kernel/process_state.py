"""What processes of a VE hold that may not be saved: namespaces, open files, sockets, watches.

The VE's root chooses how much of it there is: a look ends at a budget, and is then no look. Nothing is asked that one
of his file systems would have to answer: what is open is told by links and texts of /proc alone, and only sockets, and
nodes on file systems of the kernel, are looked at themselves.
Source: proc_pid_fdinfo(5); proc_pid_stat(5); proc_pid_mountinfo(5); namespaces(7).
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from reconciler.errors import KernelError
from reconciler.kernel import mount
from reconciler.kernel.mount import Mount
from reconciler.kernel.socket_diag import SocketNote
from reconciler.kernel.syscalls import translated
from reconciler.model.migration import OpenFile, Process, ProcessState

MAX_PROCESSES = 4096
MAX_FILES = 65_536
MAX_NAMESPACES = 64
_MAX_TEXT = 1 << 20
"""What is read at most of one file. Units: bytes."""

_STUCK_LOOKS = 3
_STUCK_PAUSE_S = 0.1

_OWN = "/proc/self"
_KINDS = ("user", "net", "uts", "ipc", "pid", "cgroup", "time", "time_for_children")
_WITH_NODES = frozenset({"devtmpfs", "tmpfs", "devpts"})
"""File systems on which a device may be opened inside; none of them asks anybody to answer for it."""

_WITHOUT_HANDLES = frozenset({"proc", "sysfs", "devpts", "mqueue", "binfmt_misc", "securityfs"})
_MEMORY = ("/memfd:", "/SYSV", "/dev/zero (deleted)", "/anon_hugepage")
_WATCH = re.compile(r"^(?:inotify|fanotify) .*?\bsdev:([0-9a-f]+) .*?\bfhandle-bytes:([0-9a-f]+)", re.MULTILINE)
_MOUNT_ID = re.compile(r"^mnt_id:\t(\d+)$", re.MULTILINE)
_NO_NOTE = SocketNote()
_INODE = re.compile(r"socket:\[(\d+)\]\Z")


class TooMuchError(KernelError):
    """There is more of it than is looked at."""


@dataclass(slots=True)
class Budget:
    """What may still be looked at."""

    files: int

    def take_file(self) -> None:
        """Count one more open file. Raises: TooMuchError."""
        self.files -= 1
        if self.files < 0:
            raise TooMuchError(f"look at open files: expected at most {MAX_FILES} in a VE")


@dataclass(slots=True)
class MountTables:
    """The mounts of all mount namespaces of a VE, by number and by file system."""

    by_id: dict[int, Mount] = field(default_factory=dict)
    by_device: dict[int, Mount] = field(default_factory=dict)
    _read: set[int] = field(default_factory=set)

    def add(self, pid: int) -> None:
        """Add the namespace of a process, unless it is known; a process that has ended has none.

        Raises: TooMuchError; KernelError.
        """
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace in self._read:
                return
            text = _read_text(f"/proc/{pid}/mountinfo")
        except OSError:
            return
        if len(self._read) == MAX_NAMESPACES:
            raise TooMuchError(f"look at mount namespaces: expected at most {MAX_NAMESPACES} in a VE")
        self._read.add(namespace)
        for found in mount.parse_mounts(text, path=f"/proc/{pid}/mountinfo"):
            self.by_id[found.mount_id] = found
            self.by_device.setdefault(_device_number(found.device), found)


def read_all(
    pids: Iterable[int], *, init: int, notes: Mapping[int, SocketNote]
) -> tuple[tuple[ProcessState, ...], tuple[Mount, ...]]:
    """Look at the processes of a VE, by their pids on the host; those that end meanwhile are left out.

    ``notes``: what is to be said of sockets, by inode. Gives their states, in the order of their pids inside, and the
    mounts of all their mount namespaces.
    Raises: TooMuchError; KernelError, if the init has ended.
    """
    known = sorted(pids)
    if len(known) > MAX_PROCESSES:
        raise TooMuchError(f"look at processes: expected at most {MAX_PROCESSES} in a VE, found {len(known)}")
    with translated("look at", f"process {init}"):
        look = _Look(
            init=init, home=_namespaces(init), notes=notes, budget=Budget(files=MAX_FILES), inside=frozenset(known)
        )
    for pid in known:
        look.tables.add(pid)
    found = [state for pid in known if (state := look.process(pid)) is not None]
    return tuple(sorted(found, key=lambda it: it.process.pid)), tuple(look.tables.by_id.values())


@dataclass(slots=True, kw_only=True)
class _Look:
    init: int
    home: Mapping[str, int]
    notes: Mapping[int, SocketNote]
    inside: frozenset[int]
    tables: MountTables = field(default_factory=MountTables)
    budget: Budget

    def process(self, pid: int) -> ProcessState | None:
        try:
            name, state, parent = _stat(pid)
            status = dict(_fields(_read_text(f"/proc/{pid}/status")))
            inside = int(status["NSpid"].split()[-1])
            if state == "Z":
                return None
            if state == "D":
                state = _is_stuck(pid)
            return ProcessState(
                process=Process(name=name, pid=inside),
                state=state,
                is_traced=status.get("TracerPid", "0") != "0",
                is_outsider=pid != self.init and parent not in self.inside,
                nested=frozenset(kind for kind, inode in _namespaces(pid).items() if self.home.get(kind) != inode),
                files=tuple(self._files(pid)),
            )
        except (OSError, KeyError, ValueError):  # it has ended
            return None

    def _files(self, pid: int) -> Iterator[OpenFile]:
        directory = f"/proc/{pid}/fd"
        for name in os.listdir(directory):
            self.budget.take_file()
            try:
                found = self._file(pid, name, os.readlink(f"{directory}/{name}"))
            except OSError:  # it was closed
                continue
            if found is not None:
                yield found

    def _file(self, pid: int, number: str, link: str) -> OpenFile | None:
        if link.startswith("socket:"):
            return self._socket(pid, number, link)
        if link.startswith("anon_inode:"):
            text = _read_text(f"/proc/{pid}/fdinfo/{number}") if "notify" in link else ""
            return OpenFile(name=printable(link), unresolved=tuple(self._unresolved(text)))
        if link.startswith("/") and not link.startswith(_MEMORY):
            return self._path(pid, number, link)
        return None

    def _socket(self, pid: int, number: str, link: str) -> OpenFile:
        with _pinned(pid, number) as pin:
            if os.readlink(f"{_OWN}/fd/{pin}") != link:
                raise OSError(errno.EBADF, "another file by now")
            protocol = os.getxattr(f"{_OWN}/fd/{pin}", "system.sockprotoname").rstrip(b"\0").decode(errors="replace")
        match = _INODE.match(link)
        note = self.notes.get(int(match[1]), _NO_NOTE) if match else _NO_NOTE
        return OpenFile(name=link, protocol=note.protocol or protocol, waits=note.waits)

    def _path(self, pid: int, number: str, link: str) -> OpenFile | None:
        found = self._mount_of(f"/proc/{pid}/fdinfo/{number}")
        if found is None:
            return OpenFile(name=printable(link), is_outside=True)
        if found.fstype not in _WITH_NODES:
            return None
        with _pinned(pid, number) as pin:
            if self._mount_of(f"{_OWN}/fdinfo/{pin}") is not found:
                raise OSError(errno.EBADF, "another file by now")
            node = os.fstat(pin)
        is_block = stat.S_ISBLK(node.st_mode)
        if not is_block and not stat.S_ISCHR(node.st_mode):
            return None
        device = os.major(node.st_rdev), os.minor(node.st_rdev)
        return OpenFile(name=printable(link), device=device, is_block=is_block)

    def _mount_of(self, information: str) -> Mount | None:
        match = _MOUNT_ID.search(_read_text(information))
        return self.tables.by_id.get(int(match[1])) if match else None

    def _unresolved(self, text: str) -> Iterator[str]:
        """Name the file systems of watches that lead back to no path: their handles cannot be opened."""
        places = set()
        for device, size in _WATCH.findall(text):
            found = self.tables.by_device.get(int(device, 16))
            if found is None:
                places.add("a file system that is not mounted any more")
            elif int(size, 16) == 0 or not _has_handles(found):
                places.add(f"{printable(found.target)} ({found.fstype})")
        yield from sorted(places)


@contextmanager
def _pinned(pid: int, number: str) -> Iterator[int]:
    """Open what an open file of a process is, without asking its file system, which stays the same from here on.

    The process may put another file in its place between two looks, of a file system that never answers.
    """
    pin = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
    try:
        yield pin
    finally:
        os.close(pin)


def _has_handles(found: Mount) -> bool:
    if found.fstype == "overlay":
        return "nfs_export=on" in found.super_options
    return found.fstype not in _WITHOUT_HANDLES


def _stat(pid: int) -> tuple[str, str, int]:
    """Give name, state and parent of a process."""
    before, _, after = _read_text(f"/proc/{pid}/stat").rpartition(")")
    words = after.split()
    return printable(before.partition("(")[2]), words[0], int(words[1])


def _is_stuck(pid: int) -> str:
    """Look a few times more at a process that cannot be stopped; everyone waits for a disk now and then."""
    for _ in range(_STUCK_LOOKS):
        time.sleep(_STUCK_PAUSE_S)
        state = _stat(pid)[1]
        if state != "D":
            return state
    return "D"


def _namespaces(pid: int) -> dict[str, int]:
    """Give the numbers of the namespaces of a process, of those kinds that this kernel has."""
    found = {}
    for kind in _KINDS:
        try:
            found[kind] = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
        except FileNotFoundError:
            if not os.path.exists(f"/proc/{pid}"):
                raise
    return found


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name, value.strip()


def _read_text(path: str) -> str:
    """Read a file of /proc.

    Raises: TooMuchError, if it is larger than what is read; OSError.
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_TEXT)
        if len(data) == _MAX_TEXT:
            raise TooMuchError(f"read {path}: expected less than {_MAX_TEXT} bytes")
    return os.fsdecode(data)


def device_text(device: int) -> str:
    """Give a device as mount tables name it."""
    return f"{os.major(device)}:{os.minor(device)}"


def _device_number(device: str) -> int:
    """Give the number of a device as the kernel itself has it, which is what fdinfo tells of watches."""
    major, _, minor = device.partition(":")
    return int(major) << 20 | int(minor)


def printable(text: str) -> str:
    """Replace what is no printable character: names are the VE's root's to choose, and end on terminals."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
