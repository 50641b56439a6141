"""Starting an OCI runtime or a restore so that what it makes lives in a mount namespace of its own.

The root file system is mounted only there: the host's mount table never shows it, and it goes when its last process
does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from reconciler.kernel import child, daemon, mount, overlay
from reconciler.kernel.overlay import OverlayMount


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """What to run. ``output``: a file for what it prints; None throws it away, as init inherits it.

    CRIU cannot dump a process that holds a file of the host: so what creates a VE has no output.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    overlay: OverlayMount | None
    output: str | None = None


def launch(spec: LaunchSpec) -> NoReturn:
    """Become the command, in a forked child with one thread.

    Raises: KernelError.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    child.replace_stdio(output=spec.output)
    mount.enter_private_namespace()
    if spec.overlay is not None:
        overlay.mount_overlay(spec.overlay)
    child.execute(spec.argv, spec.env)


def serve(argv: tuple[str, ...], env: Mapping[str, str], *, output: str) -> NoReturn:
    """Become a program of the host that serves until it is told to end, in a forked child with one thread.

    Raises: KernelError; NotExecutedError.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    child.replace_stdio(output=output)
    daemon.protect_from_oom()
    child.execute(argv, env)
