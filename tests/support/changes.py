"""What tests of a plan in words begin with: a change of one field, of which they make others."""

from __future__ import annotations

from reconciler.model.action import Action, Impact, Operation, Origin, Reason
from reconciler.model.compute import Limit, SetLimit
from reconciler.model.identity import HostName, Uid

NODE = HostName("node-a")
CHANGE = Action(
    ve="web1",
    uid=Uid("u-1"),
    op=Operation.UPDATE,
    path="memory.limit",
    before=512 << 20,
    after=1 << 30,
    reason=Reason.SPEC_CHANGED,
    impact=Impact.LIVE,
    origin=Origin.GIT,
    effects=(SetLimit(uid=Uid("u-1"), limit=Limit.MEMORY_LIMIT, value=1 << 30),),
)
