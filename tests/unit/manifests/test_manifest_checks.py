"""Each check between fields and documents has a case that fails by it, and whose words are stated."""

from __future__ import annotations

import ast
import inspect
import sys
from types import ModuleType

import pytest

from reconciler.manifests import load, resolve
from reconciler.manifests.checks import fleet, network, ve
from reconciler.manifests.document import Complaint, Document
from reconciler.manifests.problem import Path
from tests.unit.manifests.cases import BAD


def _sites(module: ModuleType) -> dict[int, int]:
    """Find the calls of `complain` in a module. Shape: last line by first line."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    found = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "complain"]
    return {node.lineno: node.end_lineno or node.lineno for node in found}


@pytest.mark.parametrize("module", [fleet, network, ve, resolve, load], ids=lambda module: module.__name__)
def test_every_complaint_is_made_by_some_case(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[int] = set()
    original = module.complain

    def complain(document: Document, path: Path, message: str, hint: str = "") -> Complaint:
        met.add(sys._getframe(1).f_lineno)
        complaint: Complaint = original(document, path, message, hint)
        return complaint

    monkeypatch.setattr(module, "complain", complain)
    for case in BAD:
        case.load()
    sites = _sites(module)
    assert sites
    missed = [first for first, last in sites.items() if not met & set(range(first, last + 1))]
    if module is resolve:
        # A merge of valid specs that is not valid has a test of its own: no case can bring it about.
        missed = missed[:-1]
    assert missed == []


CHECKS = [
    (module, name)
    for module in (fleet, network, ve)
    for name, function in inspect.getmembers(module, inspect.isgeneratorfunction)
    if function.__module__ == module.__name__ and "Complaint" in str(function.__annotations__.get("return"))
]


@pytest.mark.parametrize(("module", "name"), CHECKS, ids=lambda value: getattr(value, "__name__", value))
def test_without_a_check_some_case_is_judged_otherwise(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, lambda *_args: iter(()))
    assert any(case.load().findings != expected for case, expected in zip(BAD, _EXPECTED))


_EXPECTED = [case.load().findings for case in BAD]
