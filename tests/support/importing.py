"""Imports as tests make them: the files of a case in, manifests and the account out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.importing.incus import convert as incus
from reconciler.importing.openvz import convert as openvz
from reconciler.importing.proxmox import convert as proxmox
from reconciler.importing.report import told_lines
from reconciler.importing.result import Import, Result

CASES = Path(__file__).parents[1] / "cases" / "import"


def files_of(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, by their names below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def imported(system: str, files: Mapping[str, bytes], *, beside: Mapping[str, bytes] | None = None) -> Result:
    """Import files, as the command does that reads them."""
    run = Import(system=system)
    match system:
        case "openvz":
            _openvz(files, run)
        case "proxmox":
            proxmox.convert(files, run)
        case "incus":
            incus.convert(files, run)
        case _:
            raise AssertionError(system)
    return run.finish(beside or {})


def _openvz(files: Mapping[str, bytes], run: Import) -> None:
    configs = {name: data for name, data in files.items() if name.endswith((".conf", ".conf-sample"))}
    common = configs.pop("vz.conf", None)
    scripts = [name for name in files if not name.endswith((".conf", ".conf-sample"))]
    name = "" if common is None else "vz.conf"
    given = openvz.Given(files=configs, global_file=name, global_data=common or b"", scripts=scripts)
    openvz.convert(given, run)


def golden(result: Result) -> dict[str, bytes]:
    """Give all that a case is compared by: the manifests, and what people are told."""
    entries = result.ledger.ordered()
    every = [
        f"{entry.setting.file}:{entry.setting.line} {entry.outcome.value:8}{entry.setting.key} {entry.path}".rstrip()
        for entry in entries
    ]
    told = list(told_lines(entries))
    return {**result.files, "report.txt": "".join(f"{line}\n" for line in [*told, "", *every]).encode()}
