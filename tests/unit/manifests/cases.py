"""The cases of tests/cases/manifests: files with what is expected of them in comments at their top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings

from reconciler.manifests import report
from reconciler.manifests.load import Loaded, load_fleet

_FOLDER = Path(__file__).parents[2] / "cases" / "manifests"


@dataclass(frozen=True, slots=True)
class Case:
    """``expected``: of a bad case the findings as they are printed, of a good one expressions that hold."""

    file: str
    data: bytes
    expected: tuple[str, ...]

    def load(self) -> Loaded:
        return load_fleet({self.file: self.data}, revision="r1")


def cases(folder: str, mark: str) -> list[Case]:
    """Read the cases of a folder, whose lines of expectation begin with a mark."""
    found = []
    for path in sorted((_FOLDER / folder).glob("*.yaml")):
        data = path.read_bytes()
        lines = data.decode("utf-8").split("\n")
        expected = tuple(line.removeprefix(mark).strip() for line in lines if line.startswith(mark))
        found.append(Case(path.name, data, expected))
    return found


PATIENT = settings(deadline=None, derandomize=True, database=None)
"""Of property tests: the machine may be busy, and a run is like the one before."""

GOOD = cases("good", "#=")
BAD = cases("bad", "#!")


def headlines(loaded: Loaded) -> tuple[str, ...]:
    """Give the first line of each finding as it is printed."""
    return tuple(report.render_findings([finding], color=False).split("\n", 1)[0] for finding in loaded.findings)


def load_text(*documents: str) -> Loaded:
    """Load documents that lack the version, as one file."""
    text = "---\n".join(f"apiVersion: ve/v1\n{document.strip()}\n" for document in documents)
    return load_fleet({"f.yaml": text.encode()}, revision="r1")
