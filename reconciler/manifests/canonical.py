"""Canonical form: validated manifests to the frozen values of `model`, that compare with ``==``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from reconciler.manifests import addressing, settings, unsupported
from reconciler.manifests.kinds.compute import Rlimits
from reconciler.manifests.kinds.host import Host, Overcommit
from reconciler.manifests.kinds.network import Network
from reconciler.manifests.kinds.ve import VeBody, VeMetadata
from reconciler.manifests.kinds.volume import DiskQuota, Template, TemplateOrigin
from reconciler.model.compute import ComputeSpec
from reconciler.model.devices import FUSE, DevicesSpec
from reconciler.model.fleet import DriftSpec, HostSpec, Place, VeSpec
from reconciler.model.identity import Digest, HostName, NetworkName, SnapshotName, TemplateName, Uid, VeName
from reconciler.model.mounts import MountSpec
from reconciler.model.network import Address, Forward, NetworkSpec, Resolver, VeNetworkSpec
from reconciler.model.power import PowerSpec
from reconciler.model.quota import QUOTA_UNIT, WEEK_S, QuotaLimit, Quotas
from reconciler.model.snapshots import (
    CloneSource,
    FreshSource,
    RollbackRequest,
    SnapshotSchedule,
    SnapshotsSpec,
    Source,
)
from reconciler.model.volume import (
    BuiltinSource,
    DebootstrapSource,
    ImageSource,
    OciSource,
    SimplestreamsSource,
    TarballSource,
    TemplateSource,
    TemplateSpec,
    VolumeSpec,
)

RLIMIT_UNLIMITED = 2**64 - 1
"""Source: Linux include/uapi/linux/resource.h, RLIM64_INFINITY."""

_OPERATIONS_UNLIMITED = 2**32 - 1
"""Source: Linux block/blk-throttle.c, tg_set_limit: what an operations limit of UINT_MAX and above becomes."""

_PAGE = 4096
"""The kernel keeps memory limits in pages and rounds down; what it keeps is what is asked for.

Source: Linux mm/page_counter.c, page_counter_memparse.
"""


_PLACES: Mapping[type, tuple[str, ...]] = {
    TarballSource: ("path", "url"),
    OciSource: ("image",),
    SimplestreamsSource: ("server", "alias"),
}
"""The fields of a source that say where something comes from whose content is pinned by another."""


def template_key(source: TemplateSource) -> Digest:
    """Name a template's source: the SHA-256 of its canonical JSON. Equal sources share one image.

    What is pinned by its content is the same wherever it comes from.
    """
    fields = {name: value for name, value in asdict(source).items() if name not in _PLACES.get(type(source), ())}
    if fields.get("setuid") == "keep":
        del fields["setuid"]
    value = {type(source).__name__.removesuffix("Source").lower(): fields}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def template_spec(name: TemplateName, source: TemplateSource, init: tuple[str, ...] = ("/sbin/init",)) -> TemplateSpec:
    """Make a template of a source."""
    return TemplateSpec(name=name, key=template_key(source), source=source, init=init)


BUSYBOX = template_spec(TemplateName("busybox"), BuiltinSource(name="busybox"))
"""The template that exists undeclared."""


def template(manifest: Template) -> TemplateSpec:
    """Make a template's spec."""
    source = _template_source(manifest.spec.source)
    return template_spec(TemplateName(manifest.metadata.name), source, manifest.spec.init)


def _template_source(origin: TemplateOrigin) -> TemplateSource:
    if (debootstrap := origin.debootstrap) is not None:
        return DebootstrapSource(
            suite=debootstrap.suite,
            packages=tuple(sorted(set(debootstrap.packages))),
            mirror=debootstrap.mirror,
            variant=debootstrap.variant,
        )
    if (tarball := origin.tarball) is not None:
        return TarballSource(sha256=tarball.sha256, path=tarball.path, url=tarball.url, setuid=tarball.setuid)
    if (oci := origin.oci) is not None:
        return OciSource(image=oci.image, digest=oci.digest, setuid=oci.setuid)
    if (streams := origin.simplestreams) is not None:
        return SimplestreamsSource(
            server=streams.server, alias=streams.alias, fingerprint=streams.fingerprint, setuid=streams.setuid
        )
    if origin.image is not None:
        return ImageSource(digest=origin.image)
    return BuiltinSource(name=origin.builtin or "busybox")


