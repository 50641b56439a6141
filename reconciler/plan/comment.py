"""The plans of a whole fleet as one comment on a pull request, which a forge takes up to a length.

What needs a person's eye comes first and is never folded: what waits for consent, what is refused, who goes down, who
loses connections. The differences of fields are folded, and the first to be cut; whatever is cut is counted. All that
came from manifests, VEs and files stands in code, where a forge looks for no markup, links or mentions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.model.action import CONSENT_IMPACTS, Action, Impact, Operation, Origin, Refusal
from reconciler.model.fleet import Finding
from reconciler.model.units import format_duration
from reconciler.plan.comparison import Comparison, HostPlan, capacity_lines, count_ves
from reconciler.plan.markdown import LENGTH_MAX, difference
from reconciler.plan.markup import block, cell, code, fit, size
from reconciler.plan.render import CONSENT_RULES, downtime_text
from reconciler.plan.words import printable, value_text

MARKER = "<!-- vectl-plan -->"
"""The first line, by which the comment is found again and replaced; `mark` tells several of one repository apart."""

_COLUMNS = ("create", "update", "restart", "recreate", "destroy", "restore", "drift")
_ALARMING = frozenset({"restart", "recreate", "destroy"})
_RESERVE = 4096
"""Kept for the titles of sections of which nothing else has room. Units: bytes."""

_FENCES = 1024
"""What the fences of a block may take at most, as values are cut. Units: bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a comment says of itself. ``subdir``: the folder of the manifests. ``artifact``: the file that has all of
    the plan. ``now``: when it is written. Units: seconds since the epoch; ``valid_s`` seconds.
    """

    subdir: str = ""
    artifact: str = "plan.json"
    now: float = 0.0
    valid_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """``share``: how much of the comment it may take at most, of a hundred. ``language``: of a block of code that is
    shown when asked for; None: it is always shown, and is Markdown.
    """

    title: str
    lines: Sequence[str]
    share: int
    language: str | None = None
    head: Sequence[str] = ()


def mark(about: About) -> str:
    """Give the line by which the comment on a folder of manifests is found again."""
    if not about.subdir:
        return MARKER
    name = "".join(char if char.isalnum() or char in "._/" else "_" for char in about.subdir)
    return f"<!-- vectl-plan {name[:200]} -->"


def render_comment(comparison: Comparison, about: About) -> str:
    """Render the plans of all hosts; one line where nothing changes."""
    way = f"{code(comparison.base[:12])} → {code(comparison.end[:12])}"
    if comparison.is_quiet and not comparison.notes:
        return f"{mark(about)}\nvectl: no changes, {way}\n"
    head = [mark(about), f"### vectl plan · {_hosts(comparison)} · {way}", ""]
    tail = [*_validity(comparison, about)]
    return _joined(head, [*_sections(comparison)], tail, about)


def render_mistakes(findings: Sequence[Finding], end: str, about: About) -> str:
    """Render what is wrong with manifests of which no plan can be made."""
    count = f"{len(findings)} mistake" + ("s" if len(findings) != 1 else "")
    head = [mark(about), f"### vectl plan · {code(end[:12])} is not valid", "", f"There is no plan: {count}.", ""]
    lines = [f"- {code(_place(finding))} {code(_said(finding))}" for finding in findings]
    return _joined(head, [_Section(title="Mistakes", lines=lines, share=95)], [], about)


def _place(finding: Finding) -> str:
    return f"{finding.place.file}:{finding.place.line}:{finding.place.column}"


def _said(finding: Finding) -> str:
    return f"{finding.path}: {finding.message}" + (f" ({finding.hint})" if finding.hint else "")


def _hosts(comparison: Comparison) -> str:
    return f"{len(comparison.hosts)} host" + ("s" if len(comparison.hosts) != 1 else "")


def _joined(head: list[str], sections: list[_Section], tail: list[str], about: About) -> str:
    """Put everything together; what is left over by one section is for those after it."""
    room = LENGTH_MAX - size(head) - size(tail) - _RESERVE
    body: list[str] = []
    for section in sections:
        if section.lines:
            body += _rendered(section, room - size(body), about)
    return "\n".join([*head, *body, *tail]) + "\n"


def _rendered(section: _Section, room: int, about: About) -> list[str]:
    left_out = f"{{}} more are left out here; {code(about.artifact)} has them"
    most = min(room, LENGTH_MAX * section.share // 100) - size((section.title, *section.head)) - _FENCES
    if section.language is not None:
        shown = [printable(line) for line in section.lines]  # that may make a line longer
        lines = block(fit(shown, most, f"# {left_out}".replace("`", "")), section.language)
        return [f"<details><summary>{section.title}</summary>", "", *lines, "", "</details>", ""]
    if section.head:
        return [*section.head, *fit(section.lines, most, f"| {left_out} |"), ""]
    return [f"**{section.title}**", "", *fit(section.lines, most, f"- {left_out}"), ""]


def _sections(comparison: Comparison) -> Iterator[_Section]:
    yield _Section(title="Note", lines=[f"- {code(note)}" for note in comparison.notes], share=3)
    yield _table(comparison)
    for title, share, kind in _DANGERS:
        yield _Section(title=title, lines=[*kind(comparison)], share=share)
    yield _Section(title="Capacity after apply", lines=[*_capacity(comparison)], share=10)
    yield _Section(title="Hashes of what was reviewed", lines=[*_hashes(comparison)], share=20, language="")
    yield _Section(title="Field changes", lines=[*_differences(comparison)], share=70, language="diff")


def _table(comparison: Comparison) -> _Section:
    loud = [part for part in comparison.hosts if not part.is_quiet]
    names = [f"**{name}**" if name in _ALARMING else name for name in (*_COLUMNS, "refused", "unchanged")]
    head = [f"| host | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    quiet = len(comparison.hosts) - len(loud)
    rows = [_row(part) for part in loud]
    rows += [f"| *{quiet} without changes* |{' |' * len(names)}"] if quiet else []
    return _Section(title="", lines=rows, share=8, head=head)


def _row(part: HostPlan) -> str:
    counts = count_ves(part)
    cells = [f"**{counts[name]}**" if counts[name] and name in _ALARMING else str(counts[name]) for name in _COLUMNS]
    refused = len({refusal.ve for refusal in part.plan.refused})
    touched = {action.ve for action in part.shown if action.uid is not None and action.op is not Operation.DESTROY}
    cells += [f"**{refused}**" if refused else "0", str(max(0, part.ves - len(touched)))]
    return f"| {cell(part.host)} | {' | '.join(cells)} |"


def _refusals(comparison: Comparison, *, consent: bool) -> Iterator[str]:
    for part in comparison.hosts:
        for refusal in part.plan.refused:
            if (refusal.rule in CONSENT_RULES) is consent:
                yield _refusal(part, refusal)


def _refusal(part: HostPlan, refusal: Refusal) -> str:
    remedy = f" · {code(refusal.remedy.replace('`', ''))}" if refusal.remedy else ""
    return f"- {_name(part, refusal.ve)} {code(refusal.rule)} {code(refusal.message)}{remedy}"


def _actions(comparison: Comparison, wanted: Callable[[Action], bool]) -> Iterator[tuple[HostPlan, Action]]:
    for part in comparison.hosts:
        yield from ((part, action) for action in part.shown if wanted(action))


def _removals(comparison: Comparison) -> Iterator[str]:
    for part, action in _actions(comparison, lambda a: a.op is Operation.DESTROY):
        said = action.danger.removeprefix(f"{action.ve}: ") or f"{action.path} {value_text('', action.before)}"
        yield f"- {_name(part, action.ve)} **destroy** {code(said)}"


def _away(comparison: Comparison) -> Iterator[str]:
    for part, action in _actions(comparison, _goes_down):
        yield f"- {_name(part, action.ve)} **{_verb(action)}**{downtime_text(action)}, for {code(action.path)}"


def _goes_down(action: Action) -> bool:
    return action.impact >= Impact.PAUSE and action.op is not Operation.DESTROY and action.impact < Impact.DATA_LOSS


def _verb(action: Action) -> str:
    return action.op.value if action.op is not Operation.UPDATE else action.impact.word


def _of_impact(impact: Impact) -> Callable[[Comparison], Iterator[str]]:
    def found(comparison: Comparison) -> Iterator[str]:
        for part, action in _actions(comparison, lambda a: a.impact is impact and a.op is not Operation.DESTROY):
            yield f"- {_name(part, action.ve)} {_change(action)}"

    return found


def _other_dangers(comparison: Comparison) -> Iterator[str]:
    told = (Impact.LIVE_RISK, *CONSENT_IMPACTS)
    for part, action in _actions(comparison, lambda a: bool(a.danger) and a.op is not Operation.DESTROY):
        if action.impact not in told:
            yield f"- {_name(part, action.ve)} {code(action.danger.removeprefix(f'{action.ve}: '))}"


def _drift(comparison: Comparison) -> Iterator[str]:
    for part, action in _actions(comparison, lambda a: a.origin is Origin.DRIFT):
        yield f"- {_name(part, action.ve)} {_change(action)}"


def _left_alone(comparison: Comparison) -> Iterator[str]:
    for part in comparison.hosts:
        yield from (f"- {_name(part, drift.ve)} {code(drift.path)}" for drift in part.plan.warned)


def _waiting(comparison: Comparison) -> Iterator[str]:
    for part in comparison.hosts:
        yield from (f"- {_name(part, name)} {code(why)}" for name, why in sorted(part.plan.waiting.items()))


def _unknown(comparison: Comparison) -> Iterator[str]:
    for part in comparison.hosts:
        yield from (f"- {code(part.host)} {code(str(fact))}" for fact in part.plan.unknown)


_DANGERS: tuple[tuple[str, int, Callable[[Comparison], Iterator[str]]], ...] = (
    ("Needs consent", 12, lambda comparison: _refusals(comparison, consent=True)),
    ("Refused", 12, lambda comparison: _refusals(comparison, consent=False)),
    ("Not known, so left alone", 4, _unknown),
    ("Removed", 8, _removals),
    ("Could cut off the host", 4, _of_impact(Impact.HOST_RISK)),
    ("Loses data", 4, _of_impact(Impact.DATA_LOSS)),
    ("Downtime", 12, _away),
    ("Connections drop", 8, _of_impact(Impact.NETWORK)),
    ("Below what is in use", 4, _of_impact(Impact.LIVE_RISK)),
    ("Dangers", 4, _other_dangers),
    ("Changed by hand, will be overwritten", 8, _drift),
    ("Changed by hand, left alone", 3, _left_alone),
    ("Waiting", 3, _waiting),
)
"""What is never folded: its title, its share of the comment, and its lines."""


def _name(part: HostPlan, ve: str) -> str:
    return code(f"{part.host}/{ve}", width=160)


def _change(action: Action) -> str:
    before, after = (value_text(action.path, value) for value in (action.before, action.after))
    return f"{code(action.path or action.op.value)} {code(before)} → {code(after)}"


def _capacity(comparison: Comparison) -> Iterator[str]:
    for part in comparison.hosts:
        lines = [*capacity_lines(part)]
        if lines and not part.is_quiet:
            yield f"- {code(part.host)} {' · '.join(code(line) for line in lines)}"


def _differences(comparison: Comparison) -> Iterator[str]:
    for part in comparison.hosts:
        by_ve: dict[str, list[str]] = {}
        for action in part.shown:
            by_ve.setdefault(action.ve, []).extend(difference(action))
        for ve, lines in by_ve.items():
            yield from (f"@@ {part.host}/{ve} @@", *lines) if lines else ()


def _hashes(comparison: Comparison) -> Iterator[str]:
    """Give the lines that a commit or a signed note says of what was reviewed."""
    yield from (f"Vectl-Reviewed: {part.intent}" for part in comparison.hosts if part.plan.ve_hashes)


def _validity(comparison: Comparison, about: About) -> Iterator[str]:
    seen = [part for part in comparison.hosts if part.is_observed]
    said = (
        f"Valid for {code(comparison.end[:12])} while {code(comparison.base[:12])} is what these VEs are changed from"
    )
    if seen:
        said += f", and while what was seen is younger than {format_duration(about.valid_s)}: {_ages(seen, about)}"
    else:
        said += "; no host was looked at, so drift and use are not known"
    yield f"{said}. Everything: {code(about.artifact)}."


def _ages(seen: Iterable[HostPlan], about: About) -> str:
    known = [part.observed_at for part in seen]
    ages = [about.now - at for at in known if at is not None]
    if len(ages) < len(known):
        return "its age is not known"
    oldest = max(0.0, *ages) if ages else 0.0
    return f"{format_duration(round(oldest))} old" + (" (**too old**)" if oldest > about.valid_s else "")
