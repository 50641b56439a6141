"""Review: of what the manifests want, a host whose policy says so does only what people agreed to.

The agent plans each step of the way from what was reviewed and carried out last, as a review plans it, and keeps what
of it people vouched for. What is really about to be done is held against that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from reconciler.model.action import CONSENT_IMPACTS, Action, Impact, Operation, Origin, Plan, Refusal
from reconciler.model.facts import Json
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.network import Address
from reconciler.plan.hashes import action_hash, hashed_impact, hashed_op
from reconciler.plan.host_network import network_of, network_target
from reconciler.plan.settled import Settled
from reconciler.plan.words import value_text

RULE = "PlanChanged"
"""The rule that withholds what nobody agreed to."""

STEPS_MAX = 64
"""How many steps are told apart; beyond that all of them are one, of which what was reviewed stays so."""

_BY_FIELD = frozenset({Operation.UPDATE, Operation.RESTART})
_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """An action as its VE's hash has it."""

    op: Operation
    path: str
    after: Json
    impact: Impact


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a change of the manifests does on this host. ``revision``: what it leads to.

    ``hash``, ``hashes`` and ``deeds`` are those of its plan, by VE or object of the host. ``open``: of which of them
    nobody has reviewed it.
    """

    revision: str
    hash: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    deeds: Mapping[str, tuple[Deed, ...]] = field(default_factory=dict)
    open: frozenset[str] = frozenset()

    def without(self, done: Collection[str]) -> Step:
        """Give the step without objects that are done; its hash stays what people know it by."""
        return replace(
            self,
            deeds={name: deeds for name, deeds in self.deeds.items() if name not in done},
            open=self.open.difference(done),
        )


NOTHING = Step(revision="", hash=action_hash(()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What people agreed to and is not known to be done yet.

    ``base``: the revision up to which all was reviewed and done, "" for none. ``head``: the one that the last of
    ``steps`` leads to. ``whole``: all steps as one; what is in no step is open there until that is reviewed.
    ``settled``: what was agreed to as it was about to be done.
    """

    source: str = ""
    base: str = ""
    head: str = ""
    steps: tuple[Step, ...] = ()
    whole: Step = NOTHING
    settled: Mapping[str, tuple[Deed, ...]] = field(default_factory=dict)

    @property
    def open(self) -> frozenset[str]:
        """The objects of which something was not reviewed."""
        return self.whole.open.union(*(step.open for step in self.steps))

    @property
    def objects(self) -> frozenset[str]:
        """All objects of which something was not seen to be done."""
        return frozenset(chain(self.settled, *(step.deeds for step in (*self.steps, self.whole))))

    def allowed(self, name: str) -> tuple[Deed, ...]:
        """Give what may be done to a VE or an object of the host."""
        steps = self.steps if name in self.open else (*self.steps, self.whole)
        found = (step.deeds.get(name, ()) for step in steps if name not in step.open)
        return (*chain.from_iterable(found), *self.settled.get(name, ()))


def step_of(plan: Plan, revision: str) -> Step:
    """Give what a plan between two revisions comes to, nothing of it reviewed."""
    deeds = deeds_of((*plan.actions, *plan.withheld))
    return Step(
        revision=revision, hash=plan.action_hash, hashes=dict(plan.ve_hashes), deeds=deeds, open=frozenset(deeds)
    )


def deeds_of(actions: Iterable[Action]) -> dict[str, tuple[Deed, ...]]:
    """Give what the manifests want, by object."""
    found: dict[str, tuple[Deed, ...]] = {}
    for action in actions:
        if action.origin is Origin.GIT:
            deed = Deed(op=hashed_op(action), path=action.path, after=action.after, impact=hashed_impact(action))
            found[action.ve] = (*found.get(action.ve, ()), deed)
    return found


