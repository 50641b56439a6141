"""Templates: images of root file systems, named by their content, built once and mounted read-only for all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import assert_never

from reconciler.errors import BusyError, TemplateError
from reconciler.host.site import Site
from reconciler.kernel import busybox, command, erofs, files, mount
from reconciler.kernel.syscalls import file_errors
from reconciler.model.decode import parse_object, render_object
from reconciler.model.identity import Digest
from reconciler.model.volume import (
    BuildTemplate,
    BuiltinSource,
    DebootstrapSource,
    OciSource,
    RemoveTemplate,
    SimplestreamsSource,
    TarballSource,
    TemplateSource,
    TemplateSpec,
)

_INDEX_FORMAT = 1
_BUILD_S = 1800.0
_SCRATCH = "build-"
_DEBIAN_PACKAGES = ("systemd-sysv", "dbus", "iproute2", "iputils-ping", "procps", "ca-certificates")
_DEBIAN_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


def read_index(site: Site) -> Mapping[Digest, Digest]:
    """Read which images there are: digest of the image by key of the source; entries without a file are left out.

    Raises: StateError, KernelError.
    """
    path = _index_file(site)
    data = files.read_bytes_if_exists(path)
    if data is None:
        return {}
    fields = parse_object(data, format=_INDEX_FORMAT, where=path, remedy="remove it: templates are built anew")
    images = {Digest(key): Digest(str(digest)) for key, digest in fields.mapping("images").items()}
    fields.end()
    return {key: digest for key, digest in images.items() if os.path.exists(site.instance.template_image(digest))}


async def build(site: Site, effect: BuildTemplate) -> None:
    """Build a template's image, unless an image of the same source is there; one at a time, beside everything else.

    Raises: TemplateError; CommandError; MissingToolError; NoSpaceError.
    """
    async with site.building:
        if effect.template.key not in read_index(site):
            digest = await asyncio.to_thread(_build_image, site, effect.template)
            _write_index(site, {**read_index(site), effect.template.key: digest})


def _build_image(site: Site, template: TemplateSpec) -> Digest:
    with _scratch(site.instance.templates) as scratch, file_errors("build template", template.name):
        tree, image = f"{scratch}/tree", f"{scratch}/image"
        os.mkdir(tree, 0o755)
        _build_tree(template, tree, programs=site.instance.programs)
        erofs.make_image(tree, image, uuid=str(uuid.UUID(template.key[:32])), epoch=_newest(tree))
        digest = _digest(image)
        os.chmod(image, 0o444)
        os.rename(image, site.instance.template_image(digest))
        files.sync_directory(site.instance.templates)
        return digest


@contextmanager
def _scratch(directory: str) -> Iterator[str]:
    """Make a directory to build in; it is removed in the end, and before it those that a crash has left.

    One in which a build has left something mounted stays.
    """
    for name in os.listdir(directory):
        if name.startswith(_SCRATCH):
            with suppress(BusyError):
                files.remove_tree(f"{directory}/{name}")
    scratch = tempfile.mkdtemp(prefix=_SCRATCH, dir=directory)
    try:
        os.chmod(scratch, 0o755)  # noqa: S103  # mmdebstrap's unprivileged helpers pass through it
        yield scratch
    finally:
        with suppress(BusyError):
            files.remove_tree(scratch)


def _build_tree(template: TemplateSpec, tree: str, *, programs: str) -> None:
    source: TemplateSource = template.source
    match source:
        case BuiltinSource(name="busybox"):
            busybox.build_tree(tree, programs=programs)
        case BuiltinSource():
            raise TemplateError(f"build template {template.name}: there is no built-in {source.name!r}; try 'busybox'")
        case DebootstrapSource():
            _debootstrap(source, tree)
        case TarballSource() | OciSource() | SimplestreamsSource():
            raise TemplateError(
                f"build template {template.name}: not supported yet by this version: {type(source).__name__}"
            )
        case _:
            assert_never(source)


def _debootstrap(source: DebootstrapSource, tree: str) -> None:
    """Build a Debian tree from the host's own package sources, or from the mirror that the manifest names.

    Source: mmdebstrap(1).
    """
    packages = ",".join((*_DEBIAN_PACKAGES, *source.packages))
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _DEBIAN_EXCLUDED]
    argv = ["mmdebstrap", "--quiet", f"--variant={source.variant}", "--mode=root", f"--include={packages}", *excluded]
    argv += ["--customize-hook=rm -f $1/etc/hostname $1/etc/resolv.conf", source.suite, tree]
    sources = [source.mirror] if source.mirror else _sources(source.suite)
    environment = {"SOURCE_DATE_EPOCH": "0"}
    command.run([*argv, *sources], timeout_s=_BUILD_S, env=environment)
    _finish_debian(tree)


def _sources(suite: str) -> list[str]:
    """Derive the package source of another suite from the host's own configuration, in apt's one-line form.

    Raises: TemplateError, if the host has no source of main to derive it from; MissingToolError; CommandError.
    Source: apt-get(8), indextargets.
    """
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(SITE)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)",
        "Created-By: Packages",
    ]
    lines = command.run(asked, timeout_s=30.0).splitlines()
    for site, release, component, signed_by in (line.split("|") for line in lines if line.count("|") == 3):
        if component == "main" and "security" not in release and "security" not in site:
            option = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            return [f"deb {option}{site} {suite} main"]
    raise TemplateError(f"build a template of {suite}: apt has no source of main to derive it from; name a mirror")


def _finish_debian(tree: str) -> None:
    """Make a Debian tree start as a VE: mask what cannot work in one, switch off what criu cannot save."""
    service = f"{tree}/etc/systemd/system/service.d"
    os.makedirs(service, exist_ok=True)
    _write(f"{service}/50-vectl.conf", _SERVICE_DEFAULTS)
    manager = f"{tree}/etc/systemd/system.conf.d"
    os.makedirs(manager, exist_ok=True)
    _write(f"{manager}/50-vectl.conf", "[Manager]\nDefaultMemoryPressureWatch=off\n")
    for unit in _MASKED_UNITS:
        path = f"{tree}/etc/systemd/system/{unit}"
        if not os.path.lexists(path):
            os.symlink("/dev/null", path)
    localtime = f"{tree}/etc/localtime"
    if os.path.lexists(localtime):  # PID 1 watches it, and a watched symbolic link cannot be saved
        os.unlink(localtime)
    zone = f"{tree}/usr/share/zoneinfo/UTC"
    if os.path.exists(zone):
        with open(zone, "rb") as source:
            files.write_atomic(localtime, source.read(), mode=0o644)
    _write(f"{tree}/etc/machine-id", "")


_SERVICE_DEFAULTS = """[Service]
ProtectHostname=no
PrivateNetwork=no
PrivateIPC=no
PrivateUsers=no
ProtectControlGroups=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectKernelLogs=no
ProtectClock=no
"""

_MASKED_UNITS = (
    "systemd-networkd-wait-online.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "dev-hugepages.mount",
    "systemd-modules-load.service",
    "getty@tty1.service",
    "console-getty.service",
    "systemd-firstboot.service",
)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _newest(tree: str) -> int:
    """Give the time of the newest package of a tree, so that its compiled files stay valid; 0 for one without any."""
    status = f"{tree}/var/lib/dpkg/status"
    return int(os.stat(status).st_mtime) if os.path.exists(status) else 0


def _digest(path: str) -> Digest:
    with open(path, "rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def remove(site: Site, effect: RemoveTemplate) -> None:
    """Remove an image that no VE and nothing in the trash uses; absent is success.

    Raises: BusyError.
    """
    index = dict(read_index(site))
    digest = index.pop(effect.key, None)
    if digest is None:
        return
    if digest not in index.values():
        if user := _user_of(site, digest):
            raise BusyError(f"remove template {digest[:12]}: {user} uses it")
        target = site.instance.template_mount(digest)
        if mount.is_mounted(target):
            mount.unmount(target)
        os.unlink(site.instance.template_image(digest))
    _write_index(site, index)


def _user_of(site: Site, digest: Digest) -> str:
    for uid in site.uids():
        record = site.read_record(uid)
        if record is not None and record.template_digest == digest:
            return f"VE {record.name}"
    for record in site.trashed_records():
        if record.template_digest == digest:
            return f"VE {record.name} in the trash"
    return ""


def ensure_mounted(site: Site, digest: Digest) -> str:
    """Mount an image if it is not; give its directory.

    Raises: TemplateError, if there is no such image; KernelError.
    """
    image, target = site.instance.template_image(digest), site.instance.template_mount(digest)
    if not os.path.exists(image):
        raise TemplateError(f"mount template {digest[:12]}: its image {image} is gone; restore it from a backup")
    if not mount.is_mounted(target):
        os.makedirs(target, mode=0o755, exist_ok=True)
        mount.mount_image(image, target, fstype="erofs", read_only=True)
    return target


def _index_file(site: Site) -> str:
    return f"{site.instance.templates}/index.json"


def _write_index(site: Site, images: Mapping[Digest, Digest]) -> None:
    content = render_object({"images": {str(key): str(digest) for key, digest in images.items()}}, format=_INDEX_FORMAT)
    files.write_atomic(_index_file(site), content)
