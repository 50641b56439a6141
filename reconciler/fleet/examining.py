"""Is the coordinator one that a fleet can be built on?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reconciler.errors import CoordinatorAwayError
from reconciler.fleet.etcd import EtcdStore
from reconciler.model.etcd import EtcdAddress
from reconciler.model.kv import StoreStatus
from reconciler.model.probe import Level, Probe

_NAME = "coordinator"
_SAFE = {(3, 5): 30, (3, 6): 11}
"""The first releases of a line in which nobody talks his way past access control. Source: CVE-2026-44283."""
_SLOW_S = 0.5
_CLOCK_S = 2.0
_HERE = "under `coordinator` in the configuration"
_HINTS = (
    ("CommonName of client", "use a client certificate without a common name; etcd's gateway takes a user's password"),
    ("authentication failed", f"see `username` and `passwordFile` {_HERE}"),
    ("only root may read", f"see `username` and `passwordFile` {_HERE}"),
    ("with a secret", f"see `username` and `passwordFile` {_HERE}"),
    ("user name is empty", f"set `username` and `passwordFile` {_HERE}"),
    ("permission denied", f"name a user {_HERE} who may read and write below /vectl/: `etcdctl role grant-permission`"),
    ("is not to be believed", f"see `ca` {_HERE}, and the names in the server's certificate"),
    ("refuses our certificate", f"see `cert` and `key` {_HERE}; the server's authority has to know them"),
    ("expected certificates in PEM", f"see `ca` {_HERE}"),
    ("expected a certificate and its key", f"see `cert` and `key` {_HERE}"),
    ("TLS failed", f"see whether the server speaks https, and `ca`, `cert` and `key` {_HERE}"),
    ("closed the connection", "see whether the server speaks http or https"),
    ("NOSPACE", "free space and end the alarm: `etcdctl compact`, `etcdctl defrag`, `etcdctl alarm disarm`"),
    ("no leader", "start the other members: it has no quorum"),
)


async def examine(address: EtcdAddress) -> tuple[Probe, ...]:
    """Ask each member how it is, and the cluster who may ask."""
    store = EtcdStore(address)
    try:
        statuses = await store.status()
        return (*judge(statuses), *await _examine_access(store, address, statuses))
    finally:
        store.close()


def judge(statuses: Sequence[StoreStatus]) -> Iterator[Probe]:
    """Say what members are worth, one by one and together."""
    for status in statuses:
        yield _judge_member(status)
    healthy = [status for status in statuses if status.healthy]
    clusters = sorted({status.cluster for status in healthy})
    if not healthy:
        found = "no member answers for a quorum: nothing that does not run is started, and no VE moves"
        yield Probe(name=_NAME, level=Level.FAIL, found=found, remedy="see to the members; what runs goes on")
    elif len(clusters) > 1:
        found = f"the endpoints are of {len(clusters)} clusters: {', '.join(clusters)}"
        remedy = "name members of one cluster under `endpoints`: hosts that ask different ones own VEs twice"
        yield Probe(name=_NAME, level=Level.FAIL, found=found, remedy=remedy)
    else:
        found = f"cluster {clusters[0]}, {len(healthy)} of {len(statuses)} endpoints answer for a quorum"
        yield Probe(name=_NAME, level=Level.OK, found=found)


def _judge_member(status: StoreStatus) -> Probe:
    name = f"{_NAME} {status.endpoint}"
    if not status.healthy or status.problem:
        found = status.problem or "it does not answer"
        return Probe(name=name, level=Level.WARN, found=found, remedy=_hint(found))
    if not is_safe(status.version):
        found = f"etcd {status.version}, in which users can talk their way past access control"
        return Probe(name=name, level=Level.WARN, found=found, remedy="install etcd 3.5.30, 3.6.11 or newer")
    if abs(status.clock_ahead_s) > _CLOCK_S:
        where = "ahead of" if status.clock_ahead_s > 0 else "behind"
        found = f"its clock is {abs(status.clock_ahead_s):.0f} s {where} this host's: ages are misjudged"
        return Probe(name=name, level=Level.WARN, found=found, remedy="have both follow the time, by chrony or another")
    answered = f"etcd {status.version}, a read took {status.answered_in_s * 1000:.0f} ms"
    if status.answered_in_s > _SLOW_S:
        remedy = "give etcd a disk and a network of its own: moving a VE waits for it while the VE stands still"
        return Probe(name=name, level=Level.WARN, found=answered, remedy=remedy)
    return Probe(name=name, level=Level.OK, found=answered)


def is_safe(version: str) -> bool:
    """Tell whether a release's access control holds."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return False
    major, minor, patch = map(int, match.groups())
    return (major, minor) > max(_SAFE) or patch >= _SAFE.get((major, minor), patch + 1)


async def _examine_access(store: EtcdStore, address: EtcdAddress, statuses: Sequence[StoreStatus]) -> tuple[Probe, ...]:
    if not any(status.healthy for status in statuses):
        return ()
    try:
        is_asked = await store.asks_for_login()
    except CoordinatorAwayError:
        return ()
    return tuple(_judge_access(address, is_asked=is_asked))


def _judge_access(address: EtcdAddress, *, is_asked: bool) -> Iterator[Probe]:
    if is_asked:
        return
    name, remedy = f"{_NAME} access", "make users and switch it on: `etcdctl auth enable`"
    if address.username is not None:
        found = f"etcd asks nobody for a password, user {address.username} included"
        yield Probe(name=name, level=Level.WARN, found=found, remedy=remedy)
    elif address.cert is None:
        found = "etcd asks neither for a password nor for a certificate: whoever reaches it owns the fleet"
        yield Probe(name=name, level=Level.WARN, found=found, remedy=remedy)


def _hint(problem: str) -> str:
    return next((remedy for words, remedy in _HINTS if words in problem), "see whether it runs, and the way to it")
