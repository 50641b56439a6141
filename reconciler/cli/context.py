"""What every command begins with: the configuration, the manifests of a path, and the last good revision."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from reconciler.model.fleet import Fleet
    from reconciler.sources.snapshot import Snapshot
    from reconciler.state.config import Config


@dataclass(slots=True)
class Globals:
    """The options before the command."""

    config_file: str | None = None
    instance: str | None = None
    state_dir: str | None = None
    run_dir: str | None = None
    host: str | None = None


GLOBALS = Globals()


def load_config(source: str | None = None) -> Config:
    """Load the configuration with the command line over it.

    Raises: ConfigError, UsageError.
    """
    from reconciler.state import config

    overrides = config.Overrides(
        instance=GLOBALS.instance,
        state_dir=GLOBALS.state_dir,
        run_dir=GLOBALS.run_dir,
        host=GLOBALS.host,
        source=source,
    )
    return config.load_config(GLOBALS.config_file, overrides, environment=os.environ)


def need_root() -> None:
    """Refuse to go on without root.

    Raises: UsageError.
    """
    if os.geteuid() != 0:
        raise UsageError(
            "look at this host: expected root; use sudo, or a command that needs no host such as `validate`"
        )


def read_path(path: str) -> Snapshot:
    """Read the manifests of a directory, a file, or ``-`` for standard input.

    Raises: UsageError, if there is nothing to read.
    """
    from reconciler.agent.clock import SystemClock
    from reconciler.sources.single import look_once

    snapshot = look_once(path, stdin=sys.stdin.buffer, clock=SystemClock())
    if not snapshot.complete:
        raise UsageError(f"read {path}: {snapshot.problem}")
    return snapshot


def load_fleet(path: str) -> Fleet:
    """Load the manifests of a path; what is wrong with them is printed.

    Raises: ManifestError.
    """
    from reconciler.cli import output
    from reconciler.manifests.load import load_fleet as load
    from reconciler.manifests.report import render_findings

    snapshot = read_path(path)
    loaded = load(snapshot.files, revision=snapshot.revision)
    if loaded.fleet is None:
        sys.stderr.write(render_findings(loaded.findings, color=output.has_color(sys.stderr)))
        raise ManifestError(f"load {path}: {len(loaded.findings)} mistakes in it")
    return loaded.fleet


def source_of(path: str) -> str:
    """Give the name under which the VEs of a path are recorded."""
    from reconciler.agent.service import source_name
    from reconciler.state.config import DirectoryLocation

    return "stdin" if path == "-" else source_name(DirectoryLocation(path=path))


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
