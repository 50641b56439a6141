"""Resolving: a VE's document, its profiles, its networks and its template to one spec."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pydantic import ValidationError

from reconciler.manifests import canonical, merge, unsupported, words
from reconciler.manifests.checks import network as network_checks
from reconciler.manifests.checks import ve as ve_checks
from reconciler.manifests.document import Complaint, Document, complain
from reconciler.manifests.kinds.host import Host
from reconciler.manifests.kinds.network import Network, NetworkBody
from reconciler.manifests.kinds.ve import Profile, VeBody, VeMetadata, VirtualEnvironment
from reconciler.manifests.kinds.volume import Template
from reconciler.manifests.problem import did_you_mean
from reconciler.manifests.resolved import Commons, Port, ResolvedVe, Shared, Stake
from reconciler.model.facts import Json
from reconciler.model.fleet import HostSpec, VeSpec
from reconciler.model.identity import NetworkName


def commons(networks: Iterable[Document], templates: Iterable[Document], hosts: Collection[HostSpec]) -> Commons:
    """Make what VEs share. ``hosts``: of the fleet."""
    network_models = [document.model for document in networks if isinstance(document.model, Network)]
    template_models = [document.model for document in templates if isinstance(document.model, Template)]
    return Commons(
        networks={NetworkName(model.metadata.name): canonical.network(model, hosts) for model in network_models},
        gateways={NetworkName(model.metadata.name): model.spec.gateway for model in network_models},
        templates={spec.name: spec for spec in (canonical.BUSYBOX, *map(canonical.template, template_models))},
        unsupported={model.metadata.name: unsupported.network_fields(model.spec) for model in network_models},
    )


def shared_complaints(profiles: Iterable[Document], networks: Iterable[Document]) -> Iterator[Complaint]:
    """Check the documents that VEs share, each by itself."""
    for document in networks:
        if isinstance(document.model, Network):
            yield from network_checks.network(document, document.model.spec)
    for document in profiles:
        if isinstance(document.model, Profile):
            yield from ve_checks.written(document, document.model.spec)


def host(document: Document) -> HostSpec:
    """Make a host's spec."""
    manifest = document.model
    assert isinstance(manifest, Host)  # the caller sorted the documents by kind
    return canonical.host(manifest)


def resolve(document: Document, context: Shared) -> ResolvedVe:
    """Merge a VE with its profiles, check it by itself and against its networks, and make its spec."""
    manifest = document.model
    assert isinstance(manifest, VirtualEnvironment)  # the caller sorted the documents by kind
    own = (*_unknown_profiles(document, manifest.spec, context), *ve_checks.written(document, manifest.spec))
    body, complaints = _merged(document, manifest.spec, context)
    if body is None:
        alone = _stake(manifest.metadata, manifest.spec)
        return ResolvedVe(document=document, stake=alone, spec=None, whole=False, complaints=(*own, *complaints))
    found = (
        *own,
        *ve_checks.merged(document, body),
        *network_checks.interfaces(document, body, _bodies(body, context)),
    )
    spec = None if found else _spec(document, manifest.metadata, body, context)
    return ResolvedVe(document=document, stake=_stake(manifest.metadata, body), spec=spec, complaints=found)


def _bodies(body: VeBody, context: Shared) -> dict[str, NetworkBody]:
    """Give the networks of a VE, as far as they are known."""
    named = {interface.network for interface in body.interfaces} & context.networks.keys()
    models = {name: context.networks[name].model for name in named if name is not None}
    return {name: model.spec for name, model in models.items() if isinstance(model, Network)}


def _stake(metadata: VeMetadata, body: VeBody) -> Stake:
    return Stake(
        template=body.template,
        host=body.host,
        uid=metadata.uid,
        renamed_from=metadata.renamed_from,
        ports=tuple(
            Port(name=one.name, network=one.network, addresses=one.addresses, mac=one.mac) for one in body.interfaces
        ),
        depends_on=body.boot.depends_on,
        replicas=body.replicas.hosts if body.replicas else (),
        nics=tuple(device.nic for device in body.devices if device.nic is not None),
        clone=body.source.clone if body.source else None,
    )


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


def _spec(document: Document, metadata: VeMetadata, body: VeBody, context: Shared) -> VeSpec:
    networks = dict.fromkeys(interface.network for interface in body.interfaces if interface.network is not None)
    return canonical.ve(
        metadata,
        body,
        networks=context.commons.networks,
        gateways=context.commons.gateways,
        unsupported_elsewhere=tuple(
            f"network {name} ({path})" for name in networks for path in context.commons.unsupported.get(name, ())
        ),
        place=document.place,
    )
