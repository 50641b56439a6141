"""The configuration of an instance: a file, the command line over it, and the defaults under both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from reconciler.errors import ConfigError, UsageError
from reconciler.kernel import files
from reconciler.model import units
from reconciler.model.etcd import EtcdAddress
from reconciler.model.fleet import Finding
from reconciler.model.host_risk import DEFAULT_RISK, RiskSettings
from reconciler.model.identity import HostName
from reconciler.model.instance import DEFAULT_LIB, Instance
from reconciler.state import scalars
from reconciler.state.coordinator_address import parse_coordinator
from reconciler.state.location import DirectoryLocation, Location, parse_location
from reconciler.state.notify import Target, parse_notify
from reconciler.state.risk_settings import parse_risk
from reconciler.state.settings import Section, parse_settings, refuse
from reconciler.state.transport import DEFAULT_TRANSPORT, Transport, parse_transport

DEFAULT_FILE = "/etc/vectl/config.yaml"
DEFAULT_POLICY = "/etc/vectl/policy.yaml"
DEFAULT_INSTANCE = "vectl"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """``source`` None: none is configured. ``etcd`` None: the coordinator is local. ``file`` None: there was none.

    Units: fields ending in ``_s`` are seconds, ``trash_days`` days. ``max_restarts``: VEs restarted at once.
    ``workers``: VEs worked on at once. ``listen``: ``address:port`` of the webhook, None for none.
    ``notify``: whom the agent tells what.
    """

    instance: Instance
    source: Location | None = None
    etcd: EtcdAddress | None = None
    transport: Transport = DEFAULT_TRANSPORT
    listen: str | None = None
    notify: tuple[Target, ...] = ()
    policy: str = DEFAULT_POLICY
    resync_s: float = 60.0
    relist_s: float = 5.0
    settle_s: float = 0.3
    prune_delay_s: float = 30.0
    trash_days: int = 7
    max_restarts: int = 1
    workers: int = 4
    risk: RiskSettings = DEFAULT_RISK
    file: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says; None: nothing. ``source`` is the path of a directory."""

    instance: str | None = None
    state_dir: str | None = None
    run_dir: str | None = None
    host: str | None = None
    source: str | None = None


def load_config(path: str | None, overrides: Overrides, *, environment: Mapping[str, str]) -> Config:
    """Load the configuration. ``path``: what ``--config`` says, before VECTL_CONFIG and the default file.

    Only the default file may be missing.

    Raises: ConfigError, naming every mistake with file, line and column; UsageError, for a mistake on the command
    line; KernelError, if the file cannot be read.
    """
    named = path or environment.get("VECTL_CONFIG")
    file = named or DEFAULT_FILE
    data = files.read_bytes_if_exists(file)
    if data is None and named:
        raise ConfigError(f"read {named}: expected a configuration file, found none")
    config = parse_config(data or b"", file=file, overrides=overrides)
    try:
        lib_dir = scalars.absolute_path(environment.get("VECTL_LIB") or DEFAULT_LIB)
    except ValueError as err:
        raise ConfigError(f"read VECTL_LIB: {err}") from err
    return replace(config, instance=replace(config.instance, lib_dir=lib_dir), file=None if data is None else file)


def parse_config(data: bytes, *, file: str, overrides: Overrides) -> Config:
    """Parse the text of a configuration file and lay the command line over it.

    Raises: ConfigError, UsageError.
    """
    findings: list[Finding] = []
    top = Section(parse_settings(data, file=file), findings)
    name = top.value("instance", scalars.instance_name) or DEFAULT_INSTANCE
    host = top.value("host", scalars.host_name)
    config = _parse(top, _parse_instance(top, name, host or HostName("")))
    top.end()
    refuse(findings)
    return _override(config, overrides)


