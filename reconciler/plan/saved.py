"""A plan on paper: written by `vectl plan --out`, carried out later as far as nothing that it touches has changed.

Staleness is judged VE by VE, by a fingerprint of the observed values that the plan touches. Effects are not saved:
they are planned anew from the saved manifests, and what the paper does not hold is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Operation, Plan, Refusal
from reconciler.model.decode import Fields, parse_object, render_object
from reconciler.model.facts import Json
from reconciler.plan import render
from reconciler.plan.hashes import canonical

_REMEDY = "make the plan anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """``touched``: (op, path) of a VE's actions, by VE. ``held``: hash by VE of what waited for consent.

    ``files``: the manifests that it was made from. ``source``: the name under which its VEs are recorded.
    """

    host: str
    revision: str
    source: str
    prune: bool
    files: Mapping[str, bytes]
    touched: Mapping[str, frozenset[tuple[str, str]]]
    fingerprints: Mapping[str, str]
    held: Mapping[str, str]


def encode(plan: Plan, *, source: str, prune: bool, files: Mapping[str, bytes]) -> bytes:
    """Give the text of a saved plan: the JSON of the plan, and beside it what is needed to carry it out."""
    texts: dict[str, Json] = {path: data.decode(errors="surrogateescape") for path, data in sorted(files.items())}
    saved: dict[str, Json] = {
        "source": source,
        "prune": prune,
        "fingerprints": {**fingerprints(plan.actions)},
        "held": {**held(plan)},
        "files": texts,
    }
    body = render.plan_to_json(plan)
    return render_object({**body, "saved": saved}, format=render.PLAN_FORMAT)


def decode(data: bytes, *, where: str) -> Saved:
    """Parse a saved plan; ``where`` is its file, for the error.

    Raises: StateError.
    """
    fields = parse_object(data, format=render.PLAN_FORMAT, where=where, remedy=_REMEDY)
    saved = fields.fields("saved")
    result = Saved(
        host=fields.text("host"),
        revision=fields.text("revision"),
        source=saved.text("source"),
        prune=saved.flag("prune"),
        files={path: text.encode(errors="surrogateescape") for path, text in saved.strings("files").items()},
        touched=_touched(fields.objects("actions")),
        fingerprints=saved.strings("fingerprints"),
        held=saved.strings("held"),
    )
    saved.end()
    return result


def _touched(actions: Iterable[Fields]) -> dict[str, frozenset[tuple[str, str]]]:
    touched: dict[str, frozenset[tuple[str, str]]] = {}
    for action in actions:
        ve = action.text("ve")
        touched[ve] = touched.get(ve, frozenset()) | {(action.text("op"), action.text("path"))}
    return touched


def fingerprints(actions: Iterable[Action]) -> dict[str, str]:
    """Hash, VE by VE, the observed values that actions touch."""
    values: dict[str, list[Json]] = {}
    for action in actions:
        if not render.is_bookkeeping(action):
            values.setdefault(action.ve, []).append([action.op.value, action.path, _observed(action)])
    return {
        ve: hashlib.sha256(canonical(sorted(found, key=canonical))).hexdigest() for ve, found in sorted(values.items())
    }


def _observed(action: Action) -> Json:
    """Give the observed value that an action touches; of data in the trash not its age, which grows."""
    return action.uid if action.op is Operation.RESTORE else action.before


def held(plan: Plan) -> dict[str, str]:
    """Give, by VE, the hash of what waits for consent: once it is given, exactly that may be carried out."""
    waiting = {refusal.ve for refusal in plan.refused if refusal.rule in render.CONSENT_RULES}
    return {ve: plan.ve_hashes[ve] for ve in sorted(waiting & plan.ve_hashes.keys())}


def restrict(plan: Plan, saved: Saved) -> Plan:
    """Leave of a plan what a saved one holds too; a VE of which what it touches has changed is refused whole."""
    ours = {
        ve: tuple(action for action in plan.actions if action.ve == ve and _holds(saved, plan, action))
        for ve in {action.ve for action in plan.actions}
    }
    found = fingerprints(action for actions in ours.values() for action in actions if action.ve in saved.fingerprints)
    stale = {ve for ve, fingerprint in saved.fingerprints.items() if found.get(ve) != fingerprint}
    return replace(
        plan,
        actions=tuple(a for a in plan.actions if a in ours[a.ve] and a.ve not in stale),
        refused=(*(r for r in plan.refused if r.ve not in stale), *(_stale(ve) for ve in sorted(stale))),
    )


def _holds(saved: Saved, plan: Plan, action: Action) -> bool:
    if action.ve in saved.held:
        return saved.held[action.ve] == plan.ve_hashes.get(action.ve)
    known = saved.touched.get(action.ve, frozenset())
    return (action.op.value, action.path) in known or (bool(known) and render.is_bookkeeping(action))


def _stale(ve: str) -> Refusal:
    message = "what the plan was made from has changed since"
    return Refusal(ve=ve, rule="StalePlan", message=message, remedy="make the plan anew and review it")
