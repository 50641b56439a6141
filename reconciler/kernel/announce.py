"""Telling the neighbours where an address is now: after a start, a renumbering or a move.

Without it a switch keeps sending to the old port and neighbours to the old hardware address, until their entries age.
The kernel does it for all addresses of a link when that is set up or given a hardware address, also the one it has.
Packet sockets would do it address by address, but to close one waits some 13 ms for the kernel.
"""

from __future__ import annotations

import os

from reconciler.kernel import link, sysctl
from reconciler.kernel.rtnlsocket import RtnlSocket


def enable() -> None:
    """Let the kernel announce, in the network namespace of the calling thread; before its links are made.

    Raises: KernelError.
    Source: Linux Documentation/networking/ip-sysctl.rst, "arp_notify" and "ndisc_notify".
    """
    sysctl.write("net.ipv4.conf.all.arp_notify", "1")
    if os.path.exists(sysctl.path_of("net.ipv6")):
        for which in ("all", "default"):  # kernels before 6.9 ask the link alone, which inherits the default
            sysctl.write(f"net.ipv6.conf.{which}.ndisc_notify", "1")


def announce(sock: RtnlSocket, index: int, mac: str) -> None:
    """Announce all addresses of a link that is up, by a gratuitous ARP and a neighbour advertisement each.

    Sent once: whoever needs certainty sends again after a second.
    Raises: KernelError.
    Source: RFC 5227, section 3; RFC 4861, section 7.2.6.
    """
    link.set_mac(sock, index, mac)
