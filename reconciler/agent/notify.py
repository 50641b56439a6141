"""Telling systemd how the agent is.

Source: sd_notify(3).
"""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> None:
    """Send state such as ``READY=1`` to the service manager; without one nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall("\n".join(lines).encode())


def watchdog_s() -> float | None:
    """Give half the time in which the service manager wants to hear of the agent, None if it does not.

    Units: seconds.
    """
    microseconds = os.environ.get("WATCHDOG_USEC")
    return int(microseconds) / 2_000_000 if microseconds else None
