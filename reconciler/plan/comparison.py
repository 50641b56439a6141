"""Two revisions side by side: what becomes of each host of the fleet when the later one replaces the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reconciler.model.action import Action, Impact, Operation, Origin, Plan
from reconciler.model.capacity import Balance, amount_text
from reconciler.model.facts import Json
from reconciler.model.identity import HostName
from reconciler.plan.render import Paint, is_bookkeeping, plan_to_json, render_text
from reconciler.plan.words import printable

COMPARISON_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """The part of one host. ``plan``: against what was seen of it, if it was, else against the earlier revision.

    ``intent``: hash of what lies between the revisions, whatever the host is like: what a host compares a review with.
    ``ves``: how many VEs the later revision puts on it. ``before``, ``after``: what is promised of it, resource by
    resource. ``is_observed``: whether somebody looked, ``observed_at`` when, as far as it is known.
    Units: seconds since the epoch.
    """

    host: HostName
    plan: Plan
    intent: str
    ves: int = 0
    before: tuple[Balance, ...] = ()
    after: tuple[Balance, ...] = ()
    is_observed: bool = False
    observed_at: float | None = None

    @property
    def shown(self) -> tuple[Action, ...]:
        """What of the plan anybody would notice."""
        return tuple(action for action in self.plan.actions if not is_bookkeeping(action))

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to say of it."""
        plan = self.plan
        return not (self.shown or plan.refused or plan.unknown or plan.warned or plan.waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """``start`` and ``end``: the commits that were asked for. ``base``: the one that ``end`` is compared with, where
    both ways part. ``notes``: what else a reviewer should know, in sentences.
    """

    start: str
    end: str
    base: str
    hosts: tuple[HostPlan, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing changes anywhere."""
        return all(host.is_quiet for host in self.hosts)


def count_ves(part: HostPlan) -> dict[str, int]:
    """Count the objects of which something is of a kind; drift is a kind of its own."""
    kinds: dict[str, set[str]] = {kind: set() for kind in (*(op.value for op in Operation), "drift")}
    for action in part.shown:
        kinds["drift" if action.origin is Origin.DRIFT else action.op.value].add(action.ve)
    return {kind: len(names) for kind, names in kinds.items()}


def worst(comparison: Comparison) -> Impact:
    """Give the worst that happens to anybody."""
    return max((host.plan.impact for host in comparison.hosts), default=Impact.NONE)


def combined(comparison: Comparison) -> Plan:
    """Give one plan with everything of all hosts, from which an exit code follows."""
    plans = [host.plan for host in comparison.hosts]
    return Plan(
        host=HostName(""),
        revision=comparison.end,
        actions=tuple(action for plan in plans for action in plan.actions),
        refused=tuple(refusal for plan in plans for refusal in plan.refused),
        unknown=tuple(fact for plan in plans for fact in plan.unknown),
    )


def comparison_to_json(comparison: Comparison) -> dict[str, Json]:
    """Give the stable form of `vectl plan --from A --to B -o json`."""
    return {
        "format": COMPARISON_FORMAT,
        "from": comparison.start,
        "to": comparison.end,
        "base": comparison.base,
        "notes": [*comparison.notes],
        "hosts": [plan_to_json(host.plan) for host in comparison.hosts],
        "action_hashes": {host.host: host.intent for host in comparison.hosts},
        "capacity": [_capacity(host) for host in comparison.hosts],
        "observed": {host.host: host.observed_at for host in comparison.hosts if host.is_observed},
    }


def _capacity(part: HostPlan) -> Json:
    return {
        "host": part.host,
        "ves": part.ves,
        "before": [balance.to_json() for balance in part.before],
        "after": [balance.to_json() for balance in part.after],
    }


def render_comparison(comparison: Comparison, *, paint: Paint, verbose: bool = False) -> str:
    """Render the plans of all hosts for a terminal, one after the other; hosts without changes only by name."""
    lines = [f"{comparison.base[:12]} -> {comparison.end[:12]}", *(printable(note) for note in comparison.notes), ""]
    for part in comparison.hosts:
        if not part.is_quiet or verbose:
            plan = replace(part.plan, action_hash=part.intent)
            lines += [paint(f"== {printable(part.host)} ==", "strong"), render_text(plan, paint=paint, verbose=verbose)]
            lines += [*(f"  {line}" for line in capacity_lines(part)), ""]
    quiet = [printable(part.host) for part in comparison.hosts if part.is_quiet]
    if quiet and not verbose:
        lines.append(paint(f"No changes on {', '.join(quiet)}.", "good"))
    return "\n".join(lines).rstrip("\n")


def capacity_lines(part: HostPlan) -> Iterator[str]:
    """Say of each resource how much is promised before and after, where that changes or the host's size is known."""
    for before, after in zip(part.before, part.after, strict=True):
        words = [*_promised(before, after)]
        if words:
            yield f"{after.resource.value}: {', '.join(words)}"


def _promised(before: Balance, after: Balance) -> Iterator[str]:
    """Say what is guaranteed and allowed, before and after; of a host whose size nobody knows only what changes."""
    have = after.supply.machine
    for word, old, new in (
        ("guaranteed", before.guaranteed, after.guaranteed),
        ("limits", before.limits, after.limits),
    ):
        if old == new and (have is None or not new):
            continue
        sizes = dict.fromkeys(_size(after, size) for size in (old, new))
        share = f" of {_size(after, have)} ({new * 100 // have} %)" if have and new is not None else ""
        yield f"{word} {' -> '.join(sizes)}{share}"


def _size(balance: Balance, size: int | None) -> str:
    return "unlimited" if size is None else amount_text(balance.resource, size)
