"""Claims about a host among others: whom it believes and where it listens follows the revision in force."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.agent import service
from reconciler.agent.peering import Greeter, Peering, serve_peers
from reconciler.errors import PeerError, RefusedError
from reconciler.fleet import host_key
from reconciler.model.etcd import EtcdAddress
from reconciler.model.fleet import Fleet, HostSpec
from reconciler.model.identity import HostName
from reconciler.model.public_key import PublicLine
from reconciler.model.version import VERSION
from reconciler.state.config import Config, Overrides, parse_config
from reconciler.state.transport import Transport
from tests.support.peers import LOOPBACK, A, B, giving

ROOT = Path(__file__).parents[3]


class _Site:
    """A host with a directory of its own, and a revision that it is given."""

    def __init__(self, directory: Path, name: HostName) -> None:
        self.config = parse_config(b"", file="c.yaml", overrides=Overrides(host=name, state_dir=str(directory / name)))
        self.fleet = Fleet(revision="")
        self.peering = Peering(self.config, lambda: self.fleet)
        self.key_file = self.config.transport.key_file(self.config.instance)

    def line(self) -> PublicLine:
        return host_key.make_key(self.key_file).public

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.peering.listen(Greeter(self.config)))
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await self.peering.peers.close()


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def _fleet(revision: str, *hosts: HostSpec) -> Fleet:
    return Fleet(revision=revision, hosts={host.name: host for host in hosts})


def _spec(site: _Site, port: int) -> HostSpec:
    return HostSpec(name=site.config.instance.host, address=LOOPBACK, port=port, public_key=site.line())


async def _hears(one: _Site, host: HostName) -> dict[str, object]:
    """Ask until it listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                return dict(await one.peering.peers.ask(host, {"ask": "hello"}))
            except PeerError:
                await asyncio.sleep(0.05)


def test_hosts_of_one_revision_find_each_other_without_more_configuration(tmp_path: Path) -> None:
    async def talk() -> None:
        one, other = _Site(tmp_path, A), _Site(tmp_path, B)
        one.fleet = other.fleet = _fleet("1", _spec(one, 1), _spec(other, _free_port()))
        async with other.listening():
            assert await _hears(one, B) == {"host": B, "version": VERSION}
            with pytest.raises(RefusedError, match="expected hello"):
                await one.peering.peers.ask(B, {"ask": "offer"})
            with pytest.raises(RefusedError, match="takes nothing"):
                await one.peering.peers.ship(B, {}, giving(b"x"))

    asyncio.run(talk())


def test_the_listener_moves_with_the_manifest(tmp_path: Path) -> None:
    async def talk() -> None:
        one, other = _Site(tmp_path, A), _Site(tmp_path, B)
        one.fleet = other.fleet = _fleet("1", _spec(one, 1), _spec(other, _free_port()))
        async with other.listening():
            await _hears(one, B)
            one.fleet = other.fleet = _fleet("2", _spec(one, 1), _spec(other, _free_port()))
            await _hears(one, B)

    asyncio.run(talk())


def test_a_host_that_the_revision_no_longer_names_is_not_talked_to(tmp_path: Path) -> None:
    async def talk() -> None:
        one, other = _Site(tmp_path, A), _Site(tmp_path, B)
        one.fleet = other.fleet = _fleet("1", _spec(one, 1), _spec(other, _free_port()))
        async with other.listening():
            await _hears(one, B)
            other.fleet = _fleet("2", other.fleet.hosts[B])
            with pytest.raises(PeerError, match="does not let this host in"):
                await one.peering.peers.ask(B, {"ask": "hello"})

    asyncio.run(talk())


def test_the_next_key_is_used_as_soon_as_the_revision_in_force_pins_it(tmp_path: Path) -> None:
    async def talk() -> None:
        one, other = _Site(tmp_path, A), _Site(tmp_path, B)
        one.fleet = other.fleet = _fleet("1", _spec(one, 1), _spec(other, _free_port()))
        async with other.listening():
            await _hears(one, B)
            following = host_key.make_key(host_key.next_path(one.key_file)).public
            assert await _hears(one, B)
            renewed = replace(one.fleet.hosts[A], public_key=following)
            one.fleet = other.fleet = _fleet("2", renewed, other.fleet.hosts[B])
            assert await _hears(one, B)
            assert one.peering.circle().key.public == following

    asyncio.run(talk())


def test_a_revision_that_changes_no_host_changes_nothing(tmp_path: Path) -> None:
    one = _Site(tmp_path, A)
    one.fleet = _fleet("1", _spec(one, 1))
    circle = one.peering.circle()
    one.fleet = _fleet("2", _spec(one, 1))
    assert one.peering.circle() is circle


def test_a_host_without_address_and_key_is_no_peer(tmp_path: Path) -> None:
    one = _Site(tmp_path, A)
    one.fleet = _fleet("1", HostSpec(name=B, address="192.0.2.1"), HostSpec(name=HostName("c"), public_key=one.line()))
    assert one.peering.circle().fellows == {}


def test_what_the_configuration_says_is_listened_at_whatever_the_manifest_says(tmp_path: Path) -> None:
    one = _Site(tmp_path, A)
    assert one.peering._place() is None
    config = replace(one.config, transport=Transport(listen="[::1]:7444"))
    assert Peering(config, lambda: one.fleet)._place() == ("::1", 7444)


def test_an_agent_listens_to_others_where_a_coordinator_is_configured_and_nowhere_else(tmp_path: Path) -> None:
    config = Config(instance=_Site(tmp_path, A).config.instance)
    assert service._of_a_fleet(config) == ()
    assert serve_peers in service._of_a_fleet(replace(config, etcd=EtcdAddress(endpoints=("https://a",))))


def test_an_agent_that_is_alone_loads_nothing_of_a_fleet() -> None:
    script = "import sys, reconciler.agent.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "reconciler.agent.service" in loaded
    assert not {name for name in loaded if name.startswith(("reconciler.fleet.peers", "reconciler.fleet.listener"))}
    assert loaded.isdisjoint({"reconciler.fleet.tls", "reconciler.agent.peering", "cryptography"})


def _vectl(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "reconciler.cli.entry",
        "--state-dir",
        str(tmp_path),
        "--host",
        "node-a",
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_command_prints_the_line_for_the_manifest_and_keeps_the_key_until_then(
    tmp_path: Path,
) -> None:
    present, rotated = _vectl(tmp_path, "host", "key"), _vectl(tmp_path, "host", "key", "--rotate")
    key, path = host_key.read_key(str(tmp_path / "host.key")), host_key.next_path(str(tmp_path / "host.key"))
    following = host_key.read_key(path)
    assert key is not None
    assert following is not None
    assert present.stdout == f"{key.public} node-a\n"
    assert "spec.publicKey of Host node-a" in present.stderr
    assert rotated.stdout == f"{following.public} node-a\n"
    assert "the present key stays in use until" in rotated.stderr
    shown = json.loads(_vectl(tmp_path, "host", "key", "-o", "json").stdout)
    assert shown == {"format": 1, "host": "node-a", "publicKey": key.public, "next": following.public}


def test_who_asks_the_others_before_there_is_a_revision_is_told_so(tmp_path: Path) -> None:
    done = _vectl(tmp_path, "host", "ping")
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected a revision in force" in done.stderr
