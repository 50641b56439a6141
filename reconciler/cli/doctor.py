"""`doctor`: can this host hold VEs?"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import context, output
from reconciler.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.model.probe import Probe
    from reconciler.state.config import Config

_STYLES = {"OK": "good", "WARN": "warn", "FAIL": "bad"}
_INDENT = " " * 7


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def doctor(form: Annotated[Format, typer.Option("--output", "-o", help="The format.")] = Format.TEXT) -> int:
    """Examine this host; say what is missing and how to get it.

    Exits with 1 if no VE can run.
    """
    from reconciler.model.probe import Level

    config = context.load_config()
    found = []
    for probe in _examine(config):
        found.append(probe)
        if form is Format.TEXT:
            mark = output.paint(f"{probe.level.value:4}", _STYLES[probe.level])
            output.data(f"{mark}   {output.one_line(f'{probe.name}: {probe.found}')}")
            if probe.remedy:
                output.data(f"{_INDENT}{output.one_line(probe.remedy)}")
    failed = any(probe.level is Level.FAIL for probe in found)
    if form is Format.JSON:
        output.document({"format": 1, "ok": not failed, "probes": [probe.to_json() for probe in found]})
    return int(ExitCode.ERROR if failed else ExitCode.OK)


def _examine(config: Config) -> Iterator[Probe]:
    from reconciler.host import probes
    from reconciler.state import policy, trust
    from reconciler.state.location import GitLocation

    yield from probes.examine(config.instance)
    yield policy.examine(config.policy)
    if isinstance(config.source, GitLocation):
        yield trust.examine(config.source.trust)
    if config.etcd is not None:
        import asyncio

        from reconciler.fleet import examining

        yield from asyncio.run(examining.examine(config.etcd))
