"""Trees: the root file system that a template's source stands for, in an empty directory, whatever the kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from reconciler.errors import CommandError, NoSpaceError, TemplateError
from reconciler.host.lxcfs import TARGETS
from reconciler.kernel import busybox, command, profile
from reconciler.model.volume import (
    BuiltinSource,
    DebootstrapSource,
    ImageSource,
    OciSource,
    SimplestreamsSource,
    TarballSource,
    TemplateSource,
    TemplateSpec,
)

BUILD_S = 1800.0
"""How long each step of a build may take. Units: seconds."""

DIRECTORIES = ("/sys/fs/cgroup",)
"""Of a template, over which the runtime mounts, beside those that every tree has."""

_COMPLAINTS = ("E: ", "W: Failed")
_COMPLAINTS_SHOWN = 2
_DEBIAN_PACKAGES = ("systemd-sysv", "dbus", "iproute2", "iputils-ping", "procps", "ca-certificates")
_DEBIAN_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a template is built. ``tree``: an empty directory; ``scratch``: one for what is removed in the end.

    ``told`` hears of each step, ``progress`` how it gets on.
    """

    tree: str
    scratch: str
    programs: str
    told: Callable[[str], None]
    progress: Callable[[str], None]


def build(template: TemplateSpec, place: Place) -> int:
    """Build a template's tree, ready to run as a VE; give the time of its newest content.

    Units: seconds since 1970.
    Raises: TemplateError; DownloadError; CommandError; MissingToolError; NoSpaceError; TimeLimitError; KernelError.
    """
    newest = _fill(template.source, template.name, place)
    profile.apply(place.tree, init=template.init[0], directories=DIRECTORIES, files=TARGETS)
    return newest


def _fill(source: TemplateSource, name: str, place: Place) -> int:
    match source:
        case BuiltinSource(name="busybox"):
            busybox.build_tree(place.tree, programs=place.programs)
            return 0
        case BuiltinSource():
            raise TemplateError(f"build template {name}: there is no built-in {source.name!r}; try 'busybox'")
        case DebootstrapSource():
            return _debootstrap(source, place)
        case TarballSource() | OciSource() | SimplestreamsSource():
            from reconciler.host import archives  # brings HTTP, TLS and tar, which the agents of most hosts never need

            return archives.unpack_tree(source, place)
        case ImageSource():
            raise TemplateError(f"build template {name}: its image {source.digest} is not on this host; bring it here")
        case _:
            assert_never(source)


def _debootstrap(source: DebootstrapSource, place: Place) -> int:
    """Build a Debian tree from the host's own package sources, or from the mirror that the manifest names.

    Source: mmdebstrap(1).
    """
    packages = ",".join((*_DEBIAN_PACKAGES, *source.packages))
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _DEBIAN_EXCLUDED]
    argv = ["mmdebstrap", "--quiet", f"--variant={source.variant}", "--mode=root", f"--include={packages}", *excluded]
    argv += ["--", source.suite, place.tree]  # what comes from a manifest is no option: some of them run commands
    sources = [source.mirror] if source.mirror else _sources(source.suite)
    place.told(f"installing {source.suite}, which takes a minute or more")
    _run_mmdebstrap([*argv, *sources], source.suite)
    # Compiled files are valid as long as their sources have the time that the packages gave them.
    return int(os.stat(f"{place.tree}/var/lib/dpkg/status").st_mtime)


def _run_mmdebstrap(argv: Sequence[str], suite: str) -> None:
    try:
        command.run(argv, timeout_s=BUILD_S, env={"SOURCE_DATE_EPOCH": "0"})
    except CommandError as err:
        lines = [line for line in err.output.splitlines() if line.startswith(_COMPLAINTS)]
        if any("No space left" in line for line in err.output.splitlines()):
            raise NoSpaceError(f"install {suite}: no space left on the disk") from err
        said = "; ".join(line.split(" ", 1)[1] for line in lines[:_COMPLAINTS_SHOWN]) or str(err)
        raise CommandError(f"install {suite}: {said}", status=err.status, output=err.output) from err


def _sources(suite: str) -> list[str]:
    """Derive the package source of another suite from the host's own configuration, in apt's one-line form.

    Raises: TemplateError, if the host has no source of main to derive it from; MissingToolError; CommandError.
    Source: apt-get(8), indextargets.
    """
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(SITE)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)",
        "Created-By: Packages",
    ]
    lines = command.run(asked, timeout_s=30.0).splitlines()
    for site, release, component, signed_by in (line.split("|") for line in lines if line.count("|") == 3):
        if component == "main" and "security" not in release and "security" not in site:
            option = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            return [f"deb {option}{site} {suite} main"]
    raise TemplateError(f"build a template of {suite}: apt has no source of main to derive it from; name a mirror")