def taken(ledger: Ledger, steps: Iterable[Step], whole: Step) -> Ledger:
    """Take in the steps to a new revision. ``whole``: from the base to it."""
    every = (*ledger.steps, *(step for step in steps if step.deeds))
    apart = frozenset(whole.deeds).difference(*(step.deeds for step in every))
    if len(every) > STEPS_MAX:
        still_open = apart.union(*(step.open for step in every))
        every, apart = (replace(whole, open=still_open.intersection(whole.deeds)),), frozenset()
    return replace(ledger, head=whole.revision, steps=every, whole=replace(whole, open=apart))


def accepted(ledger: Ledger, given: Collection[str], *, at: str | None = None) -> Ledger:
    """Take in the hashes that people vouched for: of a step, of its part of one object, or of all steps as one.

    ``at``: the revision of which they said it; None: whatever has the hash.
    """
    if not given or not ledger.open:
        return ledger
    whole = ledger.whole if at in (None, ledger.whole.revision) else NOTHING
    done = {name for name in whole.deeds if whole.hash in given or whole.hashes.get(name) in given}
    heard = {step.revision: given if at in (None, step.revision) else () for step in ledger.steps}
    steps = tuple(_accepted(step, heard[step.revision], done) for step in ledger.steps)
    return replace(ledger, steps=steps, whole=replace(ledger.whole, open=ledger.whole.open.difference(done)))


def covered(ledger: Ledger, hash_: str) -> frozenset[str]:
    """Name the hashes of single objects that are parts of what a hash stands for."""
    return frozenset(
        part
        for step in (*ledger.steps, ledger.whole)
        if step.hash == hash_ and step.deeds
        for part in step.hashes.values()
    )


def _accepted(step: Step, given: Collection[str], done: Collection[str]) -> Step:
    if step.hash in given:
        return replace(step, open=frozenset())
    left = frozenset(name for name in step.open if name not in done and step.hashes.get(name) not in given)
    return step if left == step.open else replace(step, open=left)


def settled(ledger: Ledger, deeds: Mapping[str, tuple[Deed, ...]]) -> Ledger:
    """Take in what was agreed to as it was about to be done: with it all that leads there."""
    if all(ledger.settled.get(name) == found for name, found in deeds.items()):
        return ledger
    names = frozenset(deeds)
    steps = tuple(replace(step, open=step.open - names) for step in ledger.steps)
    whole = replace(ledger.whole, open=ledger.whole.open - names)
    return replace(ledger, steps=steps, whole=whole, settled={**ledger.settled, **deeds})


