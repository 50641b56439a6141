"""Views: a VE sees its own memory, CPUs and uptime wherever the host can show them, whatever became of lxcfs."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.action import Impact
from reconciler.model.effects import Effect
from reconciler.model.identity import Uid
from reconciler.model.observation import Capabilities, Facet
from reconciler.model.views import PATH, ShowViews, Views
from reconciler.plan.field import Difference, Field, Value

FIELDS = (
    Field(path=PATH, facet=Facet.VIEWS, impact=Impact.LIVE, default="own", effect="/proc and /sys show the VE's share"),
)


def desired_values(capabilities: Capabilities) -> dict[str, Value]:
    """Give what a VE should see: what is not to be had on this host is better the host's than broken."""
    return {PATH: Views.HOST if PATH in capabilities.why_not else Views.OWN}


def observed_values(observed: Views) -> dict[str, Value]:
    """Give what a VE sees, by path."""
    return {PATH: observed}


def unenforceable(capabilities: Capabilities) -> Mapping[str, str]:
    """Say why a VE sees the host's, if it does, by path."""
    return {path: reason for path, reason in capabilities.why_not.items() if path == PATH}


def set_effects(uid: Uid, difference: Difference) -> tuple[Effect, ...]:
    """Show what should be seen."""
    assert isinstance(difference.desired, Views)
    return (ShowViews(uid=uid, views=difference.desired),)