def network(manifest: Network, hosts: Iterable[HostSpec] = ()) -> NetworkSpec:
    """Make a network's spec. ``hosts``: all of the fleet, for one that spans them."""
    body = manifest.spec
    vxlan = addressing.vxlan(body, hosts)
    return NetworkSpec(
        name=NetworkName(manifest.metadata.name),
        mode=body.mode,
        subnets=body.subnets,
        gateways=addressing.gateway_interfaces(body),
        nat=body.nat,
        forwards=tuple(
            Forward(listen=forward.listen, ve=forward.to[0], port=forward.to[1], protocol=forward.protocol)
            for forward in body.forwards
        ),
        uplink=body.uplink,
        mtu=addressing.packet_size(body, vxlan),
        isolated=body.isolated,
        vxlan=vxlan,
    )


def host(manifest: Host) -> HostSpec:
    """Make a host's spec."""
    body = manifest.spec
    return HostSpec(
        name=HostName(manifest.metadata.name),
        labels=manifest.metadata.labels,
        address=None if body.address is None else str(body.address),
        port=body.port,
        public_key=body.public_key,
        capacity={name: size for name, size in body.capacity if size is not None},
        reserve_memory=body.reserve.memory,
        reserve_cpu=float(body.reserve.cpu),
        reserve_disk=body.reserve.disk,
        overcommit=_overcommit(body.overcommit),
        maintenance=body.maintenance,
    )


def _overcommit(factors: Overcommit) -> dict[str, float]:
    return {name: float(factor) for name, factor in factors if factor is not None}


def ve(
    metadata: VeMetadata,
    body: VeBody,
    *,
    networks: Mapping[NetworkName, NetworkSpec],
    gateways: Mapping[NetworkName, tuple[Address, ...]],
    unsupported_elsewhere: tuple[str, ...] = (),
    place: Place | None = None,
) -> VeSpec:
    """Make a VE's spec from its spec as merged with its profiles.

    ``unsupported_elsewhere``: what its template and its networks ask for and is not carried out.
    """
    name = VeName(metadata.name)
    return VeSpec(
        name=name,
        uid=None if metadata.uid is None else Uid(metadata.uid),
        renamed_from=None if metadata.renamed_from is None else VeName(metadata.renamed_from),
        labels=metadata.labels,
        description=body.description or "",
        host=None if body.host is None else HostName(body.host),
        power=_power(body),
        compute=_compute(body),
        volume=_volume(body),
        network=VeNetworkSpec(
            hostname=body.hostname or name,
            resolver=_resolver(body),
            interfaces=addressing.interface_specs(body.interfaces, networks, gateways),
        ),
        mounts=_mounts(body),
        devices=DevicesSpec(
            nodes={
                **({FUSE: "rw"} if body.features.fuse else {}),
                **{device.path: device.access for device in body.devices if device.path is not None},
            },
            nics=frozenset(device.nic for device in body.devices if device.nic is not None),
        ),
        settings=settings.settings(body),
        snapshots=_snapshots(body),
        source=_source(body),
        keep=tuple(sorted({path.rstrip("/") for path in body.keep})),
        rlimits={**settings.rlimits(body.beancounters), **_rlimits(body.rlimits)},
        nesting=body.features.nesting,
        fuse=body.features.fuse,
        spread=tuple(sorted(set(body.spread))),
        protect=body.protect,
        drift=DriftSpec(default=body.drift.default, fields=body.drift.fields),
        unsupported=(*unsupported.ve_fields(body), *unsupported_elsewhere),
        place=place,
    )


def _power(body: VeBody) -> PowerSpec:
    return PowerSpec(
        state=body.power,
        restart=body.boot.restart,
        stop_timeout_s=body.boot.stop_timeout,
        order=body.boot.order,
        depends_on=tuple(sorted({VeName(name) for name in body.boot.depends_on})),
    )


