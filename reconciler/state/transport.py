"""How this host talks to others, as the configuration says it."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.model.instance import Instance
from reconciler.state import scalars
from reconciler.state.settings import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """``listen``: ``address:port``; None: the address and the port of this host's own manifest. ``key``: a path.

    Units: ``bandwidth`` bytes per second of all that is sent, None for no limit.
    """

    listen: str | None = None
    bandwidth: int | None = None
    key: str | None = None

    def key_file(self, instance: Instance) -> str:
        """Give the path of this host's key."""
        return self.key or f"{instance.state_dir}/host.key"


DEFAULT_TRANSPORT = Transport()


def parse_transport(top: Section) -> Transport:
    """Take ``transport`` from the configuration."""
    section = top.section("transport")
    transport = Transport(
        listen=section.value("listen", scalars.listen_ip),
        bandwidth=section.value("bandwidth", scalars.bandwidth),
        key=section.value("key", scalars.absolute_path),
    )
    section.end()
    return transport
