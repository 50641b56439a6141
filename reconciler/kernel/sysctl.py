"""Kernel parameters under ``/proc/sys``, by the names that sysctl(8) takes.

Those of ``net`` belong to the network namespace of the thread that opens the file: see `netns.call_in`.
"""

from __future__ import annotations

import os

from reconciler.errors import KernelError
from reconciler.kernel.syscalls import file_errors

_ROOT = "/proc/sys/"
_SWAP = str.maketrans("./", "/.")


def path_of(name: str) -> str:
    """Give the file of a parameter.

    Shape: dotted, with a slash for each dot inside a part: ``net.ipv4.conf.eth0/100.forwarding``.
    Raises: KernelError, if the name would lead out of the tree.
    Source: sysctl(8), "variable".
    """
    parts = name.translate(_SWAP).split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise KernelError(f"find kernel parameter {name!r}: expected names joined by dots")
    return _ROOT + "/".join(parts)


def of_interface(family: str, interface: str, key: str) -> str:
    """Build the name of a parameter of one interface, whose own name may hold dots.

    Shape: the family is ``ipv4`` or ``ipv6``, the key for example ``proxy_ndp``.
    """
    return f"net.{family}.conf.{interface.translate(_SWAP)}.{key}"


def read(name: str) -> str:
    """Read a parameter, without the final newline.

    Raises: KernelError, with ENOENT if the kernel has no such parameter.
    """
    path = path_of(name)
    with file_errors("read", path), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def write(name: str, value: str) -> None:
    """Set a parameter.

    Raises: KernelError, with EINVAL if the kernel does not take the value.
    """
    path = path_of(name)
    with file_errors(f"write {value!r} to", path), open(path, "wb", buffering=0) as file:
        file.write(value.encode(errors="surrogateescape"))


def has_ipv6(interface: str) -> bool:
    """Say whether an interface has parameters of IPv6: one with an MTU below 1280 has none."""
    return os.path.exists(path_of(of_interface("ipv6", interface, "disable_ipv6")))


def switch_off_ipv6(interface: str) -> None:
    """Take IPv6 from a port of a bridge: without an address the host takes part in nothing there.

    Raises: KernelError.
    """
    if has_ipv6(interface):
        write(of_interface("ipv6", interface, "disable_ipv6"), "1")
