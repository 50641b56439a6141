"""Actions and plans: what will be done, why, to whom, at what price; and the effects that carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from reconciler.model.effects import Effect
from reconciler.model.facts import Json
from reconciler.model.identity import HostName, Uid


class Impact(IntEnum):
    """What an action does to a VE, harmless first. The worst one counts for a VE and for a plan."""

    NONE = 0
    LIVE = 1
    LIVE_RISK = 2
    NETWORK = 3
    PAUSE = 4
    RESTART = 5
    RECREATE = 6
    DATA_LOSS = 7
    HOST_RISK = 8

    @property
    def word(self) -> str:
        """The impact as people and JSON read it, e.g. ``live-risk``."""
        return self.name.lower().replace("_", "-")


CONSENT_IMPACTS = frozenset({Impact.RECREATE, Impact.DATA_LOSS, Impact.HOST_RISK})
"""Impacts that are carried out only with a consent bound to the plan's hash."""


class Operation(StrEnum):
    """What happens to the object of an action."""

    CREATE = "create"
    UPDATE = "update"
    RESTART = "restart"
    RECREATE = "recreate"
    RESTORE = "restore"
    DESTROY = "destroy"


class Phase(IntEnum):
    """The order between actions of one plan: room is made before it is needed, and losses come last."""

    HOST = 0
    GROW = 1
    RESTART = 2
    SHRINK = 3
    DESTROY = 4
    HOST_REMOVE = 5
    PURGE = 6


class Reason(StrEnum):
    """Why an action is in the plan."""

    NEW_MANIFEST = "NewManifest"
    SPEC_CHANGED = "SpecChanged"
    DRIFTED = "Drifted"
    GUARANTEES_CHANGED = "GuaranteesChanged"
    INIT_ENDED = "InitEnded"
    UNFINISHED = "Unfinished"
    MANIFEST_REMOVED = "ManifestRemoved"
    IN_TRASH = "InTrash"
    TRASH_EXPIRED = "TrashExpired"
    TEMPLATE_UNUSED = "TemplateUnused"
    BOOKKEEPING = "Bookkeeping"
    REQUESTED = "Requested"
    SNAPSHOT_DUE = "SnapshotDue"
    SNAPSHOT_EXPIRED = "SnapshotExpired"


class Origin(StrEnum):
    """Who wants it: the manifests, the correction of a change by hand, or a rule of the host."""

    GIT = "git"
    DRIFT = "drift"
    POLICY = "policy"


class Basis(StrEnum):
    """Where a duration comes from."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


class Reversible(StrEnum):
    """Whether reverting the change in the manifests brings the former state back."""

    YES = "yes"
    WITH_SNAPSHOT = "with-snapshot"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Downtime:
    """Units: ``seconds``, None where nobody knows; never invented."""

    seconds: float | None = None
    basis: Basis = Basis.UNKNOWN


NO_DOWNTIME = Downtime(0.0, Basis.ESTIMATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step of a plan. ``ve``: the VE's name, or for the host's own objects ``network/<name>``, ``host/filter``,
    ``host/cgroup`` or ``template/<name>@<digest>``.

    Shape: ``before`` and ``after`` are canonical JSON. ``effects`` in their order; ``uid`` None for host objects.
    ``danger``: a sentence for the top of the plan, empty for harmless actions. ``base``: the impact that it has by its
    kind, where what the host uses at the moment makes it worse; hashes count that.
    """

    ve: str
    uid: Uid | None
    op: Operation
    path: str
    before: Json
    after: Json
    reason: Reason
    impact: Impact
    origin: Origin
    phase: Phase = Phase.GROW
    downtime: Downtime = NO_DOWNTIME
    reversible: Reversible = Reversible.YES
    danger: str = ""
    base: Impact | None = None
    effects: tuple[Effect, ...] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """The action's name in journal, log and the effects that serve it, e.g. ``web1:memory.limit``."""
        return f"{self.ve}:{self.path or self.op}"

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl plan -o json`."""
        return {
            "ve": self.ve,
            "op": self.op.value,
            "path": self.path,
            "before": self.before,
            "after": self.after,
            "reason": self.reason.value,
            "impact": self.impact.word,
            "downtime": {"seconds": self.downtime.seconds, "basis": self.downtime.basis.value},
            "reversible": self.reversible.value,
            "origin": self.origin.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What will not be done, by which rule, and how to allow it. ``rule`` is a PascalCase word for a condition."""

    ve: str
    rule: str
    message: str
    remedy: str = ""
    uid: Uid | None = None

    def to_json(self) -> dict[str, Json]:
        """Give the stable form of `vectl plan -o json`."""
        return {"ve": self.ve, "rule": self.rule, "message": self.message, "remedy": self.remedy}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A field that was changed by hand and is left alone by the VE's drift policy."""

    ve: str
    path: str
    desired: Json
    observed: Json
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFact:
    """What could not be read, so that nothing that depends on it is changed.

    ``ve``: the VE's name, or its uid where its record is unreadable; None for the host. ``path``: of the fact, empty
    where nothing is known of the VE, or where ``reason`` says all of it.
    """

    reason: str
    ve: str | None = None
    path: str = ""

    def __str__(self) -> str:
        """Give it in words, as plans have it, e.g. ``web1.network: Input/output error``."""
        if self.ve is None:
            return f"the host's {self.path}: {self.reason}" if self.path else self.reason
        return f"{self.ve}.{self.path}: {self.reason}" if self.path else f"{self.ve}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do on one host for one revision. ``waiting``: VE name to what it waits for; ``waits_as``: to the word
    for that in a condition, where it is a special one. ``orphans``: VEs that no
    manifest names any more and that are left alone because nobody asked to prune. ``orphan_snapshots``: the same of
    snapshots, as VE@SNAPSHOT.

    ``notes``: what else a person should know of the host, in sentences.
    ``ve_hashes``: by VE name, for consent. ``withheld``: what the manifests want and a person has to agree to first.
    """

    host: HostName
    revision: str
    actions: tuple[Action, ...] = ()
    refused: tuple[Refusal, ...] = ()
    unknown: tuple[UnknownFact, ...] = ()
    warned: tuple[Drift, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    waits_as: Mapping[str, str] = field(default_factory=dict)
    orphans: tuple[str, ...] = ()
    orphan_snapshots: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ve_hashes: Mapping[str, str] = field(default_factory=dict)
    action_hash: str = ""
    withheld: tuple[Action, ...] = ()

    @property
    def impact(self) -> Impact:
        """The worst impact of the plan."""
        return max((action.impact for action in self.actions), default=Impact.NONE)
