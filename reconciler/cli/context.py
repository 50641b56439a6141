"""What every command begins with: the configuration, the manifests of a path, and the last good revision."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from reconciler.errors import ManifestError, StateError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.session import Session
    from reconciler.model.fleet import Finding, Fleet
    from reconciler.sources.snapshot import Snapshot
    from reconciler.state.config import Config

_T = TypeVar("_T")


class MistakesError(ManifestError):
    """Manifests are not valid, with all that is wrong with them."""

    kind = ManifestError.__name__

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        shown = "standard input" if name == "-" else name
        super().__init__(f"load {shown}: {counted(len(findings), 'mistake')} in it")
        self.findings = findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """The options before the command."""

    config_file: str | None = None
    instance: str | None = None
    state_dir: str | None = None
    run_dir: str | None = None
    host: str | None = None


def counted(number: int, noun: str) -> str:
    """Give a number of things in words, e.g. ``1 mistake``, ``2 mistakes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_NONE_GIVEN = Globals()
_GIVEN: ContextVar[Globals] = ContextVar("options before the command", default=_NONE_GIVEN)


def give(given: Globals) -> None:
    """Take the options before the command."""
    _GIVEN.set(given)


def given() -> Globals:
    """Give the options before the command."""
    return _GIVEN.get()


def load_config(source: str | None = None) -> Config:
    """Load the configuration with the command line over it.

    Raises: ConfigError, UsageError.
    """
    from reconciler.state import config

    options = given()
    overrides = config.Overrides(
        instance=options.instance,
        state_dir=options.state_dir,
        run_dir=options.run_dir,
        host=options.host,
        source=source,
    )
    return config.load_config(options.config_file, overrides, environment=os.environ)


def run(work: Coroutine[object, object, _T]) -> _T:
    """Run a command's asynchronous part to its end."""
    import asyncio

    return asyncio.run(work)


def need_root() -> None:
    """Refuse to go on without root.

    Raises: UsageError.
    """
    if os.geteuid() != 0:
        raise UsageError(
            "look at this host: expected root; use sudo, or a command that needs no host such as `validate`"
        )


def parse_timeout(text: str) -> float:
    """Parse the value of ``--timeout``: a duration, or a number of seconds. Units: seconds.

    Raises: UsageError.
    """
    from reconciler.model.units import parse_duration

    try:
        return parse_duration(f"{text}s" if text.isdecimal() else text)
    except ValueError as err:
        raise UsageError(f"read --timeout: {err}") from err


def need_ground(config: Config) -> None:
    """Refuse to go on where nothing was ever made.

    Raises: StateError.
    """
    from reconciler.host import ground

    if not ground.has_pool(config.instance):
        raise StateError(f"find {config.instance.name}: this host has nothing of it; `vectl apply` makes it")


def who() -> str:
    """Name the person who asks, for the audit: behind sudo the one who called it."""
    import pwd

    name = os.environ.get("SUDO_USER")
    if name:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def read_path(path: str) -> Snapshot:
    """Read the manifests of a directory, a file, or ``-`` for standard input.

    Raises: UsageError, if there is nothing to read.
    """
    from reconciler.agent.clock import SystemClock
    from reconciler.sources.single import look_once

    snapshot = look_once(path, stdin=sys.stdin.buffer, clock=SystemClock())
    if not snapshot.complete:
        raise UsageError(f"read {path}: {snapshot.problem.removeprefix(f'{path}: ')}")
    return snapshot


def placed(path: str, findings: Iterable[Finding]) -> list[Finding]:
    """Name the files of findings as seen from here, so that an editor, a terminal or a forge finds them."""
    return placed_below(path, findings) if os.path.isdir(path) else list(findings)


def placed_below(directory: str, findings: Iterable[Finding]) -> list[Finding]:
    """Name the files of findings with the directory that they are in."""
    return [_below(directory, finding) for finding in findings]


def _below(directory: str, finding: Finding) -> Finding:
    from dataclasses import replace

    file = os.path.normpath(os.path.join(directory, finding.place.file))
    return replace(finding, place=replace(finding.place, file=file))


def load_fleet(path: str) -> tuple[Fleet, Mapping[str, bytes]]:
    """Load the manifests of a path, with the files that they are in.

    Raises: MistakesError; UsageError.
    """
    snapshot = read_path(path)
    return parse_fleet(path, snapshot.files, snapshot.revision), snapshot.files


def parse_fleet(name: str, files: Mapping[str, bytes], revision: str) -> Fleet:
    """Parse manifests that were read. ``name``: of the source, for the error.

    Raises: MistakesError.
    """
    from reconciler.manifests.load import load_fleet as load

    loaded = load(files, revision=revision)
    if loaded.fleet is None:
        raise MistakesError(name, placed(name, loaded.findings))
    return loaded.fleet


def source_of(path: str) -> str:
    """Give the name under which the VEs of a path are recorded."""
    from reconciler.state.location import DirectoryLocation

    return "stdin" if path == "-" else DirectoryLocation(path=path).name


def last_good(config: Config) -> tuple[str, Fleet | None]:
    """Give the source and the fleet of the last good revision; the fleet is None if there never was one.

    Raises: StateError, KernelError.
    """
    from reconciler.manifests.load import load_fleet as load
    from reconciler.state.lastgood import LastGood

    kept = LastGood(config.instance.state_dir).read()
    if kept is None:
        return "", None
    return kept.source, load(kept.files, revision=kept.revision).fleet


def is_shut(config: Config) -> bool:
    """Say whether this host is under maintenance by the last good revision, without parsing all of it.

    Raises: StateError, KernelError.
    """
    from reconciler.manifests.shut import under_maintenance
    from reconciler.state.lastgood import LastGood

    kept = LastGood(config.instance.state_dir).read()
    return kept is not None and config.instance.host in under_maintenance(kept.files)


def revision_in_force(config: Config) -> str:
    """Name the last good revision without parsing it; empty, if there never was one.

    Raises: StateError, KernelError.
    """
    from reconciler.state.lastgood import LastGood

    kept = LastGood(config.instance.state_dir).read()
    return "" if kept is None else kept.revision


@asynccontextmanager
async def looking(config: Config, *, with_fleet: bool = True) -> AsyncIterator[Session]:
    """Open a session for looking, with the last good revision as the fleet, whose parsing takes most of the time.

    Raises: StateError, if nothing was ever made; MissingToolError, if the pool is not mounted; VectlError.
    """
    from reconciler.agent.session import NO_FLEET, look_session

    need_ground(config)
    source, fleet = last_good(config) if with_fleet else ("", None)
    async with look_session(config, source=source, fleet=fleet or NO_FLEET) as session:
        yield session
