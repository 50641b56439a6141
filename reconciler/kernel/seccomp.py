"""System call filters: one profile as data, used by the OCI runtime for init and by ourselves for exec.

The profile denies; all else is allowed, as a whole operating system runs inside. It is the second wall: the first is
the user namespace. What it adds is kernel surface that no namespace bounds, or that has had holes.

Arguments of 32 bits are compared under a mask: the kernel ignores the upper half of the register, and an equality of
64 bits could be evaded by setting a bit there.

On 32-bit x86 the C library opens sockets through socketcall(2), whose arguments a filter cannot see. libseccomp then
denies every socket(2) that comes this way, rather than none: programs of that kind get no sockets.

Source: seccomp(2); seccomp_rule_add(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from reconciler.errors import KernelError, MissingToolError
from reconciler.kernel.syscalls import syscall, translated

_INT = 0xFFFFFFFF
_CLONE_NEWUSER = 0x10000000
_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C


class Compare(Enum):
    """How an argument is compared: libseccomp's number and OCI's name."""

    GREATER = (6, "SCMP_CMP_GT")
    MASKED_EQUAL = (7, "SCMP_CMP_MASKED_EQ")


@dataclass(frozen=True, slots=True)
class Argument:
    """A condition on one argument. For MASKED_EQUAL ``value`` is the mask and ``value_two`` what must remain."""

    index: int
    compare: Compare
    value: int
    value_two: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Deny these system calls with this errno; with an argument, only where it meets the condition."""

    names: tuple[str, ...]
    error: int = errno.EPERM
    argument: Argument | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompProfile:
    """What to deny, and for which architectures.

    Shape: architectures by libseccomp's names without prefix, e.g. ``X86_64``; the first is the machine's own.
    """

    rules: tuple[Rule, ...]
    architectures: tuple[str, ...]


_ARCHITECTURES = {
    "x86_64": ("X86_64", "X86", "X32"),
    "aarch64": ("AARCH64", "ARM"),
}
# Source: linux/audit.h, AUDIT_ARCH_*; X32 is libseccomp's own number.
_ARCHITECTURE_TOKENS = {
    "X86_64": 0xC000003E,
    "X86": 0x40000003,
    "X32": 0x4000003E,
    "AARCH64": 0xC00000B7,
    "ARM": 0x40000028,
}

# Loading a kernel or code into it, time, swap, accounting, raw hardware: the host's alone.
_HOST = """
acct clock_adjtime clock_adjtime64 clock_settime clock_settime64 delete_module finit_module init_module ioperm iopl
kexec_file_load kexec_load lookup_dcookie nfsservctl quotactl_fd settimeofday stime swapoff swapon
"""
# No namespace bounds these, and exploits of the kernel have needed them.
_SURFACE = """
bpf io_uring_enter io_uring_register io_uring_setup move_pages open_by_handle_at perf_event_open userfaultfd vmsplice
"""
_KEYRINGS = "add_key keyctl request_key"

_LAST_ALLOWED_FAMILY = 17  # AF_PACKET; VSOCK, ALG, RXRPC, TIPC and most others lie above
_FAMILIES_BELOW = (3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15)  # all but UNIX, INET, INET6, NETLINK and PACKET

_QUOTA_READING = (0x4, 0x5, 0x7, 0x9)
"""The last digits of Q_GETFMT, Q_GETINFO, Q_GETQUOTA and Q_GETNEXTQUOTA. Source: linux/quota.h."""

_PERSONALITY_BITS = 0x20008  # PER_LINUX32 and UNAME26, alone or together
_PERSONALITY_QUERY = 1 << 31  # set in 0xffffffff only, which asks and changes nothing


