"""A plan as Markdown, for one comment on a pull request.

Dangers come first and are never folded; the differences of fields are folded, VE by VE, and the first to go where a
forge would cut the comment. Nothing in it that came from a manifest or a VE is read as Markdown or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from reconciler.model.action import Action, Impact, Operation, Origin, Plan
from reconciler.plan.field import to_json
from reconciler.plan.render import counts_text, is_bookkeeping, summary, values_by_path
from reconciler.plan.spec import FIELDS
from reconciler.plan.words import printable, value_text

LENGTH_MAX = 65_536
"""The longest comment that the common forges take. Units: characters."""

_DANGERS_MAX = 200
_ROWS_MAX = 300
_RESERVE = 200
_VALUE_WIDTH = 400
_DEFAULTS = {field.path: to_json(field.default) for field in FIELDS}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|>~@-])")


def render_markdown(plan: Plan) -> str:
    """Render a plan; the first line is a marker by which the comment is found again."""
    shown = [action for action in plan.actions if not is_bookkeeping(action)]
    counts = summary(plan.actions)
    head = [
        f"<!-- vectl plan of {_text(plan.host)} -->",
        f"### Plan for {_text(plan.host)} at {_text(plan.revision)}",
        "",
        f"{counts_text(counts)}." if any(counts.values()) else "No changes.",
        "",
        *_dangers(plan, shown),
        *_table(shown),
        *_lists(plan),
    ]
    tail = [f"Hash of the plan: `{plan.action_hash}`"] if any(counts.values()) or plan.refused else []
    return _fit(head, list(_details(shown)), tail)


def _fit(head: list[str], details: list[str], tail: list[str]) -> str:
    """Put the parts together, with as many of the details as there is room for."""
    kept: list[str] = []
    length = sum(len(line) + 1 for line in [*head, *tail]) + _RESERVE
    for detail in details:
        length += len(detail) + 1
        if length > LENGTH_MAX:
            left = len(details) - len(kept)
            kept.append(f"The fields of {left} more objects are left out here; `vectl plan -o json` has them.\n")
            break
        kept.append(detail)
    return "\n".join([*head, *kept, *tail])[:LENGTH_MAX]


def _dangers(plan: Plan, shown: Iterable[Action]) -> Iterator[str]:
    found = [
        f"- **{_text(refusal.ve)}** is refused ({_text(refusal.rule)}): {_text(refusal.message)}"
        + (f"; {_text(refusal.remedy)}" if refusal.remedy else "")
        for refusal in plan.refused
    ]
    found += [f"- {_text(action.danger)}" for action in shown if action.danger]
    if found:
        yield from ("**Dangers**", "", *found[:_DANGERS_MAX])
        if len(found) > _DANGERS_MAX:
            yield f"- and {len(found) - _DANGERS_MAX} more"
        yield ""


def _table(shown: list[Action]) -> Iterator[str]:
    rows = [_row(ve, [action for action in shown if action.ve == ve]) for ve in dict.fromkeys(a.ve for a in shown)]
    if rows:
        yield from ("| object | what | worst impact | downtime |", "|---|---|---|---|", *rows[:_ROWS_MAX])
        if len(rows) > _ROWS_MAX:
            yield f"| and {len(rows) - _ROWS_MAX} more | | | |"
        yield ""


def _row(ve: str, actions: list[Action]) -> str:
    words = ", ".join(dict.fromkeys(_word(action) for action in actions))
    worst = max(action.impact for action in actions)
    return f"| {_text(ve)} | {words} | {worst.word} | {_downtime(actions)} |"


def _word(action: Action) -> str:
    return "put right" if action.origin is Origin.DRIFT else action.op.value


def _downtime(actions: list[Action]) -> str:
    away = [action.downtime for action in actions if action.impact >= Impact.PAUSE]
    if not away:
        return "none"
    if any(downtime.seconds is None for downtime in away):
        return "unknown"
    bases = ", ".join(sorted({downtime.basis.value for downtime in away}))
    return f"{sum(downtime.seconds or 0.0 for downtime in away):g} s ({bases})"


def _lists(plan: Plan) -> Iterator[str]:
    sections = (
        ("Changed by hand, left alone", [f"{d.ve} {d.path}" for d in plan.warned]),
        ("Waiting", [f"{name}: {why}" for name, why in sorted(plan.waiting.items())]),
        ("Not known, so left alone", [str(fact) for fact in plan.unknown]),
        ("Named by no manifest any more", [*plan.orphans, *plan.orphan_snapshots]),
        ("Notes", [*plan.notes]),
    )
    for title, lines in sections:
        if lines:
            yield from (f"**{title}**", "", *(f"- {_text(line)}" for line in lines[:_DANGERS_MAX]), "")


def _details(shown: list[Action]) -> Iterator[str]:
    for ve in dict.fromkeys(action.ve for action in shown):
        lines = [line for action in shown if action.ve == ve for line in difference(action)]
        if lines:
            fence = "`" * (3 + max((len(run) for run in re.findall("`+", "".join(lines))), default=0))
            title = f"<details><summary>{_text(ve)}</summary>"
            yield "\n".join([title, "", f"{fence}diff", *lines, fence, "</details>", ""])


def difference(action: Action) -> Iterator[str]:
    """Yield the fields that an action changes, before and after, as lines of a diff."""
    if action.op is Operation.CREATE:
        yield from _created(action)
    if action.op in (Operation.CREATE, Operation.RESTORE, Operation.DESTROY):
        return
    note = "  # drift" if action.origin is Origin.DRIFT else ""
    before, after = (values_by_path(action, value) for value in (action.before, action.after))
    for path in dict.fromkeys((*before, *after)):
        yield f"- {path}: {value_text(path, before.get(path), width=_VALUE_WIDTH)}"
        yield f"+ {path}: {value_text(path, after.get(path), width=_VALUE_WIDTH)}{note}"


def _created(action: Action) -> Iterator[str]:
    """Give the fields of what is created, but those that are as they would be unsaid."""
    for path, value in values_by_path(action, action.after).items():
        if value not in (None, "", [], {}, False) and value != _DEFAULTS.get(path):
            yield f"+ {path}: {value_text(path, value, width=_VALUE_WIDTH)}"


def _text(text: str) -> str:
    """Make a text mean nothing to Markdown and HTML."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", escaped)