def _compute(body: VeBody) -> ComputeSpec:
    return ComputeSpec(
        cpu_weight=body.cpu.weight,
        cpu_limit_us=body.cpu.limit,
        cpu_guarantee_us=body.cpu.guarantee,
        cpus=body.cpu.cpus,
        nodes=body.cpu.nodes,
        memory_limit=_whole_pages(body.memory.limit),
        memory_barrier=_whole_pages(body.memory.barrier),
        memory_guarantee=body.memory.guarantee // _PAGE * _PAGE,
        swap=_whole_pages(body.memory.swap),
        processes=body.processes,
        io_weight=body.io.weight,
        io_read=body.io.read,
        io_write=body.io.write,
        io_read_ops=_operations(body.io.read_ops),
        io_write_ops=_operations(body.io.write_ops),
    )


def _volume(body: VeBody) -> VolumeSpec:
    disk = body.disk
    quotas = Quotas(inodes=disk.inodes, users=_quotas(disk.users), groups=_quotas(disk.groups))
    return VolumeSpec(template=TemplateName(body.template), size=disk.size, snapshots=disk.snapshots, quotas=quotas)


def _snapshots(body: VeBody) -> SnapshotsSpec:
    schedule, rollback = body.snapshot_schedule, body.rollback
    return SnapshotsSpec(
        named={SnapshotName(snapshot.name): snapshot.memory for snapshot in body.snapshots},
        schedule=None if schedule is None else SnapshotSchedule(every_s=schedule.every, keep=schedule.keep),
        rollback=None if rollback is None else RollbackRequest(to=SnapshotName(rollback.to), request=rollback.request),
    )


def _source(body: VeBody) -> Source | None:
    source = body.source
    if source is None:
        return None
    if source.clone is None:
        return FreshSource()
    snapshot = None if source.snapshot is None else SnapshotName(source.snapshot)
    return CloneSource(ve=VeName(source.clone), snapshot=snapshot)


def _quotas(entries: Sequence[DiskQuota]) -> dict[int, QuotaLimit]:
    """Give the quotas of all users or groups; an entry that says nothing of grace has that of the others."""
    said = [round(entry.grace) for entry in entries if "grace" in entry.model_fields_set]
    grace_s = said[0] if said else WEEK_S
    limits = {entry.id: _quota(entry, grace_s) for entry in entries}
    return {number: limit for number, limit in sorted(limits.items()) if not limit.limits_nothing}


def _quota(entry: DiskQuota, grace_s: int) -> QuotaLimit:
    return QuotaLimit(
        soft=_whole_kibibytes(entry.soft),
        hard=_whole_kibibytes(entry.hard),
        soft_files=entry.soft_files,
        hard_files=entry.hard_files,
        grace_s=grace_s,
    )


def _whole_kibibytes(size: int | None) -> int | None:
    return None if size is None else size // QUOTA_UNIT * QUOTA_UNIT


def _operations(limit: int | None) -> int | None:
    return None if limit is None or limit >= _OPERATIONS_UNLIMITED else limit


def _whole_pages(size: int | None) -> int | None:
    return None if size is None else size // _PAGE * _PAGE


def _resolver(body: VeBody) -> Resolver | None:
    dns = body.dns
    if dns is None or not dns.model_fields_set:
        return None
    return Resolver(servers=tuple(str(server) for server in dns.servers), search=dns.search)


def _mounts(body: VeBody) -> dict[str, MountSpec]:
    """Give the mounts by target; one without a source is complained about elsewhere."""
    return {
        mount.target.rstrip("/"): MountSpec(source=mount.source.rstrip("/") or "/", read_only=mount.read_only)
        for mount in body.mounts
        if mount.source is not None
    }


def _rlimits(rlimits: Rlimits) -> dict[str, int]:
    limits = {}
    for name in rlimits.model_fields_set:
        value = getattr(rlimits, name)
        written = Rlimits.model_fields[name].alias or name
        limits[written] = RLIMIT_UNLIMITED if value is None else value
    return dict(sorted(limits.items()))
