"""Volume: a VE's template, its own data, its record, and the trash they may end in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from reconciler.model.facts import Json
from reconciler.model.identity import Digest, SnapshotName, TemplateName, Uid, VeName
from reconciler.model.quota import QuotaKind, Quotas, QuotaUse


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinSource:
    """A template that vectl builds from what the host has, without a network."""

    name: str = "busybox"


@dataclass(frozen=True, slots=True, kw_only=True)
class DebootstrapSource:
    """A Debian or Ubuntu suite, built by mmdebstrap from the host's own package sources unless a mirror is named."""

    suite: str
    packages: tuple[str, ...] = ()
    mirror: str | None = None
    variant: str = "minbase"


SETUID = ("keep", "drop", "refuse")
"""What becomes of the programs of an image that was made elsewhere, where they run with other rights than their
caller's: they stay so, lose that, or the image is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TarballSource:
    """A tar archive of a root file system, by path or URL, pinned by its SHA-256. ``setuid``: one of `SETUID`."""

    sha256: str
    path: str | None = None
    url: str | None = None
    setuid: str = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class OciSource:
    """An OCI image, pinned by its digest. ``setuid``: one of `SETUID`."""

    image: str
    digest: str
    setuid: str = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimplestreamsSource:
    """An image of an Incus or LXC image server, pinned by its fingerprint. ``setuid``: one of `SETUID`."""

    server: str
    alias: str
    fingerprint: str
    setuid: str = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """An image that is on the host already, as one that was made of a VE, by its own digest."""

    digest: str


TemplateSource: TypeAlias = (
    BuiltinSource | DebootstrapSource | TarballSource | OciSource | SimplestreamsSource | ImageSource
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSpec:
    """A template by name; ``key`` names its content, so equal sources share one image whatever they are called.

    Shape: ``key`` is the SHA-256 of the source's canonical JSON, of one that is pinned without the place it is from.
    """

    name: TemplateName
    key: Digest
    source: TemplateSource
    init: tuple[str, ...] = ("/sbin/init",)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """``template`` is read at creation only. ``snapshots``: what its snapshots may hold beside it. ``quotas``: inside;
    a volume that is to have some is made as an image, with a file system of its own.

    Units: bytes, None for unlimited.
    """

    template: TemplateName
    size: int | None = 8 << 30
    snapshots: int | None = None
    quotas: Quotas = field(default_factory=Quotas)

    @property
    def is_image(self) -> bool:
        """Whether it takes a file system of its own to carry it out."""
        return not self.quotas.limits_nothing

    @property
    def total(self) -> int | None:
        """What the volume and its snapshots may refer to together. Units: bytes, None for unlimited."""
        return None if self.size is None or self.snapshots is None else self.size + self.snapshots


def pool_bytes(spec: VolumeSpec, *, snapshots: int = 0) -> int | None:
    """Give what a volume may come to take of the pool, or None if nothing bounds it.

    ``snapshots``: how many of it are kept. Each of an image takes an image's size more: what is overwritten in place
    has to go elsewhere once, and a file system whose device has no room for that loses what was written. Those of a
    directory take what they were given.

    Units: bytes.
    """
    if spec.size is None:
        return None
    if spec.is_image:
        return spec.size + max(spec.size * snapshots, spec.snapshots or 0)
    return spec.size + (spec.snapshots or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The durable state of a VE that lies beside its data and travels with it.

    ``applied``: the fields of the last spec that was carried out, canonical JSON by path; what differs from it is
    intent, what differs from the host though equal to it is drift. ``protect`` outlives the manifest. ``source``
    names the source that the VE came from: another source never prunes it. ``cpu_weight``: the weight that was carried
    out, where the guarantees of the VEs of the host make it another one than was applied. Units: ``created_at`` seconds
    since the epoch.
    """

    uid: Uid
    name: VeName
    id_base: int
    template: TemplateName
    template_digest: Digest | None
    init: tuple[str, ...]
    source: str
    created_at: float
    protect: bool = False
    applied: Mapping[str, Json] = field(default_factory=dict)
    cpu_weight: int | None = None
    requests_done: tuple[str, ...] = ()
    snapshot_births: Mapping[str, float] = field(default_factory=dict)

    def with_done(self, requests: Iterable[str]) -> Record:
        """Give the record of a VE for which these requests count as done."""
        new = tuple(request for request in requests if request not in self.requests_done)
        return replace(self, requests_done=(*self.requests_done, *new)) if new else self


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeObservation:
    """``present``: the subvolume with its upper and work directories exists. ``size``: the limit in force on it;
    ``total``: that on it and its snapshots together. ``is_image``: a file system of its own lies in it, whose size is
    ``size``, with room for ``room`` files. ``quotas``: those in it, None where there are none or the VE is down.

    What is in use takes no part in comparisons: ``used`` by the volume, ``held`` by it and its snapshots together,
    ``files`` in an image, ``quota_use`` of each user and group; ``shares``: others have data of it and are not held to
    a limit with it, so that none can be set any more.
    Units: bytes.
    """

    present: bool
    size: int | None = None
    total: int | None = None
    is_image: bool = False
    quotas: Quotas | None = None
    room: int | None = field(default=None, compare=False)
    used: int | None = field(default=None, compare=False)
    held: int | None = field(default=None, compare=False)
    files: int | None = field(default=None, compare=False)
    quota_use: Mapping[QuotaKind, Mapping[int, QuotaUse]] = field(default_factory=dict, compare=False)
    shares: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashEntry:
    """A removed VE whose data is still there. ``images``: the template images that it takes to run again.

    Units: ``trashed_at`` seconds since the epoch.
    """

    id: str
    trashed_at: float
    record: Record
    used: int | None = field(default=None, compare=False)
    images: frozenset[Digest] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageObservation:
    """A template's image. ``name``: of the template that it was built for first; ``source``: what it was built from,
    for people. ``used_at``: when it was last known to be of use, be it that somebody who had it went.
    ``is_original``: nothing can build it anew.

    Units: bytes; seconds since the epoch.
    """

    name: TemplateName
    source: str
    size: int
    built_at: float
    used_at: float
    is_original: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTemplate:
    """Build a template's image, unless an image of the same source is there already."""

    template: TemplateSpec
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureTemplate:
    """Make an image of a snapshot of a VE, without what tells that VE from another; done again it is another image.

    ``name``: what people call it.
    """

    uid: Uid
    snapshot: SnapshotName
    name: TemplateName
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTemplate:
    """Remove a template's image that nothing uses any more."""

    key: Digest
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRecord:
    """Write a VE's record, durably; makes the VE's directory.

    A ``template_digest`` of None in the record is filled: with that of the record that is there, if it is of the same
    template, else with the digest of the image of ``template_key``.
    """

    record: Record
    template_key: Digest | None = None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume:
    """Make the VE's subvolume with its limits in force before the first byte is written, or with an image in it.

    ``total``: of it and its snapshots together. ``room``: for how many files an image has room at least.
    Units: bytes, None for unlimited, which an image cannot be.
    """

    uid: Uid
    size: int | None
    total: int | None = None
    is_image: bool = False
    room: int | None = None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVolumeSize:
    """Change the limit of the VE's subvolume, and that of it and its snapshots together, or the size of its image,
    which shrinks only while the VE is down.

    Units: bytes, None for unlimited.
    """

    uid: Uid
    size: int | None
    total: int | None = None
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashVe:
    """Move a stopped VE's whole directory into the trash, by one rename."""

    uid: Uid
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreVe:
    """Move a VE's directory back out of the trash, by one rename.

    ``requests_done``: what counts as done in the record that comes back, as the VE was not there when it was asked.
    """

    uid: Uid
    trash_id: str
    requests_done: tuple[str, ...] = ()
    serves: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeTrash:
    """Delete an entry of the trash with all its data, for good."""

    trash_id: str
    serves: str = field(default="", compare=False)
