"""A plan for people and for programs: text with symbols and words, and the stable JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reconciler.model.action import CONSENT_IMPACTS, Action, Impact, Operation, Origin, Plan, Reason
from reconciler.model.facts import Json
from reconciler.model.units import format_size
from reconciler.plan.hashes import canonical

PLAN_FORMAT = 1

Paint = Callable[[str, str], str]
"""Give a text in a style, one of ``good``, ``warn``, ``bad``, ``dim``, ``strong``."""

_SYMBOLS = {
    Operation.CREATE: ("+", "create", "good"),
    Operation.UPDATE: ("~", "change", "warn"),
    Operation.RESTART: ("!", "restart", "bad"),
    Operation.RECREATE: ("-/+", "recreate", "bad"),
    Operation.RESTORE: ("+", "restore", "good"),
    Operation.DESTROY: ("-", "destroy", "bad"),
}
_VALUE_WIDTH = 100


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
        "unknown": list(plan.unknown),
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
    consent = any(refusal.rule in ("NeedsConsent", "MassRemoval") for refusal in plan.refused)
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
        ("Changed by hand, left alone", [f"  {d.ve} {d.path}: {_value(d.path, d.observed)}" for d in plan.warned]),
        ("Waiting", [f"  {name}: {why}" for name, why in sorted(plan.waiting.items())]),
        ("Not known, so left alone", [f"  {text}" for text in plan.unknown]),
    )
    lines: list[str] = []
    for title, body in sections:
        if body:
            lines += [paint(title + ":", "strong"), *body, ""]
    if plan.orphans:
        names = ", ".join(plan.orphans)
        lines += [f"No manifest names {names} any more; --prune would move them to the trash.", ""]
    lines.append(_summary_line(plan, paint))
    return "\n".join(lines)


def _dangers(plan: Plan, paint: Paint) -> Iterator[str]:
    for refusal in plan.refused:
        remedy = f"; {refusal.remedy}" if refusal.remedy else ""
        yield paint(f"  x {refusal.ve}: refused ({refusal.rule}): {refusal.message}{remedy}", "bad")
    for action in plan.actions:
        if action.danger:
            yield paint(f"  ! {action.danger}", "bad")


def _actions(actions: Iterable[Action], paint: Paint) -> Iterator[str]:
    for action in actions:
        symbol, word, style = _SYMBOLS[action.op]
        impact = f" [{action.impact.word}]" if action.impact > Impact.LIVE else ""
        yield paint(f"  {symbol} {word} {action.ve}", style) + _what(action) + impact + _downtime(action)


def _what(action: Action) -> str:
    if action.op in (Operation.CREATE, Operation.RESTORE, Operation.DESTROY):
        return f" ({action.path})" if action.path else ""
    before, after = _value(action.path, action.before), _value(action.path, action.after)
    return f" {action.path}: {before} -> {after}"


def _downtime(action: Action) -> str:
    if action.impact < Impact.PAUSE:
        return ""
    seconds = action.downtime.seconds
    length = "unknown" if seconds is None else f"{seconds:g} s, {action.downtime.basis.value}"
    return f" (downtime {length})"


def _value(path: str, value: Json) -> str:
    if value is None:
        return "unlimited" if path.startswith(("cpu.", "memory.", "disk.", "processes")) else "none"
    is_size = path.startswith(("memory.", "disk.size")) and isinstance(value, int) and not isinstance(value, bool)
    text = format_size(value) if is_size and isinstance(value, int) else _words(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"


def _words(value: Json) -> str:
    return value if isinstance(value, str) else canonical(value).decode()


def _summary_line(plan: Plan, paint: Paint) -> str:
    counts = summary(plan.actions)
    if not any(counts.values()):
        return paint("No changes.", "good") if not plan.refused else "Nothing that may be done."
    words = [f"{counts['create']} to create", f"{counts['update']} to change", f"{counts['restart']} to restart"]
    words += [f"{counts['destroy']} to destroy"]
    words += [f"{counts[key]} to {key}" for key in ("restore", "recreate") if counts[key]]
    words += [f"{counts['drift']} drifted"] if counts["drift"] else []
    return f"{paint('Plan:', 'strong')} {', '.join(words)}. Hash {plan.action_hash[:16]}"