def profile(*, nesting: bool) -> SeccompProfile:
    """Build the profile of a VE that boots an init; with nesting it may make user namespaces and keyrings of its own.

    Raises: MissingToolError, on an architecture that has not been looked at.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise MissingToolError(f"build seccomp profile: no list for {machine}; supported: x86_64, aarch64")
    rules = [*_always(), *(() if nesting else _without_nesting())]
    return SeccompProfile(rules=tuple(rules), architectures=_ARCHITECTURES[machine])


def _always() -> Iterator[Rule]:
    yield Rule(tuple(_HOST.split()))
    yield Rule(tuple(_SURFACE.split()))
    yield Rule(("socket",), errno.EAFNOSUPPORT, Argument(0, Compare.GREATER, _LAST_ALLOWED_FAMILY))
    for family in _FAMILIES_BELOW:
        yield Rule(("socket",), errno.EAFNOSUPPORT, _equal(0, family))
    for request in (_TIOCSTI, _TIOCLINUX):  # typing into a terminal that somebody else reads from
        yield Rule(("ioctl",), errno.EPERM, _equal(1, request))
    yield from _personalities()
    yield from _quotas()


def _without_nesting() -> Iterator[Rule]:
    yield Rule(("clone", "unshare"), errno.EPERM, _has(0, _CLONE_NEWUSER))
    # Its flags lie in memory, where a filter cannot look. ENOSYS makes the C library use clone(2).
    yield Rule(("clone3",), errno.ENOSYS)
    yield Rule(tuple(_KEYRINGS.split()))


def _personalities() -> Iterator[Rule]:
    """Deny every personality but the usual ones, bit by bit, as one rule cannot name several values.

    Among the bits are those that switch address randomisation off and make all readable memory executable.
    """
    for bit in (1 << n for n in range(31)):
        if not bit & _PERSONALITY_BITS:
            yield Rule(("personality",), errno.EPERM, _masked(0, bit | _PERSONALITY_QUERY, bit))
        yield Rule(("personality",), errno.EPERM, _masked(0, bit | _PERSONALITY_QUERY, _PERSONALITY_QUERY))


def _quotas() -> Iterator[Rule]:
    """Deny every command of quotactl(2) but those by which users are told of their own limits.

    A command is 0x80000? and, below it, eight bits for whose quota it is.
    """
    yield Rule(("quotactl",), errno.EPERM, _masked(0, 1 << 31, 0))
    for bit in (1 << n for n in range(12, 31)):
        yield Rule(("quotactl",), errno.EPERM, _has(0, bit))
    for digit in range(16):
        if digit not in _QUOTA_READING:
            yield Rule(("quotactl",), errno.EPERM, _masked(0, 0xF00, digit << 8))


def _equal(index: int, value: int) -> Argument:
    return _masked(index, _INT, value)


def _has(index: int, bit: int) -> Argument:
    return _masked(index, bit, bit)


def _masked(index: int, mask: int, value: int) -> Argument:
    return Argument(index, Compare.MASKED_EQUAL, mask, value)


def to_oci(filter_: SeccompProfile) -> dict[str, object]:
    """Give the ``linux.seccomp`` section of an OCI configuration.

    Source: opencontainers/runtime-spec, config-linux.md, "Seccomp".
    """
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [f"SCMP_ARCH_{name}" for name in filter_.architectures],
        "syscalls": [_rule_to_oci(rule) for rule in filter_.rules],
    }


def _rule_to_oci(rule: Rule) -> dict[str, object]:
    section: dict[str, object] = {"names": list(rule.names), "action": "SCMP_ACT_ERRNO", "errnoRet": rule.error}
    if rule.argument is not None:
        argument = rule.argument
        condition = {"index": argument.index, "value": argument.value, "op": argument.compare.value[1]}
        if argument.compare is Compare.MASKED_EQUAL:
            condition["valueTwo"] = argument.value_two
        section["args"] = [condition]
    return section


_ACT_ALLOW = 0x7FFF0000
_ACT_ERRNO = 0x00050000
_UNKNOWN_SYSCALL = -1  # __NR_SCMP_ERROR
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER = 1
_INSTRUCTION_BYTES = 8


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def compile_profile(filter_: SeccompProfile) -> bytes:
    """Translate a profile to the kernel's instructions, so that a helper needs no library when it loads them.

    Raises: MissingToolError, without libseccomp; KernelError, if it takes a rule not.
    Source: seccomp_init(3), seccomp_export_bpf(3).
    """
    library = _library()
    context = library.seccomp_init(_ACT_ALLOW)
    if not context:
        raise KernelError("compile seccomp profile: libseccomp could not begin")
    try:
        for name in filter_.architectures[1:]:
            _taken(library.seccomp_arch_add(context, _ARCHITECTURE_TOKENS[name]), f"architecture {name}")
        for rule in filter_.rules:
            _add_rule(library, context, rule)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def load(program: bytes) -> None:
    """Filter the system calls of the calling process from now on; needs CAP_SYS_ADMIN in its user namespace.

    It goes without no_new_privs, so that set-user-id programs work inside.
    Raises: KernelError.
    Source: seccomp(2).
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    filter_ = _Program(len(program) // _INSTRUCTION_BYTES, ctypes.cast(instructions, ctypes.c_char_p))
    number = _SYS_SECCOMP[os.uname().machine]
    syscall(number, "load", "seccomp filter", _SECCOMP_SET_MODE_FILTER, 0, filter_)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as err:
        raise MissingToolError("load libseccomp.so.2: not found; install the package libseccomp2") from err
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    return library


def _add_rule(library: ctypes.CDLL, context: int, rule: Rule) -> None:
    argument = rule.argument
    comparisons = (
        ()
        if argument is None
        else (_Comparison(argument.index, argument.compare.value[0], argument.value, argument.value_two),)
    )
    array = (_Comparison * len(comparisons))(*comparisons)
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN_SYSCALL:  # newer than the library: the runtime skips it as well
            action = _ACT_ERRNO | rule.error
            result = library.seccomp_rule_add_array(context, action, number, len(comparisons), array)
            _taken(result, f"rule for {name}")


def _taken(result: int, what: str) -> None:
    if result < 0:
        raise KernelError(f"compile seccomp profile: {what}: {os.strerror(-result)}", errno=-result)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    with translated("compile", "seccomp profile"):
        descriptor = os.memfd_create("seccomp")
    with open(descriptor, "rb") as file:
        _taken(library.seccomp_export_bpf(context, descriptor), "export")
        file.seek(0)
        return file.read()
