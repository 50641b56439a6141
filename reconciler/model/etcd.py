"""Where a cluster of etcd is, and how it is talked to."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_FLEET = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAddress:
    """An etcd cluster that coordinates a fleet. Paths are those of PEM files; ``password_file`` has one line.

    ``ca`` None: the authorities of the system. ``fleet``: its part of a cluster that several share.
    """

    endpoints: tuple[str, ...]
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    username: str | None = None
    password_file: str | None = None
    fleet: str = DEFAULT_FLEET
