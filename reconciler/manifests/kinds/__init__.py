"""The kinds of manifests as pydantic models: every field with its type, its default and what it means.

A model holds canonical values (bytes, microseconds, seconds, addresses) as soon as it is validated. Its field
descriptions are the documentation: `vectl explain`, the JSON Schema and the reference are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.manifests.kinds.base import Manifest
from reconciler.manifests.kinds.host import Host
from reconciler.manifests.kinds.network import Network
from reconciler.manifests.kinds.ve import Profile, VirtualEnvironment
from reconciler.manifests.kinds.volume import Template

KINDS: Mapping[str, type[Manifest]] = {
    model.__name__: model for model in (VirtualEnvironment, Profile, Template, Network, Host)
}
