"""The built-in template: a small Linux system of one static busybox, made in a moment and without a network.

It boots an init with syslog, cron and a web server, and ends in order when it is asked to, from inside or outside.
The network is configured from outside; there is no console and no login.
"""

from __future__ import annotations

import os
import shutil
import struct

from reconciler.errors import MissingToolError
from reconciler.kernel import busybox_files, command
from reconciler.kernel.syscalls import file_errors

_CANDIDATES = ("/usr/bin/busybox", "/bin/busybox", "/usr/sbin/busybox", "/sbin/busybox")
_LIST_SECONDS = 10.0

_ELF = struct.Struct("<4s2B26xQ14x2H")  # magic, class, byte order, offset of the program headers, their size, count
_ELF_MAGIC = b"\x7fELF"
_INTERPRETER = 3


def build_tree(directory: str, *, programs: str) -> None:
    """Fill an empty directory with the system's files; the same program gives the same files.

    ``programs``: vectl's own directory of them.

    Raises: MissingToolError, if there is no static busybox; KernelError; NoSpaceError.
    """
    program = find_static_busybox(programs)
    with file_errors("fill", directory):
        _make_directories(directory)
        for path, (mode, text) in busybox_files.FILES.items():
            _write(f"{directory}/{path}", text.encode(), mode)
        for path, target in busybox_files.LINKS.items():
            os.symlink(target, f"{directory}/{path}")
        _install(program, directory)


def find_static_busybox(programs: str) -> str:
    """Find a busybox that needs no library: the only kind that runs in an otherwise empty root directory.

    ``programs``: vectl's own directory of them, which comes before the system's.
    Raises: MissingToolError; KernelError.
    """
    found = shutil.which("busybox")
    paths = dict.fromkeys((f"{programs}/busybox", *([found] if found else []), *_CANDIDATES))
    present = [path for path in paths if os.path.isfile(path)]
    for path in present:
        if is_static(path):
            return path
    seen = f"{present[0]} needs libraries, which a VE has not" if present else "there is none"
    raise MissingToolError(f"find a static busybox: {seen}; install the Debian package busybox-static")


def is_static(path: str) -> bool:
    """Tell whether a program is a 64-bit ELF file that names no interpreter.

    Raises: KernelError.
    Source: elf(5).
    """
    with file_errors("read", path), open(path, "rb") as file:
        head = file.read(_ELF.size)
        if len(head) < _ELF.size:
            return False
        magic, width, _, offset, size, count = _ELF.unpack(head)
        if magic != _ELF_MAGIC or width != 2:
            return False
        file.seek(offset)
        headers = file.read(size * count)
    return all(headers[at : at + 4] != struct.pack("<I", _INTERPRETER) for at in range(0, len(headers), size))


def _make_directories(directory: str) -> None:
    for path, mode in busybox_files.DIRECTORIES.items():
        os.makedirs(f"{directory}/{path}", exist_ok=True)
        os.chmod(f"{directory}/{path}", mode)


def _install(program: str, directory: str) -> None:
    with open(program, "rb") as file:
        data = file.read()
    _write(f"{directory}/usr/bin/busybox", data, 0o755)
    # A program of its own, since the bit must not be on all the others.
    _write(f"{directory}/usr/bin/su", data, 0o4755)
    for line in sorted(command.run([program, "--list-full"], timeout_s=_LIST_SECONDS).split()):
        place, _, name = line.rpartition("/")
        if place:
            _link(directory, "usr/sbin" if place.endswith("sbin") else "usr/bin", name)


def _link(directory: str, place: str, name: str) -> None:
    path = f"{directory}/{place}/{name}"
    if not os.path.lexists(path):
        os.symlink("busybox" if place == "usr/bin" else "../bin/busybox", path)


def _write(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        os.fchmod(fd, mode)
