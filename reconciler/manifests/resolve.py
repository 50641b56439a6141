"""Resolving: a VE's document, its profiles, its networks and its template to one spec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from reconciler.manifests import canonical, merge, unsupported, words
from reconciler.manifests.checks import network as network_checks
from reconciler.manifests.checks import ve as ve_checks
from reconciler.manifests.checks.fleet import MergedVe
from reconciler.manifests.document import Complaint, Document, complain
from reconciler.manifests.kinds.network import Network, NetworkBody
from reconciler.manifests.kinds.ve import VeBody, VirtualEnvironment
from reconciler.manifests.kinds.volume import Template
from reconciler.manifests.problem import did_you_mean
from reconciler.model.facts import Json
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import NetworkName, TemplateName
from reconciler.model.network import Address, NetworkSpec
from reconciler.model.volume import TemplateSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What VEs share: the valid documents of the other kinds, and what is made of them.

    ``digest`` names the documents. ``known_profiles`` holds broken ones too; ``certain``: there are no others.
    """

    digest: bytes
    profiles: Mapping[str, Document]
    bodies: Mapping[str, NetworkBody]
    networks: Mapping[NetworkName, NetworkSpec]
    gateways: Mapping[NetworkName, tuple[Address, ...]]
    templates: Mapping[TemplateName, TemplateSpec]
    unsupported: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    known_profiles: frozenset[str] = frozenset()
    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedVe:
    """``merged`` holds only what the VE says itself where a profile is unknown or broken.

    ``spec`` is None where anything is wrong.
    """

    merged: MergedVe
    spec: VeSpec | None
    complaints: tuple[Complaint, ...] = ()


def shared(
    profiles: Mapping[str, Document],
    networks: Mapping[str, Document],
    templates: Mapping[str, Document],
    *,
    known_profiles: frozenset[str],
    certain: bool,
) -> Shared:
    """Gather what VEs share."""
    keys = sorted(document.key for documents in (profiles, networks, templates) for document in documents.values())
    network_models = [document.model for document in networks.values() if isinstance(document.model, Network)]
    template_models = [document.model for document in templates.values() if isinstance(document.model, Template)]
    template_specs = {spec.name: spec for spec in (canonical.BUSYBOX, *map(canonical.template, template_models))}
    return Shared(
        digest=hashlib.sha256(repr(keys).encode()).digest(),
        profiles=profiles,
        bodies={model.metadata.name: model.spec for model in network_models},
        networks={NetworkName(model.metadata.name): canonical.network(model) for model in network_models},
        gateways={NetworkName(model.metadata.name): model.spec.gateway for model in network_models},
        templates=template_specs,
        unsupported={
            **{("network", m.metadata.name): unsupported.network_fields(m.spec) for m in network_models},
        },
        known_profiles=known_profiles,
        certain=certain,
    )


def resolve(document: Document, context: Shared) -> ResolvedVe:
    """Merge a VE with its profiles, check it by itself and against its networks, and make its spec."""
    manifest = document.model
    assert isinstance(manifest, VirtualEnvironment)  # the caller sorted the documents by kind
    own = (*_unknown_profiles(document, manifest.spec, context), *ve_checks.written(document, manifest.spec))
    body, complaints = _merged(document, manifest.spec, context)
    if body is None:
        alone = MergedVe(document=document, metadata=manifest.metadata, body=manifest.spec, whole=False)
        return ResolvedVe(merged=alone, spec=None, complaints=(*own, *complaints))
    found = (
        *own,
        *ve_checks.merged(document, body),
        *network_checks.interfaces(document, body, context.bodies),
    )
    merged = MergedVe(document=document, metadata=manifest.metadata, body=body)
    return ResolvedVe(merged=merged, spec=None if found else _spec(merged, context), complaints=found)


def _unknown_profiles(document: Document, body: VeBody, context: Shared) -> Iterator[Complaint]:
    for position, name in enumerate(body.profile):
        if context.certain and name not in context.known_profiles:
            hint = did_you_mean(name, sorted(context.known_profiles)) or "declare it, with 'kind: Profile'"
            yield complain(document, ("spec", "profile", position), f"unknown Profile {name!r}", hint)


def _merged(document: Document, body: VeBody, context: Shared) -> tuple[VeBody | None, tuple[Complaint, ...]]:
    if not body.profile or document.raw is None:
        return body, ()
    if not all(name in context.profiles for name in body.profile):
        return None, ()
    raw = [_raw(context.profiles[name]) for name in body.profile]
    spec = merge.merge([*raw, document.raw])
    try:
        return VeBody.model_validate(spec), ()
    except ValidationError as err:
        return None, tuple(
            complain(document, ("spec", *problem.path), problem.message, problem.hint)
            for problem in words.problems(err, VeBody, spec)
        )


def _raw(profile: Document) -> dict[str, Json]:
    return profile.raw or {}


def _spec(merged: MergedVe, context: Shared) -> VeSpec:
    users = [("template", merged.body.template)]
    users += [("network", interface.network) for interface in merged.body.interfaces if interface.network is not None]
    return canonical.ve(
        merged.metadata,
        merged.body,
        networks=context.networks,
        gateways=context.gateways,
        unsupported_elsewhere=tuple(
            f"{kind} {name} ({path})"
            for kind, name in dict.fromkeys(users)
            for path in context.unsupported.get((kind, name), ())
        ),
        place=merged.document.place,
    )
