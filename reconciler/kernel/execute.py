"""Running a program inside a VE that has its namespaces already: what ``exec`` of an OCI runtime does, without one.

The order of the steps matters: each undoes the means of an earlier one, and from joining the mount namespace on no
file may be opened, nor module imported, on the trust that it is the host's.

Source: setns(2); pidfd_open(2); capabilities(7); seccomp(2); keyctl(2); ioctl_tty(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import struct
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from reconciler.errors import KernelError
from reconciler.kernel import capabilities, cgroup_file, child, pidfd, seccomp
from reconciler.kernel.child import Report
from reconciler.kernel.pidfd import NamespaceKind, ProcessId
from reconciler.kernel.syscalls import checked, libc, syscall, translated

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_PTMX_DEVICE = os.makedev(5, 2)

# Source: linux/sched.h, CLONE_NEW*.
_NAMESPACES: Mapping[NamespaceKind, int] = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """What to run, and as whom. Ids are the VE's.

    Shape: ``init`` names the VE's init; ``cgroups`` are directories to join; ``rlimits`` maps a name such as
    ``RLIMIT_NOFILE`` to its soft and hard limit; with ``tty`` a terminal of the VE becomes 0, 1 and 2.
    """

    init: ProcessId
    cgroups: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = capabilities.SYSTEM
    nesting: bool = False
    no_new_privileges: bool = False
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    umask: int = 0o022
    tty: bool = False


def run_inside(spec: ExecSpec, program: bytes, report: Report) -> NoReturn:
    """Become the program, in a forked child with one thread; ``program`` is the compiled seccomp profile.

    This process ends once it is inside; its child, in the PID namespace, reports its pid on the host first. So the
    program's parent is the nearest child subreaper above us.
    Raises: KernelError, in either process.
    """
    checked(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "hide", "from ptrace")  # till execve: the VE's root is hostile
    set_rlimits(spec.rlimits)  # raising them takes a capability over the host
    _join_cgroups(spec)
    _forbid_imports()
    _enter_namespaces(spec.init)
    with translated("fork", "into the PID namespace"):
        known, knower = os.pipe()
        pid = os.fork()
    if pid:
        report.send(Report.PID, str(pid))
        os.write(knower, b"1")
        os._exit(0)
    os.close(knower)
    if not os.read(known, 1):
        os._exit(1)  # nobody was told of us: nobody could kill us
    _become(spec, program, report)


def set_rlimits(rlimits: Mapping[str, tuple[int, int]]) -> None:
    """Set resource limits; where this process may not raise a hard limit, as far as it may.

    Raises: KernelError.
    Source: getrlimit(2).
    """
    for name, (soft, hard) in allowed_rlimits(rlimits).items():
        with translated("set", name):
            resource.setrlimit(_rlimit_number(name), (soft, hard))


def allowed_rlimits(rlimits: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Lower limits to what this process may set: without CAP_SYS_RESOURCE no hard limit can be raised.

    Units: as the kernel counts each; -1 is unlimited.
    """
    if capabilities.parse_status(cgroup_file.read("/proc/self/status"))["CapEff"] & capabilities.mask(
        ["CAP_SYS_RESOURCE"]
    ):
        return dict(rlimits)
    allowed = {}
    for name, (soft, hard) in rlimits.items():
        top = resource.getrlimit(_rlimit_number(name))[1]
        allowed[name] = (_lower(soft, top), _lower(hard, top))
    return allowed


def _lower(limit: int, top: int) -> int:
    if resource.RLIM_INFINITY in (limit, top):
        return top if limit == resource.RLIM_INFINITY else limit
    return min(limit, top)


def _rlimit_number(name: str) -> int:
    number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if not isinstance(number, int):
        raise KernelError(f"set {name}: no such resource limit", errno=errno.EINVAL)
    return number


def _join_cgroups(spec: ExecSpec) -> None:
    for directory in spec.cgroups:
        try:
            cgroup_file.write(f"{directory}/cgroup.procs", str(os.getpid()))
        except KernelError as err:
            # v2: init enabled controllers for its children and left; then only the leaves take processes.
            if err.errno != errno.EBUSY:
                raise
            cgroup_file.write(f"{_leaf_of_init(directory, spec.init.pid)}/cgroup.procs", str(os.getpid()))


def _leaf_of_init(directory: str, pid: int) -> str:
    """Find the directory that init itself is in, given one above it.

    Source: cgroups(7), "/proc/pid/cgroup".
    """
    lines = cgroup_file.read(f"/proc/{pid}/cgroup").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    above = path
    while above not in ("", "/"):
        if directory.endswith(above):
            return directory + path[len(above) :]
        above = os.path.dirname(above)
    raise KernelError(f"join {directory}: busy, and init is not below it", errno=errno.EBUSY)


def _forbid_imports() -> None:
    sys.meta_path.clear()  # an import would now read the VE's files


def _enter_namespaces(init: ProcessId) -> None:
    descriptor = pidfd.open_process(init)
    if descriptor is None:
        raise KernelError(f"enter namespaces of process {init.pid}: it has ended", errno=errno.ESRCH)
    flags = 0
    for kind, flag in _NAMESPACES.items():
        # One that we are in already cannot be entered; time differs only after a restore.
        if pidfd.namespace_inode(init.pid, kind) != pidfd.namespace_inode(os.getpid(), kind):
            flags |= flag
    checked(libc.setns(descriptor, flags), "enter", f"namespaces of process {init.pid}")


def _become(spec: ExecSpec, program: bytes, report: Report) -> NoReturn:
    child.close_descriptors(keep=report.fileno())
    os.umask(spec.umask)
    os.setsid()
    with translated("leave", "the host's session keyring"):
        _join_new_keyring()
    capabilities.limit_to(spec.capabilities)
    _set_ids(spec)
    if spec.tty:
        _open_terminal(report)
    with translated("enter", spec.cwd):
        os.chdir(spec.cwd)
    if spec.no_new_privileges:
        checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set", "no_new_privs")
    seccomp.load(program)
    child.execute(spec.args, spec.env)


def _join_new_keyring() -> None:
    number = _SYS_KEYCTL[os.uname().machine]
    syscall(number, "join", "new session keyring", _KEYCTL_JOIN_SESSION_KEYRING, None)


def _set_ids(spec: ExecSpec) -> None:
    with translated("become", f"user {spec.uid} and group {spec.gid}"):
        os.setgroups(spec.groups)
        os.setresgid(spec.gid, spec.gid, spec.gid)
        os.setresuid(spec.uid, spec.uid, spec.uid)


def _open_terminal(report: Report) -> None:
    """Open a new terminal in the VE, make it ours, and send its other end out.

    ``/dev/ptmx`` may be anything that the VE's root put there, so it is looked at; the terminal itself is opened
    through it and not by a name.
    """
    with translated("open", "a terminal"):
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(master)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX_DEVICE:
            raise KernelError("open a terminal: /dev/ptmx of this VE is not the terminal multiplexer")
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        terminal = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        for target in (0, 1, 2):
            os.dup2(terminal, target, inheritable=True)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        report.send(Report.TERMINAL, "", [master])
        os.close(master)
        if terminal > 2:
            os.close(terminal)
