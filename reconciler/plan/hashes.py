"""Hashes of plans: what a reviewer consents to, equal wherever the same change is planned."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable

from reconciler.model.action import Action, Impact, Operation, Origin
from reconciler.model.facts import Json
from reconciler.model.identity import HostName


def canonical(value: Json) -> bytes:
    """Give the one byte form of a JSON value: sorted keys, no white space, no escapes beyond need.

    Source: RFC 8785 in spirit; numbers are integers and short floats here, which Python prints the same way.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def ve_hashes(host: HostName, actions: Iterable[Action]) -> dict[str, str]:
    """Hash the intent of each VE: (host, name, op, path, after, impact) of its actions of origin git, sorted.

    Nothing that differs between a review and the host takes part: no uid, before, time, drift or downtime. Whether a
    live change is a risk rests on what the VE uses at the moment, whether it is one at all on whether the VE runs and
    the host can enforce the field, whether a new VE finds its data in the trash on the host, and whether a change of
    the host's own could cut it off on what it is reached by.
    """
    by_ve: dict[str, list[Json]] = defaultdict(list)
    for action in actions:
        if action.origin is Origin.GIT:
            op, impact = hashed_op(action), hashed_impact(action)
            by_ve[action.ve].append([op.value, action.path, action.after, impact.word])
    return {
        ve: hashlib.sha256(canonical([host, ve, sorted(parts, key=canonical)])).hexdigest()
        for ve, parts in sorted(by_ve.items())
    }


def hashed_op(action: Action) -> Operation:
    """Give the operation of an action as far as it is the same in a review and on the host: what a host finds in its
    trash is made anew elsewhere."""
    return Operation.CREATE if action.op is Operation.RESTORE else action.op


def hashed_impact(action: Action) -> Impact:
    """Give the impact of an action as far as it is the same in a review and on the host: what it is by its kind."""
    impact = action.impact if action.base is None else action.base
    return Impact.LIVE if impact <= Impact.LIVE_RISK else impact


def action_hash(hashes: Iterable[str]) -> str:
    """Hash a host's plan from its VEs' hashes; the empty plan has a hash too."""
    return hashlib.sha256(canonical([*sorted(hashes)])).hexdigest()
