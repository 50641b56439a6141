"""The handover of a VE from one host to another: from what a host knows to the one next thing that it does.

There is one commit point: the transaction by which the source makes the target the owner. Before it only the source
may run the VE, after it only the target. Both sides act on what they wrote down and on what they read, never on time:
what is not known leads to no thaw, no kill and no discard.

The source may let its VE go on without asking anybody, as long as it never issued that transaction: nobody else can.
It writes `SourcePhase.COMMITTING` down before it issues it. From then on the VE stands still until a read tells: owned
by the target, the move went through; owned by the source with the move gone, it can never go through any more. While
the move stands the transaction may still be under way, so whoever wants the VE back ends the move first.

The target never decides that a VE is its own: it reads it. It lets nothing run before, and throws away what arrived
only after it read that the move is gone, or that a third one owns the VE. One that it cannot bring up it gives back by
a transaction of its own, which it writes down likewise: from then on nothing opens until a read tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from reconciler.model.moving import SourcePhase, TargetPhase


class Owner(StrEnum):
    """Who owns the VE, as it was read. `OTHER`: a third host. `NOBODY`: there is no record."""

    SOURCE = "source"
    TARGET = "target"
    OTHER = "other"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


class Standing(StrEnum):
    """Whether the move still stands, as it was read, before the owner was. Another move of the VE is `GONE`, too."""

    STANDS = "stands"
    GONE = "gone"
    UNKNOWN = "unknown"


class Leaving(StrEnum):
    """The VE at its source. `DOWN`: stopped or suspended; `GONE`: there is none any more."""

    RUNNING = "running"
    HELD = "held"
    DOWN = "down"
    GONE = "gone"


class Arriving(StrEnum):
    """The VE at its target. `PLACED`: there, and nothing of it runs; `REMEMBERED`: it can go on from a memory, too;
    `CLOSED`: its processes are made and have not taken a step."""

    NOTHING = "nothing"
    PLACED = "placed"
    REMEMBERED = "remembered"
    CLOSED = "closed"
    RUNNING = "running"


class Answer(StrEnum):
    """What the target last said of itself. `READY`: placed, and closed where its processes come along. `REFUSED`: it
    does not take the VE."""

    UNKNOWN = "unknown"
    RECEIVING = "receiving"
    PLACED = "placed"
    READY = "ready"
    RUNNING = "running"
    REFUSED = "refused"


class SourceStep(StrEnum):
    """What the source does next. Each can be done again after a crash at any point of it.

    `COPY`: send what there is while the VE goes on. `HOLD`: write down `SourcePhase.HOLDING`, and make it stand still.
    `SHIP`: send the rest, and have it placed. `RESTORE`: have its processes made, closed. `HAND_OVER`: write down
    `SourcePhase.COMMITTING`, and issue the transaction. `COMMIT`: write down that the VE is another's. `GO`: tell the
    target. `LET_GO`: write down `SourcePhase.ENDING`, and put the copy in the trash. `FINISH`: end the move, clear it
    and forget it. `RETURN`: write down `SourcePhase.RETURNING`. `THAW`: let it go on. `ABANDON`: end the move by a
    transaction. `CLEAR`: clear it here and forget it, which the target finds out. `ASK`: ask the target how far it is.
    `READ`: read who owns it, again.
    """

    COPY = "copy"
    HOLD = "hold"
    SHIP = "ship"
    RESTORE = "restore"
    HAND_OVER = "hand-over"
    COMMIT = "commit"
    GO = "go"
    LET_GO = "let-go"
    FINISH = "finish"
    RETURN = "return"
    THAW = "thaw"
    ABANDON = "abandon"
    CLEAR = "clear"
    ASK = "ask"
    READ = "read"


class TargetStep(StrEnum):
    """What the target does next by itself; what else it does the source asks for.

    `WAIT`: for the source. `READ`: read who owns it, again. `RESTORE`: make its processes, closed. `OPEN`: write down
    `TargetPhase.OPENING`, open its network and let it run. `SETTLE`: write down `TargetPhase.DONE`. `HAND_BACK`: write
    down `TargetPhase.REFUSING`, and make the source the owner again by a transaction. `DISCARD`: write down
    `TargetPhase.DISCARDING`, and delete what is here. `CLEAR`: clear the move and forget it. `FORGET`: forget it, and
    leave what is here as it is.
    """

    WAIT = "wait"
    READ = "read"
    RESTORE = "restore"
    OPEN = "open"
    SETTLE = "settle"
    HAND_BACK = "hand-back"
    DISCARD = "discard"
    CLEAR = "clear"
    FORGET = "forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What the source knows. ``is_live``: its processes are to come along. ``is_copied``: what can be sent beforehand
    was. ``gives_up``: nobody wants the move any more, or it has failed for too long."""

    phase: SourcePhase
    here: Leaving
    owner: Owner
    move: Standing
    answer: Answer
    is_live: bool
    is_copied: bool
    gives_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What the target knows. ``has_failed``: the processes could not be made here."""

    phase: TargetPhase
    here: Arriving
    owner: Owner
    move: Standing
    is_live: bool
    has_failed: bool


def source_step(facts: SourceFacts) -> SourceStep:
    """Give what the source of a move does next."""
    match facts.phase:
        case SourcePhase.PREPARING | SourcePhase.HOLDING | SourcePhase.RETURNING:
            return SourceStep.COMMIT if _is_anothers(facts.owner) else _uncommitted(facts)
        case SourcePhase.COMMITTING:
            return _committing(facts)
        case SourcePhase.COMMITTED:
            return _committed(facts)
        case SourcePhase.ENDING:
            return _ending(facts)
        case _:
            assert_never(facts.phase)


def target_step(facts: TargetFacts) -> TargetStep:
    """Give what the target of a move does next."""
    match facts.phase:
        case TargetPhase.RECEIVING:
            return _receiving(facts)
        case TargetPhase.REFUSING:
            return _refusing(facts)
        case TargetPhase.OPENING:
            return _opening(facts)
        case TargetPhase.DONE:
            return TargetStep.CLEAR if facts.move is Standing.GONE else TargetStep.WAIT
        case TargetPhase.DISCARDING:
            return _discarding(facts)
        case _:
            assert_never(facts.phase)


def answer_of(facts: TargetFacts) -> Answer:
    """Give what the target says of itself to the source."""
    if facts.phase is TargetPhase.DONE or facts.here is Arriving.RUNNING:
        return Answer.RUNNING
    if facts.phase in (TargetPhase.DISCARDING, TargetPhase.REFUSING) or facts.has_failed:
        return Answer.REFUSED
    if facts.here is Arriving.CLOSED:
        return Answer.READY
    if facts.here is Arriving.NOTHING:
        return Answer.RECEIVING
    return Answer.PLACED if facts.is_live else Answer.READY


def _is_anothers(owner: Owner) -> bool:
    return owner in (Owner.TARGET, Owner.OTHER)


def _uncommitted(facts: SourceFacts) -> SourceStep:
    """Decide while ownership was not handed over: whoever gives up here has to ask nobody."""
    if facts.phase is SourcePhase.RETURNING:
        return _returning(facts)
    if facts.gives_up or facts.answer is Answer.REFUSED or facts.move is Standing.GONE or facts.here is Leaving.GONE:
        return SourceStep.RETURN
    return _preparing(facts) if facts.phase is SourcePhase.PREPARING else _holding(facts)


def _preparing(facts: SourceFacts) -> SourceStep:
    if not facts.is_copied:
        return SourceStep.COPY
    # A coordinator that is away would keep the VE standing still for as long.
    return SourceStep.HOLD if _may_hand_over(facts) else SourceStep.READ


def _may_hand_over(facts: SourceFacts) -> bool:
    return facts.owner is Owner.SOURCE and facts.move is Standing.STANDS


def _holding(facts: SourceFacts) -> SourceStep:
    if facts.here is Leaving.RUNNING:
        return SourceStep.HOLD
    if (facts.here is Leaving.HELD) is not facts.is_live:
        return SourceStep.RETURN  # its processes are gone that were to come along, or are there and were not
    match facts.answer:
        case Answer.UNKNOWN:
            return SourceStep.ASK
        case Answer.READY:
            return SourceStep.HAND_OVER if _may_hand_over(facts) else SourceStep.READ
        case Answer.PLACED:
            return SourceStep.RESTORE
        case Answer.RUNNING:
            return SourceStep.READ
        case _:
            return SourceStep.SHIP


def _committing(facts: SourceFacts) -> SourceStep:
    if _is_anothers(facts.owner):
        return SourceStep.COMMIT
    if facts.owner is not Owner.SOURCE or facts.move is Standing.UNKNOWN:
        return SourceStep.READ
    if facts.move is Standing.GONE:
        return SourceStep.RETURN
    if facts.gives_up or facts.answer in (Answer.RECEIVING, Answer.REFUSED):
        return SourceStep.ABANDON
    match facts.answer:
        case Answer.READY:
            return SourceStep.HAND_OVER
        case Answer.PLACED:
            return SourceStep.RESTORE
        case _:
            return SourceStep.ASK


def _committed(facts: SourceFacts) -> SourceStep:
    match facts.owner:
        case Owner.TARGET:
            return SourceStep.LET_GO if facts.answer is Answer.RUNNING else SourceStep.GO
        case Owner.OTHER:
            return SourceStep.LET_GO
        case Owner.SOURCE if facts.move is Standing.GONE:
            return SourceStep.RETURN
        case _:
            return SourceStep.READ


def _ending(facts: SourceFacts) -> SourceStep:
    if facts.here is Leaving.GONE:
        return SourceStep.FINISH
    match facts.owner:
        case Owner.TARGET | Owner.OTHER:
            return SourceStep.LET_GO
        case Owner.SOURCE if facts.move is Standing.GONE:
            return SourceStep.RETURN
        case _:
            return SourceStep.READ


def _returning(facts: SourceFacts) -> SourceStep:
    if facts.here is Leaving.HELD:
        return SourceStep.THAW
    match facts.move:
        case Standing.STANDS:
            return SourceStep.ABANDON
        case Standing.GONE:
            return SourceStep.CLEAR
        case _:
            return SourceStep.READ


def _receiving(facts: TargetFacts) -> TargetStep:
    if facts.here is Arriving.RUNNING and facts.owner is not Owner.TARGET:
        return TargetStep.READ  # by whose hand, nobody knows: what runs is never thrown away
    match facts.owner:
        case Owner.TARGET:
            return _owned(facts)
        case Owner.SOURCE if facts.move is Standing.STANDS:
            return TargetStep.WAIT
        case Owner.OTHER:
            return TargetStep.DISCARD
        case Owner.SOURCE if facts.move is Standing.GONE:
            return TargetStep.DISCARD
        case _:
            return TargetStep.READ


def _owned(facts: TargetFacts) -> TargetStep:
    """Decide for a VE that is this host's now, and of which nothing has run here."""
    if facts.here is Arriving.RUNNING:
        return TargetStep.SETTLE
    if facts.here is Arriving.CLOSED:
        return TargetStep.OPEN
    if facts.here is Arriving.NOTHING or (facts.is_live and facts.here is Arriving.PLACED):
        return TargetStep.HAND_BACK if facts.move is Standing.STANDS else TargetStep.READ
    if not facts.is_live:
        return TargetStep.OPEN
    if not facts.has_failed:
        return TargetStep.RESTORE
    return TargetStep.HAND_BACK if facts.move is Standing.STANDS else TargetStep.OPEN


