"""Programs of one system call, made without a compiler: their exit status is its errno, 0 for success.

x86-64 only. They need no library, so they run in any root directory.
"""

from __future__ import annotations

import struct

_BASE = 0x400000
WRITABLE = _BASE + 8
"""An address of eight bytes that a system call may write to."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")

_MOVE_TO_REGISTER = (b"\x48\xb8", b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba")  # rax, rdi, rsi, rdx, r10
_MOVE_TO_HALF = (b"\xb8", b"\xbb", b"\xb9", b"\xba")  # eax, ebx, ecx, edx
_SYSCALL = b"\x0f\x05"
_INT80 = b"\xcd\x80"
# xor edi, edi; test rax, rax; jns +4; neg eax; mov edi, eax; mov eax, 60; syscall
_EXIT_WITH_ERRNO = b"\x31\xff\x48\x85\xc0\x79\x04\xf7\xd8\x89\xc7\xb8\x3c\0\0\0\x0f\x05"
_SIGN_EXTEND = b"\x48\x98"  # cdqe: what int 0x80 gives fills half the register


def syscall_program(number: int, *arguments: int) -> bytes:
    """Build a program that makes a system call with up to four arguments of 64 bits."""
    return syscalls_program((number, *arguments))


def syscalls_program(*calls: tuple[int, ...]) -> bytes:
    """Build a program that makes system calls one after the other, each a number and up to four arguments.

    Its exit status is the errno of the last one.
    """
    return _program(b"".join(map(_syscall, calls)) + _EXIT_WITH_ERRNO)


def _syscall(call: tuple[int, ...]) -> bytes:
    values = (*call, *(0,) * (5 - len(call)))
    moves = b"".join(move + struct.pack("<Q", value) for move, value in zip(_MOVE_TO_REGISTER, values))
    return moves + _SYSCALL


def int80_program(number: int, *arguments: int) -> bytes:
    """Build a program that makes a system call by the 32-bit entry, with up to three arguments."""
    values = (number, *arguments, *(0,) * (3 - len(arguments)))
    moves = b"".join(move + struct.pack("<I", value) for move, value in zip(_MOVE_TO_HALF, values))
    return _program(moves + _INT80 + _SIGN_EXTEND + _EXIT_WITH_ERRNO)


def _program(code: bytes) -> bytes:
    """Put an ELF header before the code.

    Source: elf(5).
    """
    start = _HEADER.size + _SEGMENT.size
    magic = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADER.pack(magic, 2, 62, 1, _BASE + start, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 1, 0, 0, 0)
    size = start + len(code)
    return header + _SEGMENT.pack(1, 7, 0, _BASE, _BASE, size, size, 0x1000) + code