def closed(ledger: Ledger, unfinished: Collection[str]) -> Ledger:
    """Let go of what was seen to be done; once nothing is left to do, what is in force is the new base."""
    done = frozenset(name for name in ledger.objects if name not in unfinished)
    if unfinished:
        if not done:
            return ledger
        steps = tuple(left for step in ledger.steps if (left := step.without(done)).deeds)
        kept = {name: deeds for name, deeds in ledger.settled.items() if name not in done}
        return replace(ledger, steps=steps, whole=ledger.whole.without(done), settled=kept)
    return Ledger(source=ledger.source, base=ledger.head, head=ledger.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What binds a host whose policy asks for a review. ``before``: what it is held to where it may not go on, each VE
    and network as it was reviewed last.

    ``withheld``: the objects that were held back when everything was looked at last. ``settled``: what former plans
    found out of what is held back; it saves time and decides nothing.
    """

    ledger: Ledger = field(default_factory=Ledger)
    before: Fleet | None = field(default=None, repr=False)
    withheld: frozenset[str] = frozenset()
    settled: Settled = field(default_factory=Settled, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether a plan may be carried out. ``hashes``: by object; ``whole``: of all; ``given``: what was approved.

    ``below``: the highest impact that nobody need have reviewed. ``revision``: what the plan is for.
    """

    hashes: Mapping[str, str]
    whole: str
    given: frozenset[str]
    below: Impact | None
    revision: str


def refusals(actions: Iterable[Action], review: Review, question: Question) -> dict[str, Refusal]:
    """Refuse, object by object, what differs from what was reviewed."""
    if question.whole in question.given:
        return {}
    by_object: dict[str, list[Action]] = {}
    for action in actions:
        if action.origin is Origin.GIT:
            by_object.setdefault(action.ve, []).append(action)
    found = ((name, _differing(name, wanted, review, question)) for name, wanted in by_object.items())
    return {name: _refusal(question.hashes[name], differing, review) for name, differing in found if differing}


def _differing(name: str, wanted: Iterable[Action], review: Review, question: Question) -> list[Action]:
    if question.hashes[name] in question.given:
        return []
    ledger = review.ledger
    deeds = ledger.allowed(name)
    is_all_reviewed = bool(ledger.base) and ledger.head == question.revision and not ledger.open
    leads_there = bool(deeds) and ledger.head == question.revision and name not in ledger.open
    worst = max((deed.impact for deed in deeds), default=Impact.NONE) if leads_there else None
    return [
        action
        for action in wanted
        if not (_is_among(action, deeds) or _completes(action, worst) or _is_below(action, question.below))
        and not (is_all_reviewed and _follows(action))
    ]


def _is_among(action: Action, deeds: tuple[Deed, ...]) -> bool:
    """Say whether an action was reviewed: field by field with the same value, and at no higher price."""
    price = hashed_impact(action)
    fitting = [deed for deed in deeds if deed.impact >= price]
    if action.op not in _BY_FIELD:
        op = hashed_op(action)
        return any((deed.op, deed.path, deed.after) == (op, action.path, action.after) for deed in fitting)
    reviewed = [_values(deed.op, deed.path, deed.after) for deed in fitting if deed.op in _BY_FIELD]
    wanted = _values(action.op, action.path, action.after)
    return all(any(path in known and known[path] == value for known in reviewed) for path, value in wanted.items())


def _completes(action: Action, worst: Impact | None) -> bool:
    """Say whether an action only leads to what was reviewed as a whole. ``worst``: what that was to cost, if it was."""
    if worst is None or action.op not in _BY_FIELD or action.impact in CONSENT_IMPACTS:
        return False
    return hashed_impact(action) <= max(worst, Impact.LIVE)


def _follows(action: Action) -> bool:
    """Say whether an action follows from others, once they are done: a network goes when nobody is on it any more."""
    return action.op is Operation.DESTROY and action.uid is None and action.impact not in CONSENT_IMPACTS


def _is_below(action: Action, below: Impact | None) -> bool:
    """Say whether an action may differ from the review: what comes or goes as a whole, and protection, never may."""
    return below is not None and action.op in _BY_FIELD and action.path != "protect" and action.impact <= below


def _values(op: Operation, path: str, after: Json) -> Mapping[str, Json]:
    return after if op is Operation.RESTART and isinstance(after, dict) else {path: after}


def _refusal(hash_: str, differing: list[Action], review: Review) -> Refusal:
    first = differing[0]
    texts = [text for action in differing for text in _texts(action, review.ledger.allowed(action.ve))]
    more = f" and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    return Refusal(
        ve=first.ve,
        uid=first.uid,
        rule=RULE,
        message=f"{', '.join(texts[:_TOLD])}{more}",
        remedy=f"have it reviewed (`vectl plan` shows it), or `vectl approve {hash_}`",
    )


def _texts(action: Action, deeds: tuple[Deed, ...]) -> Iterator[str]:
    """Say what differs: the value that is about to be, and the one that was reviewed."""
    match action.op:
        case Operation.UPDATE | Operation.RESTART:
            for path, value in _values(action.op, action.path, action.after).items():
                yield _text(action, path, value, deeds)
        case Operation.CREATE | Operation.RESTORE:
            yield from _coming_texts(action, deeds)
        case Operation.RECREATE:
            yield f"it is made anew, {_was(action, deeds)}"
        case Operation.DESTROY:
            yield f"its removal{_of(action)} was not reviewed"


def _was(action: Action, deeds: tuple[Deed, ...]) -> str:
    reviewed = [value_text(deed.path, deed.after) for deed in deeds if deed.op is action.op]
    return f"reviewed was {reviewed[-1]}" if reviewed else "which was not reviewed"


def _of(action: Action) -> str:
    return f" ({action.path})" if action.path else ""


