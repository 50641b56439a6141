"""BPF programs and maps on control groups, by the system call alone: no compiler and no library is needed.

A program that is attached to a cgroup lives as long as that does; whoever comes later finds it, and from it its maps.

Source: bpf(2); Linux include/uapi/linux/bpf.h; Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import syscall

CGROUP_INET_SOCK_CREATE = 2
CGROUP_INET_SOCK_RELEASE = 34
CGROUP_DEVICE = 6

PROG_TYPE_CGROUP_SOCK = 9
PROG_TYPE_CGROUP_DEVICE = 15
_MAP_TYPE_ARRAY = 2
_MAP_TYPE_SK_STORAGE = 24
_NO_PREALLOC = 1
_ALLOW_MULTI = 1 << 1  # beside the programs of others, systemd's for one
_REPLACE = 1 << 2

_MAP_CREATE, _LOOKUP, _UPDATE, _PROG_LOAD, _PROG_ATTACH = 0, 1, 2, 5, 8
_PROG_FD_BY_ID, _MAP_FD_BY_ID, _INFO_BY_FD, _PROG_QUERY, _BTF_LOAD = 13, 14, 15, 16, 18
_SYS_BPF = {"x86_64": 321, "aarch64": 280}

_ATTR_BYTES = 144
_NAME_BYTES = 15
_LOG_BYTES = 1 << 16
_PROGRAMS_MAX = 64
_MAPS_MAX = 8
_PROG_INFO = struct.Struct("=II8sIIQQQIIQ16s")
_MAP_INFO = struct.Struct("=IIIIII16s")
_FIRST_WORD = struct.Struct("=I")
_LICENSE = b"GPL\0"

# One type, a four-byte integer: what the kernel must know of keys and values that hang on sockets.
_BTF_STRINGS = b"\0int\0"
_BTF_TYPES = struct.pack("=IIII", 1, 1 << 24, 4, (1 << 24) | 32)
_BTF = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(_BTF_TYPES), len(_BTF_TYPES), len(_BTF_STRINGS))


@dataclass(frozen=True, slots=True)
class Program:
    """What is loaded: its ``name`` of at most 15 letters, where it is to be attached, and its instructions."""

    name: str
    attach_type: int
    instructions: bytes
    kind: int = PROG_TYPE_CGROUP_SOCK


def create_array(name: str, value_bytes: int) -> int:
    """Make a map of a single value; the caller closes the descriptor.

    Raises: KernelError.
    """
    attr = struct.pack("=IIIII8x16s", _MAP_TYPE_ARRAY, 4, value_bytes, 1, 0, _named(name))
    return _call(_MAP_CREATE, "create", f"BPF map {name}", attr)


def create_socket_storage(name: str) -> int:
    """Make a map that keeps four bytes with each socket; the caller closes the descriptor.

    Raises: KernelError.
    """
    content = ctypes.create_string_buffer(_BTF + _BTF_TYPES + _BTF_STRINGS)
    size = len(content) - 1
    types = _call(_BTF_LOAD, "load", "BPF types", struct.pack("=QQII", ctypes.addressof(content), 0, size, 0))
    try:
        attr = struct.pack("=IIIII8x16sIIII", _MAP_TYPE_SK_STORAGE, 4, 4, 0, _NO_PREALLOC, _named(name), 0, types, 1, 1)
        return _call(_MAP_CREATE, "create", f"BPF map {name}", attr)
    finally:
        os.close(types)


def read_array(map_fd: int, value_bytes: int) -> bytes:
    """Read the value of a map of one.

    Raises: KernelError.
    """
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value_bytes)
    attr = struct.pack("=IxxxxQQQ", map_fd, ctypes.addressof(key), ctypes.addressof(value), 0)
    _call(_LOOKUP, "read", "BPF map", attr)
    return value.raw


def write_array(map_fd: int, value: bytes) -> None:
    """Replace the value of a map of one.

    Raises: KernelError.
    """
    key, content = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value, len(value))
    attr = struct.pack("=IxxxxQQQ", map_fd, ctypes.addressof(key), ctypes.addressof(content), 0)
    _call(_UPDATE, "write", "BPF map", attr)


def load(program: Program) -> int:
    """Load a program for control groups; the caller closes the descriptor.

    Raises: KernelError, with the last that the verifier said.
    """
    code, licence = ctypes.create_string_buffer(program.instructions), ctypes.create_string_buffer(_LICENSE)
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attr = struct.pack(
        "=IIQQIIQII16sII",
        program.kind,
        len(program.instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        1,
        _LOG_BYTES,
        ctypes.addressof(log),
        0,
        0,
        _named(program.name),
        0,
        program.attach_type,
    )
    try:
        return _call(_PROG_LOAD, "load", f"BPF program {program.name}", attr)
    except KernelError as err:
        said = log.value.decode(errors="replace").strip().splitlines()[-2:]
        raise KernelError(f"{err}: {' '.join(said)}" if said else str(err), errno=err.errno) from err


def attach(program_fd: int, cgroup_fd: int, attach_type: int, *, instead_of: int | None = None) -> None:
    """Attach a program to a cgroup of v2, beside those that are there; it stays when the descriptors are closed.

    ``instead_of``: the number of an attached program that it replaces, in one step.
    Raises: KernelError.
    """
    if instead_of is None:
        attr = struct.pack("=IIII", cgroup_fd, program_fd, attach_type, _ALLOW_MULTI)
        _call(_PROG_ATTACH, "attach", "BPF program", attr)
        return
    before = _call(_PROG_FD_BY_ID, "open", f"BPF program {instead_of}", _FIRST_WORD.pack(instead_of))
    try:
        attr = struct.pack("=IIIII", cgroup_fd, program_fd, attach_type, _ALLOW_MULTI | _REPLACE, before)
        _call(_PROG_ATTACH, "attach", "BPF program", attr)
    finally:
        os.close(before)


def find_maps(cgroup_fd: int, attach_type: int, *, program: str, names: Sequence[str]) -> tuple[int, ...] | None:
    """Open the maps of those names that a program of that name, attached to the cgroup itself, uses.

    The caller closes the descriptors. None, if there is no such program.
    Raises: KernelError.
    """
    for program_id in attached(cgroup_fd, attach_type):
        found = {}
        with suppress(KernelError):  # it was detached since
            for map_id in _maps_of(program_id, program):
                name, descriptor = _open_map(map_id)
                found[name] = descriptor
        if found.keys() >= set(names):
            for name in found.keys() - set(names):
                os.close(found[name])
            return tuple(found[name] for name in names)
        for descriptor in found.values():
            os.close(descriptor)
    return None


def attached(cgroup_fd: int, attach_type: int) -> tuple[int, ...]:
    """Give the numbers of the programs that are attached to the cgroup itself.

    Raises: KernelError.
    """
    ids = (ctypes.c_uint32 * _PROGRAMS_MAX)()
    attr = struct.pack("=IIIIQI", cgroup_fd, attach_type, 0, 0, ctypes.addressof(ids), _PROGRAMS_MAX)
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    _call_with(_PROG_QUERY, "query", "BPF programs of a cgroup", buffer)
    count: int = struct.unpack_from("=I", buffer, 24)[0]
    return tuple(ids[:count])


def _maps_of(program_id: int, name: str) -> tuple[int, ...]:
    """Name the maps of a program, if that has the name."""
    descriptor = _call(_PROG_FD_BY_ID, "open", f"BPF program {program_id}", _FIRST_WORD.pack(program_id))
    try:
        ids = (ctypes.c_uint32 * _MAPS_MAX)()
        asked = _PROG_INFO.pack(0, 0, b"", 0, 0, 0, 0, 0, 0, _MAPS_MAX, ctypes.addressof(ids), b"")
        seen = _PROG_INFO.unpack(_info(descriptor, asked))
    finally:
        os.close(descriptor)
    return tuple(ids[: seen[9]]) if seen[11] == _named(name) else ()


def _open_map(map_id: int) -> tuple[str, int]:
    descriptor = _call(_MAP_FD_BY_ID, "open", f"BPF map {map_id}", _FIRST_WORD.pack(map_id))
    name: bytes = _MAP_INFO.unpack(_info(descriptor, bytes(_MAP_INFO.size)))[6]
    return name.rstrip(b"\0").decode(errors="replace"), descriptor


def _info(descriptor: int, asked: bytes) -> bytes:
    content = ctypes.create_string_buffer(asked, len(asked))
    _call(_INFO_BY_FD, "ask", "BPF object", struct.pack("=IIQ", descriptor, len(asked), ctypes.addressof(content)))
    return content.raw


def _named(name: str) -> bytes:
    assert len(name) <= _NAME_BYTES, name
    return name.encode().ljust(_NAME_BYTES + 1, b"\0")


def _call(command: int, call: str, what: str, attr: bytes) -> int:
    return _call_with(command, call, what, ctypes.create_string_buffer(attr, _ATTR_BYTES))


def _call_with(command: int, call: str, what: str, buffer: ctypes.Array[ctypes.c_char]) -> int:
    number = _SYS_BPF.get(os.uname().machine)
    if number is None:
        raise KernelError(f"{call} {what}: expected x86_64 or aarch64, not {os.uname().machine}")
    return syscall(number, call, what, command, buffer, _ATTR_BYTES)


# Instructions

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

_INSN = struct.Struct("=BBhi")


def _insn(code: int, *, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSN.pack(code, of << 4 | to, offset, value)


def move(to: int, of: int) -> bytes:
    """Copy a register."""
    return _insn(0xBF, to=to, of=of)


def put(to: int, value: int) -> bytes:
    """Set a register to a number."""
    return _insn(0xB7, to=to, value=value)


def add(to: int, value: int) -> bytes:
    """Add a number to a register."""
    return _insn(0x07, to=to, value=value)


def load_word(to: int, of: int, offset: int) -> bytes:
    """Load four bytes from where a register points."""
    return _insn(0x61, to=to, of=of, offset=offset)


def load_long(to: int, of: int, offset: int) -> bytes:
    """Load eight bytes from where a register points."""
    return _insn(0x79, to=to, of=of, offset=offset)


def store_word(to: int, offset: int, value: int) -> bytes:
    """Store a number in four bytes where a register points."""
    return _insn(0x62, to=to, offset=offset, value=value)


def store_long(to: int, offset: int, of: int) -> bytes:
    """Store a register where another one points."""
    return _insn(0x7B, to=to, of=of, offset=offset)


def add_in_place(to: int, offset: int, of: int) -> bytes:
    """Add a register to eight bytes of memory, whoever else does so at the same time."""
    return _insn(0xDB, to=to, of=of, offset=offset)


def fetch_and_add(to: int, offset: int, of: int) -> bytes:
    """Do as `add_in_place`; the register holds afterwards what was there before."""
    return _insn(0xDB, to=to, of=of, offset=offset, value=1)


def map_of(to: int, map_fd: int) -> bytes:
    """Point a register at a map."""
    return _insn(0x18, to=to, of=1, value=map_fd) + _insn(0)


def value_of(to: int, map_fd: int) -> bytes:
    """Point a register at the value of a map of one."""
    return _insn(0x18, to=to, of=2, value=map_fd) + _insn(0)


def call_helper(number: int) -> bytes:
    """Call a function of the kernel; R1 to R5 are lost, R0 holds its result."""
    return _insn(0x85, value=number)


def leave() -> bytes:
    """End with what is in R0."""
    return _insn(0x95)


@dataclass(frozen=True, slots=True)
class Jump:
    """A jump to the label ``to``, if what ``code`` asks of ``register`` and ``value`` or ``other`` is so."""

    code: int
    to: str
    register: int = 0
    value: int = 0
    other: int = 0


def jump_equal(register: int, value: int, to: str) -> Jump:
    """Jump if a register holds a number."""
    return Jump(0x15, to, register, value)


def jump_unequal(register: int, value: int, to: str) -> Jump:
    """Jump if a register holds another number."""
    return Jump(0x55, to, register, value)


def jump_any(register: int, bits: int, to: str) -> Jump:
    """Jump if a register has one of these bits."""
    return Jump(0x45, to, register, bits)


def jump_greater(register: int, other: int, to: str) -> Jump:
    """Jump if a register holds more than another one, both without sign."""
    return Jump(0x2D, to, register, other=other)


def jump(to: str) -> Jump:
    """Jump."""
    return Jump(0x05, to)


def assemble(parts: Iterable[bytes | str | Jump]) -> bytes:
    """Put instructions together; a text is a label for the jumps before it."""
    listed, places, position = list(parts), {}, 0
    for part in listed:
        if isinstance(part, str):
            places[part] = position
        else:
            position += 1 if isinstance(part, Jump) else len(part) // _INSN.size
    code = b""
    for part in listed:
        if isinstance(part, bytes):
            code += part
        elif isinstance(part, Jump):
            offset = places[part.to] - len(code) // _INSN.size - 1
            code += _insn(part.code, to=part.register, of=part.other, offset=offset, value=part.value)
    return code
