"""Peering: whom this host talks to, and what it lets others ask, as the revision in force has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

import structlog

from reconciler.agent.loop import Agent
from reconciler.errors import RefusedError
from reconciler.fleet import host_key
from reconciler.fleet.circle import Circle, fellows_of
from reconciler.fleet.listener import Listener
from reconciler.fleet.peers import TlsPeers, Told, tell_nobody
from reconciler.model.facts import Json
from reconciler.model.fleet import Fleet
from reconciler.model.fleet_seam import PeerService
from reconciler.model.identity import HostName
from reconciler.model.public_key import PublicLine
from reconciler.model.version import VERSION
from reconciler.state.config import Config

_LOOK_EVERY_S = 2.0


class Peering:
    """This host among the others. ``peers`` is what it asks them with."""

    __slots__ = ("_circle", "_config", "_fleet", "_of", "peers")

    def __init__(self, config: Config, fleet: Callable[[], Fleet], *, told: Told = tell_nobody) -> None:
        """Take ``fleet``: what gives the revision in force; ``told``: what is called as shipments go on."""
        self._config, self._fleet = config, fleet
        self._of: Fleet | None = None
        self._circle: Circle | None = None
        self.peers = TlsPeers(self.circle, bandwidth=config.transport.bandwidth, told=told)

    def circle(self) -> Circle:
        """Give the hosts of the revision in force, and this host's key; the next one, once that revision pins it.

        Raises: RefusedError, StateError, KernelError, if the key cannot be read.
        """
        fleet = self._fleet()
        if self._circle is not None and self._of is fleet:
            return self._circle
        own = fleet.hosts.get(self._config.instance.host)
        pinned = PublicLine(own.public_key) if own is not None and own.public_key is not None else None
        key = host_key.take_up(self._config.transport.key_file(self._config.instance), pinned)
        name = self._config.instance.host
        found = Circle(name=name, key=key, fellows=fellows_of(fleet, own=name))
        if pinned is not None and pinned != key.public:
            structlog.get_logger().warning("peers.key_not_pinned", remedy=f"pin {key.public} in Host {name}")
        self._of = fleet
        if found != self._circle:
            self._circle = found
        return self._circle

    async def listen(self, service: PeerService) -> None:
        """Let other hosts ask, until cancelled; where, follows the configuration, or else this host's manifest.

        Raises: PeerError, if an address or a port cannot be had; as `circle`.
        """
        log = structlog.get_logger()
        while True:
            place = await self._has_place()
            listener = Listener(service, self.circle, address=place[0], port=place[1])
            log.info("peers.listening", address=place[0], port=place[1])
            running = asyncio.create_task(listener.run())
            try:
                while self._place() == place and not running.done():
                    await asyncio.wait((running,), timeout=_LOOK_EVERY_S)
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    async def _has_place(self) -> tuple[str, int]:
        """Wait until it is known where to listen."""
        is_told = False
        while (place := self._place()) is None:
            if self._fleet().revision and not is_told:
                is_told, host = True, self._config.instance.host
                remedy = f"write address into Host {host}, or set transport.listen"
                structlog.get_logger().warning("peers.not_listening", remedy=remedy)
            await asyncio.sleep(_LOOK_EVERY_S)
        return place

    def _place(self) -> tuple[str, int] | None:
        listen = self._config.transport.listen
        if listen is not None:
            address, _, port = listen.rpartition(":")
            return address.strip("[]"), int(port)
        own = self._fleet().hosts.get(self._config.instance.host)
        return None if own is None or own.address is None else (own.address, own.port)


class Greeter:
    """A `PeerService` that says who it is, and takes nothing."""

    __slots__ = ("_config",)

    def __init__(self, config: Config) -> None:
        self._config = config

    async def answer(self, source: HostName, question: Mapping[str, Json]) -> Mapping[str, Json]:
        """Answer `hello`.

        Raises: RefusedError, for any other question.
        """
        if question.get("ask") != "hello":
            raise RefusedError(f"answer {source}: expected hello, got {question.get('ask')!r}")
        return {"host": self._config.instance.host, "version": VERSION}

    async def take(
        self, source: HostName, header: Mapping[str, Json], chunks: AsyncIterator[bytes]
    ) -> Mapping[str, Json]:
        """Take nothing.

        Raises: RefusedError.
        """
        raise RefusedError(f"take from {source}: this host takes nothing")


async def serve_peers(agent: Agent, config: Config) -> None:
    """Let the other hosts of the fleet ask, as a part that runs beside the agent."""
    await Peering(config, lambda: agent.reconciler.fleet).listen(Greeter(config))
