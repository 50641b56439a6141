"""Volumes as manifests write them: disk, quota, snapshots, and where the data comes from; and the Template kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reconciler.manifests.fields import (
    AbsolutePath,
    CountLimit,
    Duration,
    Init,
    Items,
    Mirror,
    Name,
    NewSnapshot,
    OciDigest,
    OciImage,
    Package,
    ServerUrl,
    Sha256,
    SizeLimit,
    SnapshotWord,
    Suite,
    Text,
    Url,
)
from reconciler.manifests.kinds.base import Manifest, Section
from reconciler.model import volume
from reconciler.model.identity import TemplateName

_WEEK_S = 7 * 86400.0


class DiskQuota(Section):
    """Second-level quota of one user or group inside the VE."""

    id: int = Field(ge=0, le=65535, description="Number of the user or group inside the VE.")
    soft: SizeLimit = Field(None, description="Size, in bytes, that may be exceeded for the time of grace.")
    hard: SizeLimit = Field(None, description="Size, in bytes, that is never exceeded.")
    soft_files: CountLimit = Field(None, description="Number of files that may be exceeded for the time of grace.")
    hard_files: CountLimit = Field(None, description="Number of files that is never exceeded.")
    grace: Duration = Field(
        _WEEK_S, description="Time for which a soft limit may be exceeded; the same for all users, and for all groups."
    )


class Disk(Section):
    """Disk space and files."""

    size: SizeLimit = Field(
        volume.VolumeSpec(template=TemplateName("busybox")).size, description="Most data of its own, in bytes."
    )
    snapshots: SizeLimit = Field(None, description="What its snapshots may hold beside it, in bytes.")
    inodes: CountLimit = Field(None, description="Most files and directories.")
    users: Items[DiskQuota] = Field((), description="Second-level quota by user, keyed by id.")
    groups: Items[DiskQuota] = Field((), description="Second-level quota by group, keyed by id.")


class Source(Section):
    """Where the data of a new VE comes from: clone wins over the template. Read at creation only."""

    clone: Name | None = Field(None, description="VE to copy.")
    snapshot: SnapshotWord | None = Field(
        None, description="Snapshot of that VE to copy; its present data, if left out."
    )
    fresh: bool = Field(False, description="Begin empty, even if data of this name or uid is in the trash.")

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if (self.clone is not None) == self.fresh:
            raise ValueError("expected either clone or fresh: true")
        if self.snapshot is not None and self.clone is None:
            raise ValueError("expected clone beside snapshot")
        return self


class Snapshot(Section):
    """A snapshot that is to exist; it is made once."""

    name: NewSnapshot = Field(description="Name of the snapshot, unique within the VE.")
    memory: bool = Field(False, description="Whether the memory is kept too, so that processes go on from there.")


class SnapshotSchedule(Section):
    """Snapshots taken by the clock."""

    every: Duration = Field(86400.0, description="Time between two snapshots.")
    keep: int = Field(7, ge=1, le=1000, description="How many of them are kept.")


class Rollback(Section):
    """A return of the data to a snapshot, done once for each pair of `to` and `request`."""

    to: SnapshotWord = Field(description="Name of the snapshot, of whatever kind.")
    request: Text = Field(description="Any text; a new one asks for the rollback again.")


class Debootstrap(Section):
    """A Debian or Ubuntu suite, built by mmdebstrap."""

    suite: Suite = Field(description="Name of the suite, such as trixie.")
    packages: Items[Package] = Field((), description="Packages beside those of the variant.")
    mirror: Mirror | None = Field(
        None,
        description="Package source, an address or a line of apt's with no option but signed-by, "
        "that a key of the host has signed; those of the host, if left out.",
    )
    variant: Literal["minbase", "standard", "essential", "apt", "important", "buildd"] = Field(
        "minbase", description="Which set of packages is the base. See mmdebstrap(1)."
    )


class Foreign(Section):
    """What was made elsewhere."""

    setuid: Literal["keep", "drop", "refuse"] = Field(
        "keep",
        description="What becomes of programs with the set-user-id or set-group-id bit or capabilities, such as su: "
        "they keep them, which reaches no further than the VE's own users; they lose them; or the image is refused.",
    )


class Tarball(Foreign):
    """A tar archive of a root file system, plain or compressed by gzip, bzip2, xz or zstd; or a squashfs image."""

    path: AbsolutePath | None = Field(None, description="Path of the archive on the host.")
    url: Url | None = Field(None, description="Address to fetch the archive from: http, https or file.")
    sha256: Sha256 = Field(description="SHA-256 of the archive.")

    @model_validator(mode="after")
    def _one_place(self) -> Tarball:
        if (self.path is None) == (self.url is None):
            raise ValueError("expected either path or url")
        return self


class Oci(Foreign):
    """An OCI image. The digest may be that of an index: then it is the image for the host's architecture."""

    image: OciImage = Field(
        description="Name of the image, with its registry; or whatever skopeo(1) takes, such as oci:/srv/images:app."
    )
    digest: OciDigest = Field(description="Digest of the image's manifest.")


class Simplestreams(Foreign):
    """An image of an Incus or LXC image server."""

    server: ServerUrl = Field(description="Address of the server: http or https.")
    alias: Text = Field(description="Name of the image on the server, such as debian/13.")
    fingerprint: Sha256 = Field(description="Fingerprint of the image.")


class TemplateOrigin(Section):
    """What the template is built from: exactly one of these."""

    builtin: Literal["busybox"] | None = Field(None, description="A template that vectl builds from the host's files.")
    debootstrap: Debootstrap | None = Field(None, description="A Debian or Ubuntu suite, built by mmdebstrap.")
    tarball: Tarball | None = Field(None, description="A tar archive of a root file system.")
    oci: Oci | None = Field(None, description="An OCI image.")
    simplestreams: Simplestreams | None = Field(None, description="An image of an Incus or LXC image server.")
    image: Sha256 | None = Field(
        None, description="Digest of an image that is on the host: what `vectl template build --from-ve` printed."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> TemplateOrigin:
        if len(self.model_fields_set) != 1:
            raise ValueError("expected exactly one of builtin, debootstrap, tarball, oci, simplestreams or image")
        return self


class TemplateBody(Section):
    """A template."""

    source: TemplateOrigin = Field(description="What the template is built from: exactly one of the fields below it.")
    init: Init = Field(("/sbin/init",), description="Program that is started first, with its arguments.")


class Template(Manifest):
    """What a new VE's root file system holds. A change of it changes no VE that exists."""

    kind: Literal["Template"] = Field(description="The kind.")
    spec: TemplateBody = Field(description="What the template is.")
