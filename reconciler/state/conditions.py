"""The conditions of VEs and of the source, kept where a command can read them without asking the agent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from reconciler.errors import StateError, UsageError
from reconciler.model.condition import Condition, ConditionType, Status
from reconciler.model.decode import Fields
from reconciler.state import layout
from reconciler.state.document import Document, Durability

SOURCE = "_source"
"""The subject under which the source's conditions are kept; no VE can have this name."""

_FORMAT = 1
_SUBJECT = re.compile(rf"(?:(?:network\.)?[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?|{SOURCE})\Z")
_SUFFIX = ".json"


class Conditions:
    """The conditions by subject (a VE's name, or `SOURCE`), one file each below ``directory``."""

    __slots__ = ("_directory", "_known", "_standing", "on_change")

    def __init__(self, directory: str) -> None:
        """``on_change`` may be set to what is to hear of each condition whose status or reason is another one."""
        self.on_change: Callable[[str, Condition], None] | None = None
        self._directory = directory
        self._known: dict[str, tuple[Condition, ...]] = {}
        self._standing: dict[str, dict[ConditionType, Condition]] = {}

    def put(self, subject: str, conditions: Iterable[Condition], *, now: float) -> tuple[Condition, ...]:
        """Replace a subject's conditions, and its file if anything but the time differs; gives them with their times.

        A condition whose status stays keeps the time since when it has it. Units: ``now`` seconds since the epoch.
        Raises: KernelError, NoSpaceError.
        """
        standing = self._standing.get(subject, {})
        made = [condition for condition in conditions if condition.type not in standing]
        before = self._remembered(subject)
        after = since_last_transition(before, [*made, *standing.values()], now=now)
        if after != before:
            self._document(subject).write({"conditions": [condition.to_json() for condition in after]})
        self._known[subject] = after
        self._tell(subject, before, after)
        return after

    def stand(self, subject: str, condition: Condition, *, now: float) -> None:
        """Add a condition that passes know nothing of; it stays, whatever they put, until it is lifted.

        Raises: KernelError, NoSpaceError.
        """
        self._standing.setdefault(subject, {})[condition.type] = condition
        if self._remembered(subject):  # else the first pass will say more than this
            self.put(subject, self._remembered(subject), now=now)

    def lift(self, subject: str, kind: ConditionType, *, now: float) -> None:
        """Take away a condition that was added; one that is not there is success.

        Raises: KernelError, NoSpaceError.
        """
        self._standing.get(subject, {}).pop(kind, None)
        left = [condition for condition in self._remembered(subject) if condition.type is not kind]
        self.put(subject, left, now=now)

    def _tell(self, subject: str, before: Iterable[Condition], after: Iterable[Condition]) -> None:
        known = {(condition.type, condition.status, condition.reason) for condition in before}
        for condition in after:
            if self.on_change is not None and (condition.type, condition.status, condition.reason) not in known:
                self.on_change(subject, condition)

    @property
    def known(self) -> Mapping[str, tuple[Condition, ...]]:
        """What this process said of each subject, and what stood there before where it said something."""
        return self._known

    def remove(self, subject: str) -> None:
        """Forget a subject; absent is success.

        Raises: KernelError.
        """
        layout.remove_file(self._document(subject).path)
        self._known.pop(subject, None)
        self._standing.pop(subject, None)

    def read(self, subject: str) -> tuple[Condition, ...]:
        """Read a subject's conditions from disk; none, if nothing was ever said of it.

        Raises: StateError, KernelError.
        """
        fields = self._document(subject).read()
        if fields is None:
            return ()
        conditions = tuple(_parse(item) for item in fields.objects("conditions"))
        fields.end()
        return conditions

    def read_all(self) -> Mapping[str, tuple[Condition, ...]]:
        """Read the conditions of all subjects from disk.

        Raises: StateError, KernelError.
        """
        names = (name.removesuffix(_SUFFIX) for name in layout.names_in(self._directory) if name.endswith(_SUFFIX))
        return {name: self.read(name) for name in names if _SUBJECT.match(name)}

    def _remembered(self, subject: str) -> tuple[Condition, ...]:
        if subject not in self._known:
            try:
                self._known[subject] = self.read(subject)
            except StateError:
                # What is about to be written is better than what was there; only the times are lost.
                self._known[subject] = ()
        return self._known[subject]

    def _document(self, subject: str) -> Document:
        if _SUBJECT.match(subject) is None:
            raise UsageError(f"find conditions of {subject!r}: expected the name of a VE")
        remedy = "remove it: the agent writes it anew"
        path = f"{self._directory}/{subject}{_SUFFIX}"
        return Document(path=path, format=_FORMAT, remedy=remedy, durability=Durability.NONE)


def since_last_transition(
    before: Iterable[Condition], after: Iterable[Condition], *, now: float
) -> tuple[Condition, ...]:
    """Date conditions: from before, where type and status are the same, else from now.

    Source: Kubernetes API conventions, "Typical status properties", lastTransitionTime.
    """
    dated = {condition.type: condition for condition in before}

    def with_time(condition: Condition) -> Condition:
        old = dated.get(condition.type)
        if old is None or old.status is not condition.status:
            return replace(condition, since=now)
        return old if old == condition else replace(condition, since=old.since)

    return tuple(map(with_time, after))


def _parse(fields: Fields) -> Condition:
    condition = Condition(
        type=fields.word("type", ConditionType),
        status=fields.word("status", Status),
        reason=fields.text("reason"),
        message=fields.text("message"),
        revision=fields.text("revision"),
        since=fields.number("since"),
    )
    fields.end()
    return condition
