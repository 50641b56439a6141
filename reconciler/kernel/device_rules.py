"""Which devices the processes of a cgroup may open: a list of rules on cgroup v1, a program on cgroup v2.

Source: Linux Documentation/admin-guide/cgroup-v1/devices.rst; cgroup-v2.rst, "Device controller"; include/uapi/linux/
bpf.h, struct bpf_cgroup_dev_ctx.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.errors import KernelError
from reconciler.kernel import bpf, cgroup_file
from reconciler.kernel.bpf import R0, R1, R2, R3, R4, Jump
from reconciler.kernel.syscalls import file_errors

_NAME = "vectl_devices"
_BITS = {"m": 1, "r": 2, "w": 4}
_ALL = 7
_BLOCK, _CHARACTER = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DeviceId:
    """A device by its numbers; a ``minor`` or ``major`` of None stands for all."""

    block: bool = False
    major: int | None
    minor: int | None

    def __str__(self) -> str:
        numbers = ("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{'b' if self.block else 'c'} {':'.join(numbers)}"


def parse_id(text: str) -> DeviceId:
    """Read the numbers of one device, as they are written."""
    kind, _, numbers = text.partition(" ")
    major, minor = (None if number == "*" else int(number) for number in numbers.split(":"))
    return DeviceId(block=kind == "b", major=major, minor=minor)


Rules = Mapping[DeviceId, str]
"""What may be done with devices, of the letters ``rwm``; with any other nothing."""


def change_listed(directory: str, device: DeviceId, access: str) -> None:
    """Set the rule of one device of a cgroup of v1; an empty access takes it away.

    Raises: KernelError.
    """
    if listed(directory).get(device, "") == access:
        return
    cgroup_file.write(f"{directory}/devices.deny", f"{device} rwm")
    if access:
        cgroup_file.write(f"{directory}/devices.allow", f"{device} {access}")


def list_only(directory: str, rules: Rules) -> None:
    """Make these the rules of a cgroup of v1 that has none below it.

    Raises: KernelError.
    """
    cgroup_file.write(f"{directory}/devices.deny", "a")
    for device, access in rules.items():
        cgroup_file.write(f"{directory}/devices.allow", f"{device} {access}")


def listed(directory: str) -> dict[DeviceId, str]:
    """Read the rules of a cgroup of v1.

    Raises: KernelError.
    """
    rules = {}
    for line in cgroup_file.read(f"{directory}/devices.list").splitlines():
        numbers, _, access = line.rpartition(" ")
        rules[parse_id(numbers)] = access
    return rules


def load(directory: str, rules: Rules) -> int:
    """Let a program with these rules decide for a cgroup of v2, in the place of the one that did; give its number.

    Raises: KernelError, if several programs decide there.
    """
    code = bpf.assemble(_program(rules))
    program = bpf.Program(_NAME, bpf.CGROUP_DEVICE, code, bpf.PROG_TYPE_CGROUP_DEVICE)
    with file_errors("open", directory):
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = bpf.attached(cgroup, bpf.CGROUP_DEVICE)
        if len(before) > 1:
            raise KernelError(f"set device rules of {directory}: {len(before)} programs are there, expected one")
        descriptor = bpf.load(program)
        try:
            bpf.attach(descriptor, cgroup, bpf.CGROUP_DEVICE, instead_of=before[0] if before else None)
        finally:
            os.close(descriptor)
        return bpf.attached(cgroup, bpf.CGROUP_DEVICE)[0]
    finally:
        os.close(cgroup)


def loaded(directory: str) -> tuple[int, ...]:
    """Give the numbers of the programs that decide for a cgroup of v2.

    Raises: KernelError.
    """
    with file_errors("open", directory):
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bpf.attached(cgroup, bpf.CGROUP_DEVICE)
    finally:
        os.close(cgroup)


def _program(rules: Rules) -> Iterator[bytes | str | Jump]:
    """Give what a program with these rules consists of: the first rule that fits allows, and the end refuses.

    It is given the kind of the device and, shifted by 16 bits, what is to be done with it, then the two numbers.
    """
    yield bpf.load_word(R2, R1, 0)
    yield bpf.load_word(R3, R1, 4)
    yield bpf.load_word(R4, R1, 8)
    for number, (device, access) in enumerate(sorted(rules.items(), key=lambda rule: str(rule[0]))):
        refused = _ALL & ~sum(_BITS[letter] for letter in access)
        other = _CHARACTER if device.block else _BLOCK
        yield bpf.jump_any(R2, refused << 16 | other, f"after {number}")
        if device.major is not None:
            yield bpf.jump_unequal(R3, device.major, f"after {number}")
        if device.minor is not None:
            yield bpf.jump_unequal(R4, device.minor, f"after {number}")
        yield bpf.put(R0, 1)
        yield bpf.leave()
        yield f"after {number}"
    yield bpf.put(R0, 0)
    yield bpf.leave()
