"""A move, of which tests make others."""

from __future__ import annotations

from reconciler.model.identity import HostName, Uid, VeName
from reconciler.model.ownership import Move, Strategy

UID = Uid("5b0d9c1e-7a42-4a57-9d10-2f6c4b8e1a00")
MOVE = Move(
    id="m1",
    uid=UID,
    name=VeName("web1"),
    source=HostName("node-a"),
    target=HostName("node-b"),
    strategy=Strategy.LIVE,
    begun_at=1_700_000_000.5,
    revision=7,
)
