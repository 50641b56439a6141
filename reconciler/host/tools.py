"""The programs that a host needs: whether they are there, and new enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.errors import CommandError, MissingToolError, TimeLimitError, VectlError
from reconciler.kernel import busybox, command, criu_program, criu_proof
from reconciler.model.instance import Instance
from reconciler.model.probe import Level, Probe

_ASK_S = 10.0
_PROVE_S = 20.0  # it takes a tenth of a second, and half a minute where a processor is emulated
_WITHOUT_CRIU = "no suspend, no snapshots of memory, no live migration"
_GET_CRIU = "run `make criu`, or set VECTL_LIB"

_RUNC_MENDED = ((1, 2, 8), (1, 3, 3), (1, 4, 0))
"""The first versions of each line without CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881.

Source: runc's security advisories of November 2025.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    """A program, the option by which it tells its version, and what is lost without it ("": everything)."""

    name: str
    option: str = "--version"
    without: str = ""


_TOOLS = (
    _Tool(name="nft"),
    _Tool(name="btrfs"),
    _Tool(name="mkfs.btrfs"),
    _Tool(name="mkfs.erofs", option="-V"),
    _Tool(name="mmdebstrap", without="no templates of Debian can be built"),
    _Tool(name="git", without="manifests cannot come from a git repository"),
    _Tool(name="setquota", option="--version", without="no quota of users and groups inside VEs"),
    _Tool(name="skopeo", without="no templates of OCI images can be built"),
    _Tool(name="umoci", without="no templates of OCI images can be built"),
)


def examine(instance: Instance) -> Iterator[Probe]:
    """Examine the programs: those that an instance is configured to use, in its own directory or in the system's."""
    yield _runtime(instance.runtime)
    for tool in _TOOLS:
        yield _tool(tool)
    yield _busybox(instance.programs)
    yield _criu(instance.programs)


def _ask(program: str, option: str) -> str:
    """Give the first line of what a program says of its version. Some end with a failure and say it all the same.

    Raises: MissingToolError; TimeLimitError.
    """
    try:
        said = command.run([program, option], timeout_s=_ASK_S)
    except CommandError as err:
        said = err.output
    first = said.strip().partition("\n")[0][:80]
    return first if command.parse_version(first) else "there; it does not tell its version"


def _tool(tool: _Tool) -> Probe:
    try:
        return Probe(name=tool.name, level=Level.OK, found=_ask(tool.name, tool.option))
    except MissingToolError as err:
        level = Level.WARN if tool.without else Level.FAIL
        found, _, remedy = str(err).partition("; ")
        return Probe(name=tool.name, level=level, found=f"{found}; {tool.without}".rstrip("; "), remedy=remedy)
    except TimeLimitError as err:
        return Probe(name=tool.name, level=Level.WARN, found=str(err))


def _runtime(runtime: str) -> Probe:
    name = f"runtime {os.path.basename(runtime)}"
    try:
        said = _ask(runtime, "--version")
    except VectlError as err:
        return Probe(name=name, level=Level.FAIL, found=str(err), remedy=f"install {runtime}, or configure another one")
    version = command.parse_version(said)
    if os.path.basename(runtime) == "runc" and not is_mended(version):
        return Probe(
            name=name,
            level=Level.WARN,
            found=f"{said}: without the fixes of November 2025 (CVE-2025-31133, -52565, -52881) unless your "
            "distribution has added them; the user namespace of each VE bounds the damage",
            remedy="install runc 1.2.8, 1.3.3 or newer",
        )
    return Probe(name=name, level=Level.OK, found=said)


def is_mended(version: tuple[int, ...]) -> bool:
    """Say whether a version of runc has the fixes of November 2025."""
    line = next((mended for mended in _RUNC_MENDED if mended[:2] == version[:2]), None)
    return version >= line if line is not None else version > _RUNC_MENDED[-1]


def _busybox(programs: str) -> Probe:
    try:
        path = busybox.find_static_busybox(programs)
    except VectlError as err:
        found, _, remedy = str(err).partition("; ")
        return Probe(name="busybox", level=Level.WARN, found=f"{found}; no template `busybox`", remedy=remedy)
    return Probe(name="busybox", level=Level.OK, found=f"{path}, static")


def _criu(programs: str) -> Probe:
    """Have criu dump and restore a process: what it says of itself is not what it can do on this kernel."""
    try:
        program = criu_program.find(programs)
        proof = criu_proof.prove(program.path, timeout_s=_PROVE_S)
    except VectlError as err:
        found, _, remedy = str(err).partition("; ")
        return Probe(name="criu", level=Level.WARN, found=f"{found}; {_WITHOUT_CRIU}", remedy=remedy or _GET_CRIU)
    took = f"dumped a TCP connection in {proof.dump_s * 1000:.0f} ms, restored it in {proof.restore_s * 1000:.0f} ms"
    return Probe(name="criu", level=Level.OK, found=f"{program.path}, {program.version_text}; {took}")
