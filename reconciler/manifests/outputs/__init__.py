"""JSON Schema of what the commands print for scripts. Written by hand: these are promises, not consequences of code.

Fields may be added under the same ``format``; what is here stays, or the number goes up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.manifests.outputs import plans, sources, standing
from reconciler.manifests.outputs.parts import FORMAT, Schema

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_BODIES: Mapping[str, Callable[[], Schema]] = {
    "plan": plans.plan,
    "plan-between": plans.plan_between,
    "apply": plans.apply,
    "place": plans.place,
    "validate": plans.validate,
    "import": plans.import_,
    "get": standing.get,
    "beancounters": standing.beancounters,
    "quota": standing.quota,
    "capacity": standing.capacity,
    "audit": sources.audit,
    "source-check": sources.source_check,
    "source-status": sources.source_status,
    "source-verify": sources.source_verify,
    "notification": sources.notification,
}


def json_schemas() -> dict[str, Schema]:
    """Give the schema of each command's ``-o json``, and of what is sent, by name."""
    return {
        name: {"$schema": _DIALECT, "$id": f"urn:vectl:output:v{FORMAT}:{name}", **body()}
        for name, body in _BODIES.items()
    }
