"""What people reviewed of a source and is not known to be done yet, and the manifests that were reviewed and done."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.action import Impact, Operation
from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.plan.review import Deed, Ledger, Step
from reconciler.state.document import Document
from reconciler.state.lastgood import LastGood

_FORMAT = 1
_REMEDY = "remove it: then nothing counts as reviewed, and `vectl approve` starts anew"
_BY_WORD = {impact.word: impact for impact in Impact}


class Reviews:
    """The ledger in one file, and beside it manifests: ``done``, of its base; ``reviewed``, the newest of which nothing
    was open.
    """

    __slots__ = ("_document", "_known", "done", "reviewed")

    def __init__(self, state_dir: str) -> None:
        self._document = Document(path=f"{state_dir}/reviews.json", format=_FORMAT, remedy=_REMEDY)
        self.done = LastGood(state_dir, name="reviewed-and-done")
        self.reviewed = LastGood(state_dir, name="reviewed")
        self._known: Ledger | None = None

    def read(self) -> Ledger:
        """Read the ledger; an empty one, if nothing was ever reviewed.

        Raises: StateError, KernelError.
        """
        if self._known is None:
            fields = self._document.read()
            self._known = Ledger() if fields is None else _ledger(fields)
        return self._known

    def put(self, ledger: Ledger) -> None:
        """Replace the ledger, durably, if anything differs.

        Raises: StateError, KernelError, NoSpaceError.
        """
        if ledger == self.read():
            return
        self._document.write(_to_json(ledger))
        self._known = ledger


def _to_json(ledger: Ledger) -> dict[str, Json]:
    return {
        "source": ledger.source,
        "base": ledger.base,
        "head": ledger.head,
        "steps": [_step_to_json(step) for step in ledger.steps],
        "whole": _step_to_json(ledger.whole),
        "settled": _deeds_to_json(ledger.settled),
    }


def _step_to_json(step: Step) -> dict[str, Json]:
    return {
        "revision": step.revision,
        "hash": step.hash,
        "hashes": dict(step.hashes),
        "deeds": _deeds_to_json(step.deeds),
        "open": [*sorted(step.open)],
    }


def _deeds_to_json(deeds: Mapping[str, tuple[Deed, ...]]) -> dict[str, Json]:
    return {name: [_deed_to_json(deed) for deed in found] for name, found in sorted(deeds.items())}


def _deed_to_json(deed: Deed) -> Json:
    return {"op": deed.op.value, "path": deed.path, "after": deed.after, "impact": deed.impact.word}


def _ledger(fields: Fields) -> Ledger:
    ledger = Ledger(
        source=fields.text("source"),
        base=fields.text("base"),
        head=fields.text("head"),
        steps=tuple(map(_step, fields.objects("steps"))),
        whole=_step(fields.fields("whole")),
        settled=_deeds(fields.fields("settled")),
    )
    fields.end()
    return ledger


def _step(fields: Fields) -> Step:
    step = Step(
        revision=fields.text("revision"),
        hash=fields.text("hash"),
        hashes=fields.strings("hashes"),
        deeds=_deeds(fields.fields("deeds")),
        open=frozenset(fields.texts("open")),
    )
    fields.end()
    return step


def _deeds(fields: Fields) -> dict[str, tuple[Deed, ...]]:
    return {name: tuple(map(_deed, fields.objects(name))) for name in fields.names()}


def _deed(fields: Fields) -> Deed:
    deed = Deed(
        op=fields.word("op", Operation),
        path=fields.text("path"),
        after=fields.json("after"),
        impact=_impact(fields.text("impact"), fields),
    )
    fields.end()
    return deed


def _impact(word: str, fields: Fields) -> Impact:
    found = _BY_WORD.get(word)
    if found is None:
        raise fields.error(f"expected an impact, got {word!r}")
    return found
