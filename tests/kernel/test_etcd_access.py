"""Over TLS, with a certificate and a password, as a fleet should have it; and what is told where that fails."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.errors import CoordinatorAwayError
from reconciler.fleet.etcd import EtcdStore
from reconciler.fleet.examining import examine
from reconciler.model.etcd import EtcdAddress
from reconciler.model.kv import Put, Unchanged
from reconciler.model.probe import Level
from tests.support.etcd import EtcdCluster, etcd, protect
from tests.support.patience import PATIENCE
from tests.support.pki import Authority

_LIMIT_S = 60.0 * PATIENCE
_PASSWORD = "correct horse"
KEY = "/vectl/default/format"


@dataclass(frozen=True)
class _Guarded:
    """A cluster that asks for everything, and how its host gets in."""

    cluster: EtcdCluster
    authority: Authority
    address: EtcdAddress


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Guarded]:
    directory = tmp_path_factory.mktemp("etcd")
    authority = Authority(directory / "pki")
    host = authority.issue("host")
    with etcd(directory / "members", tls=authority, arguments=["--auth-token-ttl", "2"]) as cluster:
        address = EtcdAddress(
            endpoints=cluster.endpoints,
            ca=authority.ca,
            cert=host.cert,
            key=host.key,
            username="node-a",
            password_file=_secret(directory / "password", _PASSWORD),
        )
        asyncio.run(protect(address, password=_PASSWORD))
        yield _Guarded(cluster, authority, address)


def _secret(path: Path, text: str) -> str:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


def _with(address: EtcdAddress, use: Callable[[EtcdStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = EtcdStore(address)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await use(store)
        finally:
            store.close()

    asyncio.run(main())


def test_who_has_certificate_and_password_reads_and_writes(guarded: _Guarded) -> None:
    async def use(store: EtcdStore) -> None:
        await store.transact([], [Put(key=KEY, value=b"1")])
        found = await store.get(KEY)
        assert found is not None
        assert found.value == b"1"
        async for change in store.watch("/vectl/", since=found.modified - 1):
            assert change.pair == found
            break
        assert await store.keep_alive(await store.grant(5))

    _with(guarded.address, use)


def test_nothing_beside_what_was_granted_can_be_read(guarded: _Guarded) -> None:
    async def use(store: EtcdStore) -> None:
        for asked in (store.get("/other"), store.list("/"), store.transact([], [Put(key="/other", value=b"")])):
            with pytest.raises(CoordinatorAwayError, match="permission denied"):
                await asked

    _with(guarded.address, use)


def test_a_token_that_has_ended_is_renewed(guarded: _Guarded) -> None:
    async def use(store: EtcdStore) -> None:
        await store.transact([], [Put(key=KEY, value=b"2")])
        (member,) = guarded.cluster.members
        member.kill()
        member.start()
        await asyncio.to_thread(guarded.cluster.await_health)
        found = await store.get(KEY)
        assert found is not None
        assert await store.transact([Unchanged(key=KEY, modified=found.modified)], [Put(key=KEY, value=b"3")])
        member.kill()
        member.start()
        await asyncio.to_thread(guarded.cluster.await_health)
        async for change in store.watch("/vectl/", since=found.modified):
            assert change.pair is not None
            assert change.pair.value == b"3"
            break

    _with(guarded.address, use)


def test_access_control_may_be_switched_on_while_we_are_at_work(tmp_path: Path) -> None:
    with etcd(tmp_path / "etcd") as cluster:
        file = _secret(tmp_path / "password", _PASSWORD)
        address = EtcdAddress(endpoints=cluster.endpoints, username="node-a", password_file=file)

        async def use(store: EtcdStore) -> None:
            await store.transact([], [Put(key=KEY, value=b"1")])
            await protect(address, password=_PASSWORD)
            assert await store.transact([], [Put(key=KEY, value=b"2")])

        _with(address, use)


def test_a_renewed_password_counts_at_once(guarded: _Guarded, tmp_path: Path) -> None:
    file = tmp_path / "password"
    address = replace(guarded.address, password_file=_secret(file, "wrong"))

    async def use(store: EtcdStore) -> None:
        with pytest.raises(CoordinatorAwayError, match="invalid user ID or password"):
            await store.get(KEY)
        _secret(file, _PASSWORD)
        await store.get(KEY)

    _with(address, use)


@pytest.fixture
def foreign(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "foreign")


def _broken(name: str, guarded: _Guarded, foreign: Authority, directory: Path) -> EtcdAddress:
    named = guarded.authority.issue("named", common_name="node-a")
    stranger = foreign.issue("stranger")
    directory.mkdir()
    (directory / "readable").write_text(_PASSWORD)
    return {
        "authority": replace(guarded.address, ca=foreign.ca),
        "no-authority": replace(guarded.address, ca="/none/ca.pem"),
        "certificate": replace(guarded.address, cert=stranger.cert, key=stranger.key),
        "no-certificate": replace(guarded.address, cert=None, key=None),
        "common-name": replace(guarded.address, cert=named.cert, key=named.key),
        "key": replace(guarded.address, key=stranger.key),
        "password": replace(guarded.address, password_file=_secret(directory / "wrong", "wrong")),
        "readable": replace(guarded.address, password_file=str(directory / "readable")),
        "no-user": replace(guarded.address, username=None, password_file=None),
        "plain": replace(guarded.address, endpoints=(guarded.address.endpoints[0].replace("https", "http"),)),
    }[name]


@pytest.mark.parametrize(
    ("name", "told", "remedy"),
    [
        pytest.param("authority", "certificate is not to be believed", "see `ca`", id="authority"),
        pytest.param("no-authority", "read /none/ca.pem: expected certificates", "see `ca`", id="no-authority"),
        pytest.param("certificate", "it refuses our certificate", "see `cert` and `key`", id="certificate"),
        pytest.param("no-certificate", "it refuses our certificate", "see `cert` and `key`", id="no-certificate"),
        pytest.param("common-name", "CommonName of client", "without a common name", id="common-name"),
        pytest.param("key", "expected a certificate and its key", "see `cert` and `key`", id="key"),
        pytest.param("password", "invalid user ID or password", "see `username` and `passwordFile`", id="password"),
        pytest.param("readable", "only root may read", "see `username` and `passwordFile`", id="readable"),
        pytest.param("no-user", "permission denied", "name a user", id="no-user"),
        pytest.param("plain", "closed the connection", "http or https", id="plain"),
    ],
)
def test_what_keeps_us_out_is_named_and_nothing_is_done(
    guarded: _Guarded, foreign: Authority, tmp_path: Path, name: str, told: str, remedy: str
) -> None:
    address = _broken(name, guarded, foreign, tmp_path / "broken")

    async def use(store: EtcdStore) -> None:
        with pytest.raises(CoordinatorAwayError) as caught:
            await store.transact([], [Put(key=KEY, value=b"never")])
        assert told in str(caught.value)
        member, whole = await examine(address)
        assert (member.level, whole.level) == (Level.WARN, Level.FAIL)
        assert told in member.found
        assert remedy in member.remedy

    _with(address, use)


def test_a_cluster_that_is_well_is_called_so(guarded: _Guarded) -> None:
    member, whole = asyncio.run(examine(guarded.address))
    assert whole.level is Level.OK, (member, whole)
    assert re.match(r"etcd 3\.\d+\.\d+, a read took \d+ ms", member.found)
    assert "1 of 1 endpoints answer for a quorum" in whole.found


def test_the_doctor_asks_the_coordinator_of_the_configuration(guarded: _Guarded, tmp_path: Path) -> None:
    address = guarded.address
    told = {"endpoints": [*address.endpoints], "ca": address.ca, "cert": address.cert, "key": address.key}
    told |= {"username": address.username, "passwordFile": address.password_file}
    settings = {"host": "node-a", "stateDir": f"{tmp_path}/state", "coordinator": {"etcd": told}}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    argv = [sys.executable, "-m", "reconciler.cli.entry", "--config", f"{tmp_path}/config.yaml", "doctor", "-o", "json"]
    said = subprocess.run(argv, stdout=subprocess.PIPE, check=False, timeout=_LIMIT_S)
    probes = json.loads(said.stdout)["probes"]
    levels = {probe["name"]: probe["level"] for probe in probes if probe["name"].startswith("coordinator")}
    assert levels.keys() == {f"coordinator {address.endpoints[0]}", "coordinator"}
    assert levels["coordinator"] == "OK"


def test_the_clock_of_a_member_is_compared_with_ours(guarded: _Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100.0)
    member, whole = asyncio.run(examine(guarded.address))
    assert (member.level, whole.level) == (Level.WARN, Level.OK)
    assert re.match(r"its clock is \d+ s behind this host's", member.found)


def test_a_cluster_that_asks_nobody_is_told_of(tmp_path: Path) -> None:
    with etcd(tmp_path / "etcd") as cluster:
        address = EtcdAddress(endpoints=cluster.endpoints)
        _, whole, access = asyncio.run(examine(address))
        assert (whole.level, access.level) == (Level.OK, Level.WARN)
        assert "whoever reaches it owns the fleet" in access.found
        named = replace(address, username="node-a", password_file=_secret(tmp_path / "password", _PASSWORD))
        *_, access = asyncio.run(examine(named))
        assert "user node-a included" in access.found


def test_endpoints_of_two_clusters_are_refused(tmp_path: Path) -> None:
    with etcd(tmp_path / "a") as one, etcd(tmp_path / "b") as other:
        *_, whole, _ = asyncio.run(examine(EtcdAddress(endpoints=(*one.endpoints, *other.endpoints))))
    assert (whole.level, "2 clusters" in whole.found) == (Level.FAIL, True)
