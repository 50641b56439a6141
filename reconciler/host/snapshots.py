"""Snapshots: the kept states of VEs' data, and what returns to one of them."""

from __future__ import annotations

from reconciler.errors import StateError
from reconciler.host.site import Site
from reconciler.model.effects import Effect, effect_name


def unbuilt(site: Site, effect: Effect) -> None:
    """Refuse an effect.

    Raises: StateError.
    """
    raise StateError(f"perform {effect_name(effect)} on {site.instance.name}: not built yet")
