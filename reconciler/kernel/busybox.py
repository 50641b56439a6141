"""The built-in template: a small Linux system of one static busybox, made in a moment and without a network.

It boots an init with syslog, cron and a web server, and ends in order when it is asked to, from inside or outside.
The network is configured from outside; there is no console and no login.
"""

from __future__ import annotations

import os
import shutil
import struct

from reconciler.errors import MissingToolError
from reconciler.kernel import command
from reconciler.kernel.syscalls import file_errors

_CANDIDATES = ("/usr/bin/busybox", "/bin/busybox", "/usr/sbin/busybox", "/sbin/busybox")
_LIST_SECONDS = 10.0

_ELF = struct.Struct("<4s2B26xQ14x2H")  # magic, class, byte order, offset of the program headers, their size, count
_ELF_MAGIC = b"\x7fELF"
_INTERPRETER = 3

# What the runtime mounts over: proc, sys, dev, run, tmp. /bin, /sbin are links, as Debian has them.
_DIRECTORIES = {
    "": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "etc/init.d": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/lib": 0o755,
    "usr/local": 0o755,
    "usr/local/bin": 0o755,
    "usr/local/sbin": 0o755,
    "usr/sbin": 0o755,
    "usr/share": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/spool/cron": 0o755,
    "var/spool/cron/crontabs": 0o700,
    "var/tmp": 0o1777,
    "www": 0o755,
}

_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "var/run": "/run", "etc/mtab": "/proc/self/mounts"}

_INITTAB = """\
::sysinit:/etc/init.d/rcS
::respawn:/sbin/syslogd -n -O /var/log/messages
::respawn:/usr/sbin/crond -f
::respawn:/usr/sbin/httpd -f -p 80 -u www-data -h /www
::ctrlaltdel:/sbin/poweroff
"""

_RCS = """\
#!/bin/sh
# Runs once at boot, before the services of /etc/inittab: each /etc/init.d/S* with the word "start".
for script in /etc/init.d/S*; do
    [ -x "$script" ] && "$script" start
done
"""

# Nothing is flushed: sync(2) would wait for the disks of the whole machine, which goes on running.
_SHUTDOWN = """\
#!/bin/sh
# Ends the system in order: no service is started again, every process is asked to end and waited for, at most five
# seconds, then the kernel is told. With any option it is busybox's own command; "busybox poweroff" is it as well, and
# takes two seconds of sleep.
command=${0##*/}
[ $# -gt 0 ] && exec busybox "$command" "$@"

others_run() {
    for stat in /proc/[0-9]*/stat; do
        read -r line 2>/dev/null <"$stat" || continue
        pid=${line%% *}
        rest=${line##*) }
        [ "$pid" = 1 ] || [ "$pid" = $$ ] || [ "${rest%% *}" = Z ] || return 0
    done
    return 1
}

trap '' HUP INT TERM
kill -s TSTP 1      # init starts nothing again
kill -s TERM -1
kill -s HUP -1      # an interactive shell heeds only this
kill -s CONT -1
left=250
while others_run && [ $left -gt 0 ]; do
    sleep 0.02
    left=$((left - 1))
done
exec busybox "$command" -n -f
"""

_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
"""

_GROUPS = """\
root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
shadow:x:42:
users:x:100:
nogroup:x:65534:
"""

_NO_LOGINS = """\
root:*:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
www-data:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
"""

# In an interactive shell: it would take its own applets of these names, and then su has no set-user-id bit.
_PROFILE = """\
alias halt=/sbin/halt poweroff=/sbin/poweroff reboot=/sbin/reboot su=/usr/bin/su
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PS1='\\u@\\h:\\w\\$ '
umask 022
"""

_FILES = {
    "etc/group": (0o644, _GROUPS),
    "etc/hostname": (0o644, "localhost\n"),
    "etc/hosts": (0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    "etc/init.d/rcS": (0o755, _RCS),
    "etc/inittab": (0o644, _INITTAB),
    "etc/os-release": (0o644, 'ID=busybox\nNAME="BusyBox"\nPRETTY_NAME="BusyBox"\n'),
    "etc/passwd": (0o644, _USERS),
    "etc/profile": (0o644, _PROFILE),
    "etc/resolv.conf": (0o644, ""),
    "etc/shadow": (0o600, _NO_LOGINS),
    "etc/shells": (0o644, "/bin/sh\n"),
    "usr/sbin/halt": (0o755, _SHUTDOWN),
    "usr/sbin/poweroff": (0o755, _SHUTDOWN),
    "usr/sbin/reboot": (0o755, _SHUTDOWN),
    "var/spool/cron/crontabs/root": (0o600, "17 4 * * * mv -f /var/log/messages /var/log/messages.0\n"),
    "www/index.html": (0o644, "<!doctype html>\n<title>It works</title>\n<p>It works.\n"),
}


def build_tree(directory: str, *, programs: str) -> None:
    """Fill an empty directory with the system's files; the same program gives the same files.

    ``programs``: vectl's own directory of them.

    Raises: MissingToolError, if there is no static busybox; KernelError; NoSpaceError.
    """
    program = find_static_busybox(programs)
    with file_errors("fill", directory):
        _make_directories(directory)
        for path, (mode, text) in _FILES.items():
            _write(f"{directory}/{path}", text.encode(), mode)
        for path, target in _LINKS.items():
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
    for path, mode in _DIRECTORIES.items():
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