def _refusing(facts: TargetFacts) -> TargetStep:
    """Decide once ownership may be going back: nothing opens before it is known that it does not."""
    if facts.owner is Owner.TARGET:
        return TargetStep.READ if facts.move is Standing.UNKNOWN else _refused(facts)
    return _receiving(facts)


def _refused(facts: TargetFacts) -> TargetStep:
    return TargetStep.HAND_BACK if facts.move is Standing.STANDS else TargetStep.SETTLE


def _opening(facts: TargetFacts) -> TargetStep:
    """Decide for a VE that may have run here: then what is here is newer than what the source has."""
    match facts.owner:
        case Owner.TARGET:
            return _opened(facts)
        case Owner.UNKNOWN:
            return TargetStep.READ
        case _:
            return TargetStep.FORGET


def _opened(facts: TargetFacts) -> TargetStep:
    match facts.here:
        case Arriving.CLOSED:
            return TargetStep.OPEN
        case Arriving.REMEMBERED if facts.is_live and not facts.has_failed:
            return TargetStep.RESTORE
        case _:
            return TargetStep.SETTLE


def _discarding(facts: TargetFacts) -> TargetStep:
    if facts.here is Arriving.RUNNING:
        return TargetStep.FORGET
    match facts.owner:
        case Owner.TARGET:
            return TargetStep.FORGET  # somebody gave it to this host meanwhile; what is here is its data
        case Owner.SOURCE if facts.move is Standing.GONE:
            return TargetStep.DISCARD
        case Owner.OTHER:
            return TargetStep.DISCARD
        case _:
            return TargetStep.READ