def _parse_instance(top: Section, name: str, host: HostName) -> Instance:
    default = _default_instance(name, host)
    pool = top.section("pool")
    instance = replace(
        default,
        state_dir=top.value("stateDir", scalars.absolute_path) or default.state_dir,
        run_dir=top.value("runDir", scalars.absolute_path) or default.run_dir,
        cgroup=top.value("cgroup", scalars.absolute_path) or default.cgroup,
        runtime=top.value("runtime", scalars.runtime) or default.runtime,
        pool_size=pool.value("size", scalars.pool_size) or default.pool_size,
        pool_path=pool.value("path", scalars.absolute_path),
    )
    pool.end()
    return instance


def _default_instance(name: str, host: HostName) -> Instance:
    return Instance(name=name, host=host, state_dir=f"/var/lib/{name}", run_dir=f"/run/{name}", cgroup=f"/{name}")


def _parse(top: Section, instance: Instance) -> Config:
    default = Config(instance=instance)
    return replace(
        default,
        source=parse_location(top),
        etcd=parse_coordinator(top),
        transport=parse_transport(top),
        listen=top.value("listen", scalars.listen),
        notify=parse_notify(top),
        policy=top.value("policy", scalars.absolute_path) or default.policy,
        resync_s=top.value("resync", scalars.interval) or default.resync_s,
        relist_s=top.value("relist", scalars.interval) or default.relist_s,
        settle_s=_default(top.value("settle", units.parse_duration), default.settle_s),
        prune_delay_s=_default(top.value("pruneDelay", units.parse_duration), default.prune_delay_s),
        trash_days=_default(top.value("trashDays", scalars.count(0, 3650)), default.trash_days),
        max_restarts=top.value("maxRestarts", scalars.count(1, 1000)) or default.max_restarts,
        workers=top.value("workers", scalars.count(1, 64)) or default.workers,
        risk=parse_risk(top),
    )


def _override(config: Config, overrides: Overrides) -> Config:
    name = _given("--instance", overrides.instance, scalars.instance_name)
    if name is not None and name != config.instance.name:
        config = _for_other_instance(config, name)
    instance = config.instance
    host = _given("--host", overrides.host, scalars.host_name) or instance.host or _machine_name()
    instance = replace(
        instance,
        host=host,
        state_dir=_given("--state-dir", overrides.state_dir, _from_here) or instance.state_dir,
        run_dir=_given("--run-dir", overrides.run_dir, _from_here) or instance.run_dir,
    )
    path = _given("--source", overrides.source, _from_here)
    source = config.source if path is None else DirectoryLocation(path=path)
    return replace(config, instance=instance, source=source)


def _for_other_instance(config: Config, name: str) -> Config:
    """Take over what is said of the machine, not what is said of the file's own instance.

    With its directories, its source, its coordinator or its port, two instances would be at work on the same VEs.
    """
    ours = config.instance
    other = replace(_default_instance(name, ours.host), runtime=ours.runtime, pool_size=ours.pool_size)
    aside = replace(config, source=None, etcd=None, transport=DEFAULT_TRANSPORT, listen=None, notify=())
    return replace(aside, instance=other)


def _given(option: str, text: str | None, check: Callable[[str], _T]) -> _T | None:
    try:
        return None if text is None else check(text)
    except ValueError as err:
        raise UsageError(f"read {option}: {err}") from err


def _from_here(text: str) -> str:
    """Resolve a path as a shell user means it; a file of configuration has no such place to start from."""
    return scalars.absolute_path(os.path.abspath(text))


def _machine_name() -> HostName:
    """Derive this host's name in the manifests from the machine's own, which may be a full domain name.

    Source: uname(2), nodename.
    """
    node = os.uname().nodename
    try:
        return scalars.host_name(node.split(".")[0].lower())
    except ValueError as err:
        raise ConfigError(f"name this host: {err}, the machine's name; set 'host' in the configuration") from err


def _default(value: _T | None, default: _T) -> _T:
    """Fall back for an unset value where zero is one that can be set."""
    return default if value is None else value
