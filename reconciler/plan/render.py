"""A plan for people and for programs: text with symbols and words, and the stable JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reconciler.model.action import CONSENT_IMPACTS, Action, Impact, Operation, Origin, Plan, Reason
from reconciler.model.facts import Json
from reconciler.model.units import format_duration
from reconciler.plan.words import printable, value_text

PLAN_FORMAT = 1

CONSENT_RULES = frozenset({"NeedsConsent", "MassRemoval", "PlanChanged"})
"""Rules of refusals that `vectl approve` lifts."""

HASH_SHOWN = 16
"""Digits of a plan's hash that people are shown; `vectl approve` takes any beginning of it that is unique."""

Paint = Callable[[str, str], str]
"""Give a text in a style, one of ``good``, ``warn``, ``bad``, ``dim``, ``strong``."""

SYMBOLS = {
    Operation.CREATE: ("+", "create", "good"),
    Operation.UPDATE: ("~", "change", "warn"),
    Operation.RESTART: ("!", "restart", "bad"),
    Operation.RECREATE: ("-/+", "recreate", "bad"),
    Operation.RESTORE: ("+", "restore", "good"),
    Operation.DESTROY: ("-", "destroy", "bad"),
}


def plan_to_json(plan: Plan) -> dict[str, Json]:
    """Give the stable form of `vectl plan -o json`."""
    return {
        "format": PLAN_FORMAT,
        "host": plan.host,
        "revision": plan.revision,
        "action_hash": plan.action_hash,
        "ve_hashes": dict(plan.ve_hashes),
        "summary": {**summary(plan.actions)},
        "actions": [action.to_json() for action in plan.actions if not is_bookkeeping(action)],
        "refused": [refusal.to_json() for refusal in plan.refused],
        "waiting": dict(plan.waiting),
        "orphans": list(plan.orphans),
        "orphan_snapshots": list(plan.orphan_snapshots),
        "notes": list(plan.notes),
        "unknown": [str(fact) for fact in plan.unknown],
    }


def is_bookkeeping(action: Action) -> bool:
    """Say whether an action only brings a record up to date, which changes nothing that anybody sees."""
    return action.reason is Reason.BOOKKEEPING


def summary(actions: Iterable[Action]) -> dict[str, int]:
    """Count what will happen; a change by drift counts there and not among the updates."""
    counts = dict.fromkeys(("create", "update", "restart", "recreate", "destroy", "restore", "drift"), 0)
    for action in actions:
        if is_bookkeeping(action):
            continue
        drifted = action.origin is Origin.DRIFT
        counts["drift" if drifted else action.op.value] += 1
    return counts


def exit_detail(plan: Plan) -> tuple[bool, bool]:
    """Say whether a plan changes something, and whether something in it waits for consent."""
    changes = any(not is_bookkeeping(action) for action in plan.actions)
    consent = any(refusal.rule in CONSENT_RULES for refusal in plan.refused)
    return changes, consent or any(a.impact in CONSENT_IMPACTS and a.origin is Origin.GIT for a in plan.actions)


def render_text(plan: Plan, *, paint: Paint, verbose: bool = False) -> str:
    """Render a plan for a terminal: dangers first, drift apart from intent, a summary last."""
    shown = [action for action in plan.actions if verbose or not is_bookkeeping(action)]
    intent = [action for action in shown if action.origin is not Origin.DRIFT]
    drift = [action for action in shown if action.origin is Origin.DRIFT]
    sections = (
        ("Dangers", list(_dangers(plan, paint))),
        ("Changes", list(_actions(intent, paint))),
        ("Changed by hand, to be put right", list(_actions(drift, paint))),
        ("Changed by hand, left alone", [f"  {d.ve} {d.path}: {value_text(d.path, d.observed)}" for d in plan.warned]),
        ("Waiting", [f"  {name}: {printable(why)}" for name, why in sorted(plan.waiting.items())]),
        ("Not known, so left alone", [f"  {printable(str(fact))}" for fact in plan.unknown]),
    )
    lines: list[str] = []
    for title, body in sections:
        if body:
            lines += [paint(title + ":", "strong"), *body, ""]
    if plan.orphans:
        lines += [f"No manifest names {', '.join(plan.orphans)} any more; --prune would move them to the trash.", ""]
    if plan.orphan_snapshots:
        left = ", ".join(plan.orphan_snapshots)
        lines += [f"No manifest names snapshots {left} any more; --prune would delete them, with consent.", ""]
    lines += [*(printable(f"Note: {note}") for note in plan.notes), *([""] if plan.notes else [])]
    lines.append(_summary_line(plan, paint))
    return "\n".join(lines)


