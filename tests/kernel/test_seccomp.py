"""Claims about the filter and the capabilities, on a process that has them; VEs are in test_keeper."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.errors import MissingToolError
from reconciler.kernel import capabilities, seccomp
from reconciler.kernel.syscalls import libc
from tests.support import probe

FEW = ("CAP_CHOWN", "CAP_SETGID", "CAP_SETUID")
X86_64 = os.uname().machine == "x86_64"

SOCKET, PERSONALITY, UNSHARE, KEYCTL, CLONE3, IOCTL = (
    (41, 135, 272, 250, 435, 16) if X86_64 else (198, 92, 97, 219, 435, 29)
)
NEWUSER = 0x10000000


def call(*arguments: int) -> Callable[[], int]:
    """Make a system call; give its errno, 0 for success."""

    def made() -> int:
        result = libc.syscall(*(ctypes.c_long(argument) for argument in arguments))
        return ctypes.get_errno() if result < 0 else 0

    return made


def filtered(work: Callable[[], int], *, nesting: bool = False) -> int:
    """Do something in a child under the filter; give what it gives, 255 if it was killed."""
    program = seccomp.compile_profile(seccomp.profile(nesting=nesting))
    pid = os.fork()
    if pid == 0:
        try:
            seccomp.load(program)
            os._exit(work())
        finally:
            os._exit(254)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 255


@pytest.mark.kernel
@pytest.mark.parametrize("family", [40, 38, 33, 30, 24, 29, 31, 15, 9, 3, 2**31 - 1, 2**32 + 40])
def test_a_family_without_a_namespace_cannot_be_opened(family: int) -> None:
    assert filtered(call(SOCKET, family, 2, 0)) == errno.EAFNOSUPPORT


@pytest.mark.kernel
@pytest.mark.parametrize("family", [1, 2, 10, 16])
def test_the_usual_families_can(family: int) -> None:
    assert filtered(call(SOCKET, family, 2, 0)) == 0


@pytest.mark.kernel
@pytest.mark.parametrize("value", [0, 8, 0x20000, 0x20008, 0xFFFFFFFF])
def test_the_usual_personalities_are_allowed(value: int) -> None:
    assert filtered(call(PERSONALITY, value)) == 0


@pytest.mark.kernel
@pytest.mark.parametrize("value", [0x40000, 0x400000, 0x100000, 1, 0x20009, 0x80000000, 0x80040000, 0xFFFFFFFE])
def test_every_other_personality_is_refused(value: int) -> None:
    assert filtered(call(PERSONALITY, value)) == errno.EPERM


@pytest.mark.kernel
@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x5412 | 1 << 40])
def test_nothing_types_into_a_terminal(request_: int) -> None:
    assert filtered(call(IOCTL, 0, request_, 0)) == errno.EPERM


@pytest.mark.kernel
def test_other_requests_reach_the_kernel() -> None:
    assert filtered(call(IOCTL, 99, 0x5413, 0)) == errno.EBADF


@pytest.mark.kernel
@pytest.mark.parametrize(("nesting", "expected"), [(False, errno.EPERM), (True, 0)])
def test_nesting_decides_over_user_namespaces(nesting: bool, expected: int) -> None:
    assert filtered(call(UNSHARE, NEWUSER), nesting=nesting) == expected


@pytest.mark.kernel
@pytest.mark.parametrize(("nesting", "expected"), [(False, errno.ENOSYS), (True, errno.EINVAL)])
def test_the_newest_clone_seems_not_to_exist_without_nesting(nesting: bool, expected: int) -> None:
    assert filtered(call(CLONE3, 0, 0), nesting=nesting) == expected


@pytest.mark.kernel
def test_threads_and_processes_are_made_as_ever() -> None:
    def work() -> int:
        return subprocess.run(["true"], timeout=10).returncode

    assert filtered(work) == 0


@pytest.mark.kernel
@pytest.mark.skipif(not X86_64, reason="the other entry is x86's")
@pytest.mark.parametrize(
    ("number", "first", "expected"),
    [
        (359, 40, errno.EAFNOSUPPORT),
        (102, 1, errno.EAFNOSUPPORT),  # socketcall(SYS_SOCKET): its arguments cannot be seen, so all are refused
        (310, NEWUSER, errno.EPERM),
        (136, 0x40000, errno.EPERM),
        (20, 0, 0),
    ],
    ids=["socket", "socketcall", "unshare", "personality", "getpid"],
)
def test_the_32_bit_entry_is_no_way_round(tmp_path: Path, number: int, first: int, expected: int) -> None:
    program = tmp_path / "int80"
    program.write_bytes(probe.int80_program(number, first, 2))
    program.chmod(0o755)

    def work() -> int:
        return subprocess.run([program], timeout=10).returncode

    assert filtered(work) == expected


@pytest.mark.kernel
@pytest.mark.parametrize("nesting", [False, True])
def test_every_denied_call_has_a_name_that_is_known(nesting: bool) -> None:
    library = seccomp._library()
    names = {name for rule in seccomp.profile(nesting=nesting).rules for name in rule.names}
    assert {name for name in names if library.seccomp_syscall_resolve_name(name.encode()) == -1} == set()


def test_a_ve_can_end_itself_and_mount() -> None:
    denied = {name for rule in seccomp.profile(nesting=False).rules if rule.argument is None for name in rule.names}
    assert not denied & {"reboot", "mount", "umount2", "pivot_root", "setns", "chroot", "ptrace", "sethostname"}
    assert {"kexec_load", "bpf", "open_by_handle_at", "io_uring_setup", "userfaultfd", "init_module"} <= denied


def test_the_runtime_gets_the_same_rules() -> None:
    profile = seccomp.profile(nesting=False)
    section = seccomp.to_oci(profile)
    assert section["defaultAction"] == "SCMP_ACT_ALLOW"
    syscalls = section["syscalls"]
    assert isinstance(syscalls, list)
    assert len(syscalls) == len(profile.rules)
    assert {
        "names": ["clone", "unshare"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno.EPERM,
        "args": [{"index": 0, "value": NEWUSER, "valueTwo": NEWUSER, "op": "SCMP_CMP_MASKED_EQ"}],
    } in syscalls


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ],
)
def test_the_32_bit_entries_of_a_machine_are_filtered_too(
    monkeypatch: pytest.MonkeyPatch, machine: str, expected: list[str]
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine, release="6.0"))
    assert seccomp.to_oci(seccomp.profile(nesting=False))["architectures"] == expected


def test_an_unknown_machine_is_refused_rather_than_unfiltered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64", release="6.0"))
    with pytest.raises(MissingToolError):
        seccomp.profile(nesting=False)


def test_capabilities_over_the_host_are_not_given() -> None:
    given = set(capabilities.SYSTEM)
    host = {"SYS_MODULE", "SYS_RAWIO", "SYS_TIME", "MAC_ADMIN", "MAC_OVERRIDE", "SYSLOG", "BPF", "PERFMON"}
    assert not given & {f"CAP_{name}" for name in host | {"CHECKPOINT_RESTORE", "WAKE_ALARM", "AUDIT_CONTROL"}}
    assert {"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_NET_ADMIN", "CAP_SETUID", "CAP_AUDIT_WRITE"} <= given


def test_capability_numbers_are_the_kernels() -> None:
    numbers = capabilities.NUMBERS
    assert (numbers["CAP_CHOWN"], numbers["CAP_SYS_ADMIN"], numbers["CAP_SYS_BOOT"]) == (0, 21, 22)
    assert (numbers["CAP_AUDIT_READ"], numbers["CAP_CHECKPOINT_RESTORE"], len(numbers)) == (37, 40, 41)


@pytest.mark.kernel
def test_dropped_capabilities_are_gone_after_execve() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        capabilities.limit_to(FEW)
        os.dup2(writer, 1)
        os.execv("/bin/cat", ["cat", "/proc/self/status"])
    os.close(writer)
    with open(reader) as file:
        sets = capabilities.parse_status(file.read())
    os.waitpid(pid, 0)
    expected = capabilities.mask(FEW)
    assert sets == {"CapInh": 0, "CapPrm": expected, "CapEff": expected, "CapBnd": expected, "CapAmb": 0}