def _text(action: Action, path: str, value: Json, deeds: tuple[Deed, ...]) -> str:
    now = f"{path or 'it'} -> {value_text(path, value)}"
    known = [(deed, _values(deed.op, deed.path, deed.after)) for deed in deeds if deed.op in _BY_FIELD]
    same = [(deed, values[path]) for deed, values in known if path in values]
    if not same:
        return f"{now} was not reviewed"
    deed, reviewed = same[-1]
    if reviewed == value:
        return f"{now} has impact {action.impact.word}, reviewed was {deed.impact.word}"
    return f"{now}, reviewed was {value_text(path, reviewed)}"


def _coming_texts(action: Action, deeds: tuple[Deed, ...]) -> Iterator[str]:
    reviewed = [deed.after for deed in deeds if deed.op is Operation.CREATE]
    if not reviewed or not isinstance(reviewed[-1], dict) or not isinstance(action.after, dict):
        yield f"that it is to {'come back' if action.op is Operation.RESTORE else 'be made'} was not reviewed"
        return
    then, now = dict(_leaves(reviewed[-1])), dict(_leaves(action.after))
    for path in sorted(then.keys() | now.keys()):
        if then.get(path) != now.get(path):
            was, is_ = (value_text(path, values.get(path)) for values in (then, now))
            yield f"{path} -> {is_}, reviewed was {was}"


def _leaves(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def held_to(fleet: Fleet, before: Fleet, names: frozenset[str]) -> Fleet:
    """Give a revision with these VEs and networks as a former one has them."""
    ves = {name: spec for name, spec in fleet.ves.items() if name not in names}
    back = {name: spec for name, spec in before.ves.items() if name in names}
    networks = {name: spec for name, spec in fleet.networks.items() if network_target(name) not in names}
    used = {link.network for spec in back.values() for link in spec.network.interfaces.values()}
    old = {network_of(name) for name in names} | (used - networks.keys())
    return replace(
        fleet,
        ves={**ves, **back},
        networks={**networks, **{name: spec for name, spec in before.networks.items() if name in old}},
        templates={**before.templates, **fleet.templates},
    )


def in_the_way(fleet: Fleet, before: Fleet, names: frozenset[str]) -> dict[str, str]:
    """Say of VEs for whom they wait: they would get an address that a VE still has which is held to what it was."""
    taken = {ip: name for name, spec in before.ves.items() if name in names for ip in _addresses(spec)}
    waiting: dict[str, str] = {}
    for name, spec in fleet.ves.items():
        clash = next((ip for ip in _addresses(spec) if ip in taken), None) if name not in names else None
        if clash is not None:
            waiting[name] = f"waits for {taken[clash]}, which has {clash} as long as its change is not reviewed"
    return waiting


def _addresses(spec: VeSpec) -> Iterator[Address]:
    return (address.ip for link in spec.network.interfaces.values() for address in link.addresses)


def joined(wanted: Plan, instead: Plan) -> Plan:
    """Put together what a revision wants and may not have, and what is done instead."""
    ours = [refusal for refusal in wanted.refused if refusal.rule == RULE]
    names = {refusal.ve for refusal in ours}
    others = (r for r in instead.refused if not (r.rule == RULE and r.ve in names))
    return replace(
        instead,
        refused=(*others, *ours),
        withheld=wanted.withheld,
        ve_hashes=wanted.ve_hashes,
        action_hash=wanted.action_hash,
    )


def withheld(plan: Plan) -> frozenset[str]:
    """Name the VEs and objects of the host that a plan holds back for want of a review."""
    return frozenset(refusal.ve for refusal in plan.refused if refusal.rule == RULE)


def unfinished(plan: Plan) -> frozenset[str]:
    """Name the objects that a plan of a whole host does not show to be as the manifests say."""
    acting = {action.ve for action in (*plan.actions, *plan.withheld) if action.origin is Origin.GIT}
    unknown = {fact.ve for fact in plan.unknown if fact.ve is not None}
    return frozenset(acting | unknown | set(plan.waiting) | {refusal.ve for refusal in plan.refused})