def _dangers(plan: Plan, paint: Paint) -> Iterator[str]:
    for refusal in plan.refused:
        remedy = f"; {refusal.remedy}" if refusal.remedy else ""
        yield paint(f"  x {refusal.ve}: refused ({refusal.rule}): {printable(refusal.message + remedy)}", "bad")
    for action in plan.actions:
        if action.danger:
            yield paint(f"  ! {printable(action.danger)}", "bad")


def _actions(actions: Iterable[Action], paint: Paint) -> Iterator[str]:
    for action in actions:
        symbol, word, style = SYMBOLS[action.op]
        impact = f" [{action.impact.word}]" if action.impact > Impact.LIVE else ""
        yield paint(f"  {symbol} {word} {action.ve}", style) + _what(action) + impact + downtime_text(action)


def _what(action: Action) -> str:
    match action.op:
        case Operation.RESTORE:
            return f" (from the trash, {_age(action.before)} old)"
        case Operation.DESTROY | Operation.CREATE:
            return f" ({action.path})" if action.path else ""
        case Operation.RESTART if isinstance(action.before, dict) and isinstance(action.after, dict):
            return "".join(f" {_change(path, action.before.get(path), new)}" for path, new in action.after.items())
    return f" {_change(action.path, action.before, action.after)}"


def _change(path: str, before: Json, after: Json) -> str:
    return f"{path}: {value_text(path, before)} -> {value_text(path, after)}"


def _age(before: Json) -> str:
    seconds = before.get("trashedSecondsAgo") if isinstance(before, dict) else None
    return format_duration(seconds) if isinstance(seconds, int | float) else "?"


def downtime_text(action: Action) -> str:
    """Say for how long the VE is away, empty where it is not."""
    seconds = action.downtime.seconds
    if action.impact < Impact.PAUSE and not seconds:
        return ""
    length = "unknown" if seconds is None else f"{seconds:g} s, {action.downtime.basis.value}"
    return f" (downtime {length})"


def _summary_line(plan: Plan, paint: Paint) -> str:
    counts = summary(plan.actions)
    if not any(counts.values()):
        return paint("No changes.", "good") if not plan.refused else "Nothing that may be done."
    return f"{paint('Plan:', 'strong')} {counts_text(counts)}. Hash {plan.action_hash[:HASH_SHOWN]}"


def counts_text(counts: dict[str, int]) -> str:
    """Give a summary in words, e.g. ``2 to create, 0 to change, 0 to restart, 0 to destroy``."""
    words = [f"{counts['create']} to create", f"{counts['update']} to change", f"{counts['restart']} to restart"]
    words += [f"{counts['destroy']} to destroy"]
    words += [f"{counts[key]} to {key}" for key in ("restore", "recreate") if counts[key]]
    words += [f"{counts['drift']} drifted"] if counts["drift"] else []
    return ", ".join(words)


def render_diff(plan: Plan, *, paint: Paint) -> str:
    """Render what differs as a diff, object by object, observed before desired; empty where nothing does."""
    shown = [action for action in plan.actions if not is_bookkeeping(action)]
    lines: list[str] = []
    for name in dict.fromkeys(action.ve for action in shown):
        lines += [paint(f"--- {name} (observed)", "strong"), paint(f"+++ {name} (desired)", "strong")]
        lines += [line for action in shown if action.ve == name for line in _diff_lines(action, paint)]
    lines += [paint(f"x {refusal.ve}: {printable(refusal.message)}", "bad") for refusal in plan.refused]
    lines += [f"? {printable(str(fact))}" for fact in plan.unknown]
    return "".join(f"{line}\n" for line in lines)


def _diff_lines(action: Action, paint: Paint) -> Iterator[str]:
    before, after = values_by_path(action, action.before), values_by_path(action, action.after)
    if action.op is Operation.RESTORE:
        before = {}
    note = "  # drift" if action.origin is Origin.DRIFT else ""
    for path in dict.fromkeys((*before, *after)):
        if path in before and before.get(path) != after.get(path):
            yield paint(f"-{path}: {value_text(path, before[path])}", "bad")
        if path in after and before.get(path) != after.get(path):
            yield paint(f"+{path}: {value_text(path, after[path])}{note}", "good")


def values_by_path(action: Action, value: Json) -> dict[str, Json]:
    """Give the values of an action by path: a created VE has all its fields, a restart those that ask for it."""
    match action.op:
        case Operation.UPDATE:
            return {action.path: value}
        case Operation.RESTART if isinstance(value, dict):
            return dict(value)
    if not isinstance(value, dict):
        return {} if value is None else {action.path or "name": value}
    return {name: part for key, item in value.items() for name, part in _below(key, item).items()}


def _below(path: str, value: Json) -> dict[str, Json]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {name: part for key, item in value.items() for name, part in _below(f"{path}.{key}", item).items()}
