"""Joining a fleet: what this host needs to share VEs with others, put together from its configuration.

Imported only where a coordinator is configured: the memory of a host without one is not to grow.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from reconciler.agent.known_store import KnownStore
from reconciler.agent.membership import Membership
from reconciler.errors import ConfigError
from reconciler.fleet import host_key
from reconciler.fleet.coordinator import EtcdCoordinator
from reconciler.fleet.etcd import EtcdStore
from reconciler.fleet.keys import Keys
from reconciler.fleet.ledger import Ledger
from reconciler.fleet.owners import EtcdOwners
from reconciler.fleet.records import Seal
from reconciler.fleet.witness import Witness
from reconciler.host.site import Site
from reconciler.model.fleet import Fleet
from reconciler.model.identity import IDS_PER_VE, HostName
from reconciler.model.public_key import PublicLine
from reconciler.model.seam import Clock, Coordinator
from reconciler.state import ids
from reconciler.state.config import Config
from reconciler.state.ids import IdRange
from reconciler.state.leaving import Leaving

_NO_FLEET = Fleet(revision="")

LocalBooks = Callable[[Callable[[], tuple[IdRange, ...]]], Coordinator]
"""Makes the coordinator of this host alone, given what tells which ranges of ids are not to be had."""


class OwnKey:
    """Implements `Signer` with this host's key, which follows the manifests, and gives the keys that are believed.

    ``fleet``: gives the revision in force.
    """

    __slots__ = ("_former", "_host", "_key", "_path", "_pinned", "fleet")

    def __init__(self, path: str, host: HostName) -> None:
        """Read the key, or make it.

        Raises: as `host_key.make_key`.
        """
        self._path, self._host = path, host
        self._pinned: PublicLine | None = None
        self._key, self._former = host_key.make_key(path), host_key.read_former(path)
        self.fleet: Callable[[], Fleet] = lambda: _NO_FLEET

    def sign(self, data: bytes) -> bytes:
        """Sign with the present key."""
        self._follow()
        return self._key.sign(data)

    def pins(self, host: HostName) -> tuple[PublicLine, ...]:
        """Give the keys of a host. What this one signed before its key was changed is still its own word."""
        if host != self._host:
            return self._pins_in_force(host)
        self._follow()
        return (self._key.public,) if self._former is None else (self._key.public, self._former)

    def _pins_in_force(self, host: HostName) -> tuple[PublicLine, ...]:
        spec = self.fleet().hosts.get(host)
        return () if spec is None or spec.public_key is None else (PublicLine(spec.public_key),)

    def _follow(self) -> None:
        """Take up the next key once the manifests pin it."""
        pinned = next(iter(self._pins_in_force(self._host)), None)
        if pinned != self._pinned:
            self._key, self._former = host_key.take_up(self._path, pinned), host_key.read_former(self._path)
            self._pinned = pinned


def join(config: Config, site: Site, *, local: LocalBooks, clock: Clock) -> Membership:
    """Put together this host's part in its fleet; nobody is asked yet.

    Raises: ConfigError, RefusedError, StateError, KernelError.
    """
    if config.etcd is None:
        raise ConfigError("join a fleet: expected `coordinator: {etcd: ...}` in the configuration")
    host, state_dir = config.instance.host, config.instance.state_dir
    key = OwnKey(config.transport.key_file(config.instance), host)
    seal = Seal(host=host, signer=key, pins=key.pins, verify=host_key.verify)
    ledger = Ledger(EtcdStore(config.etcd), Keys(config.etcd.fleet), seal, Witness(KnownStore(state_dir)))
    taken: set[int] = set()
    return Membership(
        host=host,
        owners=EtcdOwners(ledger, clock=clock, new_id=lambda: str(uuid.uuid4())),
        coordinator=EtcdCoordinator(ledger, local(lambda: _reserved(taken)), taken),
        leaving=Leaving(state_dir),
        trashed=site.trashed_records,
        key=key,
    )


def _reserved(taken: set[int]) -> tuple[IdRange, ...]:
    return (*ids.read_subids(), *(IdRange(slot * IDS_PER_VE) for slot in sorted(taken)))
