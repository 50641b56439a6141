"""What is wrong with the source: one step after the other, each with its remedy, up to the first that fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

from reconciler.agent.pulling import Puller
from reconciler.errors import FetchError, VectlError
from reconciler.kernel import git_probe
from reconciler.kernel.git_remote import Remote
from reconciler.manifests.load import load_fleet
from reconciler.model.commit import TrustState, short
from reconciler.model.probe import Level, Probe
from reconciler.model.seam import Clock
from reconciler.sources.directory import DirectorySource
from reconciler.sources.snapshot import Snapshot
from reconciler.state import trust
from reconciler.state.config import Config
from reconciler.state.location import DirectoryLocation, GitLocation

_SECRETS = ("ssh_key", "credentials", "webhook_secret")
_PATHS = {"ssh_key": "sshKey", "known_hosts": "knownHosts", "ca": "ca", "credentials": "credentials"}
_PATHS |= {"webhook_secret": "webhookSecret"}
_TREE_STEPS = frozenset({"SubdirMissing", "SourceUnreadable", "SourceTooLarge"})


async def examine(config: Config, in_force: str, *, clock: Clock) -> AsyncIterator[Probe]:
    """Go from the configuration to the manifests; nothing comes after a step that failed.

    ``in_force``: the revision, "" for none.
    Raises: MissingToolError.
    """
    match config.source:
        case None:
            remedy = f"set `source` in {config.file or '/etc/vectl/config.yaml'}"
            yield Probe(name="configuration", level=Level.FAIL, found="no source is set", remedy=remedy)
        case DirectoryLocation() as location:
            yield Probe(name="configuration", level=Level.OK, found=location.name)
            for probe in _of_snapshot(DirectorySource(location.path, clock=clock).look(), "directory"):
                yield probe
        case GitLocation() as location:
            yield Probe(name="configuration", level=Level.OK, found=location.name)
            async for probe in _until_failure(_repository(config, location, in_force, clock)):
                yield probe


async def _until_failure(probes: AsyncIterator[Probe]) -> AsyncIterator[Probe]:
    async for probe in probes:
        yield probe
        if probe.level is Level.FAIL:
            return


async def _repository(config: Config, location: GitLocation, in_force: str, clock: Clock) -> AsyncIterator[Probe]:
    for probe in _files(location):
        yield probe
    puller = Puller(location, config.instance, clock=clock)
    for number, remote in enumerate(puller.remotes):
        async for probe in _until_failure(_remote(remote, location.ref)):
            is_copy = number > 0 and probe.level is Level.FAIL  # only asked while the ones before it are away
            yield _softened(probe) if is_copy else probe
    snapshot = await puller.pull(in_force)
    for probe in _of_snapshot(snapshot, "fetch"):
        yield probe


def _softened(probe: Probe) -> Probe:
    return Probe(name=probe.name, level=Level.WARN, found=probe.found, remedy=probe.remedy)


def _files(location: GitLocation) -> Iterator[Probe]:
    """Look at the files that the configuration names."""
    for field, key in _PATHS.items():
        path = getattr(location, field)
        if path is None:
            continue
        if not os.access(path, os.R_OK):
            yield Probe(
                name=key, level=Level.FAIL, found=f"{path} cannot be read", remedy=f"make it, or change `{key}`"
            )
        elif field in _SECRETS and git_probe.readable_by_others(path):
            remedy = f"use `chown root {path}` and `chmod 600 {path}`"
            yield Probe(name=key, level=Level.WARN, found=f"others than root can read {path}", remedy=remedy)
        else:
            yield Probe(name=key, level=Level.OK, found=path)
    if location.trust is not None:
        yield trust.examine(location.trust)


async def _remote(remote: Remote, ref: str) -> AsyncIterator[Probe]:
    endpoint, proxy = remote.endpoint, git_probe.proxy_of(remote)
    if proxy is not None:
        yield Probe(name="proxy", level=Level.OK, found=f"{remote.shown} is asked through the environment's proxy")
    elif endpoint is not None:
        host, port = endpoint
        try:
            addresses = await asyncio.to_thread(git_probe.resolve, host)
            yield Probe(name="name", level=Level.OK, found=f"{host} is {', '.join(addresses[:4])}")
            await asyncio.to_thread(git_probe.connect, host, port)
            yield Probe(name="connection", level=Level.OK, found=f"{host} port {port} answers")
            if remote.protocol == "https":
                until = await asyncio.to_thread(git_probe.certificate, host, port, remote.ca)
                yield Probe(name="certificate", level=Level.OK, found=f"of {host}, valid until {until}")
        except FetchError as error:
            yield _failed(_step_of(error), error)
            return
    yield await _access(remote, ref)


async def _access(remote: Remote, ref: str) -> Probe:
    is_commit = not ref.startswith("refs/")
    try:
        found = await git_probe.ask(remote, "HEAD" if is_commit else ref)
    except FetchError as error:
        return _failed(_step_of(error), error)
    if found is None and not is_commit:
        remedy = "look at `branch` or `tag` of the source"
        return Probe(name="ref", level=Level.FAIL, found=f"{remote.shown} has no {ref}", remedy=remedy)
    what = "lets us in" if is_commit or found is None else f"has {ref} at {short(found)}"
    return Probe(name="access", level=Level.OK, found=f"{remote.shown} {what}")


def _step_of(error: FetchError) -> str:
    return {
        "AuthenticationFailed": "login",
        "CertificateRefused": "certificate",
        "HostKeyChanged": "host key",
        "HostKeyUnknown": "host key",
        "RefMissing": "ref",
        "RemoteUnreachable": "connection",
        "RepositoryMissing": "repository",
    }.get(error.reason, "access")


def _failed(name: str, error: VectlError) -> Probe:
    found, _, remedy = str(error).partition("; ")
    return Probe(name=name, level=Level.FAIL, found=found, remedy=remedy)


def _of_snapshot(snapshot: Snapshot, fetched_by: str) -> Iterator[Probe]:
    """Tell how far what was read can be used."""
    if snapshot.reason:
        name = "manifests" if snapshot.reason in _TREE_STEPS else fetched_by
        found, _, remedy = snapshot.problem.partition("; ")
        yield Probe(name=name, level=Level.FAIL, found=found, remedy=remedy)
        return
    if snapshot.commit is not None:
        words = f"commit {short(snapshot.commit.id)}: {snapshot.commit.subject}"
        yield Probe(name=fetched_by, level=Level.OK, found=words)
        yield _of_trust(snapshot)
    if snapshot.complete:
        yield _of_manifests(snapshot)


def _of_trust(snapshot: Snapshot) -> Probe:
    told = snapshot.trust
    found, _, remedy = told.message.partition("; ")
    level = Level.OK if told.state is TrustState.TRUSTED else Level.FAIL
    return Probe(name="signatures", level=level, found=f"{told.reason}: {found}", remedy=remedy)


def _of_manifests(snapshot: Snapshot) -> Probe:
    loaded = load_fleet(snapshot.files, revision=snapshot.revision)
    if loaded.fleet is not None:
        found = f"{len(snapshot.files)} files, {len(loaded.fleet.ves)} VEs, {len(loaded.fleet.networks)} networks"
        return Probe(name="manifests", level=Level.OK, found=found)
    first = loaded.findings[0]
    where = f"{first.place.file}:{first.place.line}:{first.place.column}"
    words = f"{where}: {first.message}, the first of {len(loaded.findings)}"
    return Probe(
        name="manifests", level=Level.FAIL, found=words, remedy="`vectl validate` in a clone names all of them"
    )
