"""Results: the files of an import and its report, and the networks and templates that VEs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.importing.draft import Draft
from reconciler.importing.report import FORMAT, Ledger, Outcome, Setting
from reconciler.importing.settle import settle
from reconciler.importing.words import name_of, unique
from reconciler.model.facts import Json

STAND_IN = "busybox"
"""The template of a VE whose own files were not imported: it exists undeclared."""


@dataclass(slots=True, kw_only=True)
class Import:
    """An import under way. ``template``, ``host``: of every VE, where the command line says so."""

    system: str
    template: str = ""
    host: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    drafts: dict[tuple[str, str], Draft] = field(default_factory=dict)

    def add(self, kind: str, wanted: str, *, by: str) -> Draft:
        """Begin a draft under a name of its own."""
        name = name_of(wanted, otherwise=name_of(by, otherwise="ve"))
        if (kind, name) in self.drafts:
            name = unique(name, {other for of, other in self.drafts if of == kind}, by=by)
        return self.drafts.setdefault((kind, name), Draft(kind=kind, name=name))

    def network(self, wanted: str, setting: Setting, why: str, **spec: Json) -> str:
        """Give the name of a network, which is begun if nothing described it."""
        name = name_of(wanted, otherwise="lan")
        if ("Network", name) not in self.drafts:
            draft = self.drafts.setdefault(("Network", name), Draft(kind="Network", name=name, spec=dict(spec)))
            draft.head.append(f"a guess: {why}")
            self.ledger.note(setting, Outcome.GUESSED, why, of=draft.title)
        return name

    def suite(self, suite: str, wanted: str, setting: Setting) -> str:
        """Give the name of a template of a Debian or Ubuntu suite."""
        name = name_of(wanted, otherwise=suite)
        if ("Template", name) not in self.drafts:
            draft = self.drafts.setdefault(("Template", name), Draft(kind="Template", name=name))
            draft.spec["source"] = {"debootstrap": {"suite": suite}}
            why = f"built anew of {suite}: it holds the distribution, and none of the files of those who are on it"
            draft.head.append(f"a guess: {why}")
            self.ledger.note(setting, Outcome.GUESSED, why, of=draft.title)
        return name

    def finish(self, beside: Mapping[str, bytes]) -> Result:
        """Make all drafts valid. Raises: ManifestError."""
        for draft in self.drafts.values():
            if self.host and draft.kind == "VirtualEnvironment":
                draft.put("host", self.host)
        files = settle([*self.drafts.values()], self.ledger, beside=beside)
        kept = [draft for draft in self.drafts.values() if draft.file in files]
        return Result(system=self.system, files=dict(sorted(files.items())), drafts=kept, ledger=self.ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an import gives: files by name, and the account of every key."""

    system: str
    files: Mapping[str, bytes]
    drafts: Sequence[Draft]
    ledger: Ledger

    def to_json(self) -> dict[str, Json]:
        """Give the report for scripts."""
        made = {draft.file: draft for draft in self.drafts}
        return {
            "format": FORMAT,
            "system": self.system,
            "files": [{"file": file, "kind": made[file].kind, "name": made[file].name} for file in self.files],
            "summary": self.ledger.counts(),
            "entries": [entry.to_json() for entry in self.ledger.ordered()],
        }
