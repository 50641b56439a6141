"""Power as manifests write it: start, stop and order."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from reconciler.manifests.fields import Duration, Items, Name
from reconciler.manifests.kinds.base import Section
from reconciler.model import power

_DEFAULT = power.PowerSpec()

PowerWord = Annotated[power.Power, Strict(False)]
RestartWord = Annotated[power.RestartPolicy, Strict(False)]


class Boot(Section):
    """How the VE starts and stops."""

    order: int = Field(
        _DEFAULT.order, ge=-1000, le=1000, description="Place in the order of starts; lower numbers start earlier."
    )
    restart: RestartWord = Field(
        _DEFAULT.restart,
        description="Whether to start it again when its init ends unasked: after any end, after a failure, or never. "
        "A reboot from inside always restarts it.",
    )
    stop_timeout: Duration = Field(
        _DEFAULT.stop_timeout_s, description="Time for a clean shutdown, after which the rest is killed."
    )
    depends_on: Items[Name] = Field(_DEFAULT.depends_on, description="VEs that must be running before this one starts.")
