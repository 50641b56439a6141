"""What documents become: values of the model, and what of a VE matters to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.manifests.document import Complaint, Document
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import NetworkName, TemplateName
from reconciler.model.network import Address, Interface, NetworkSpec
from reconciler.model.volume import TemplateSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An interface of a VE as it is written. ``network`` None: not said."""

    name: str
    network: str | None = None
    addresses: tuple[Interface, ...] = ()
    mac: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """What of a VE other documents have to do with, in the order in which it is written."""

    template: str
    host: str | None = None
    uid: str | None = None
    renamed_from: str | None = None
    ports: tuple[Port, ...] = ()
    depends_on: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    clone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commons:
    """What is made of the documents that VEs share. ``gateways``: the networks' own, in the order they are written in.

    ``unsupported``: what networks ask for and is not carried out.
    """

    networks: Mapping[NetworkName, NetworkSpec]
    gateways: Mapping[NetworkName, tuple[Address, ...]]
    templates: Mapping[TemplateName, TemplateSpec]
    unsupported: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What VEs share: the valid documents of the other kinds, and what is made of them.

    ``digest`` names the documents. ``known_profiles`` holds broken ones too; ``certain``: there are no others.
    """

    digest: bytes
    profiles: Mapping[str, Document]
    networks: Mapping[str, Document]
    commons: Commons
    complaints: tuple[Complaint, ...] = ()
    known_profiles: frozenset[str] = frozenset()
    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedVe:
    """``spec`` is None where anything is wrong.

    ``whole`` False: where a profile is unknown or broken, ``stake`` is only what the VE says itself; that holds all
    the same.
    """

    document: Document
    stake: Stake
    spec: VeSpec | None
    whole: bool = True
    complaints: tuple[Complaint, ...] = ()
