"""OCI images: copied by skopeo from wherever it can, and believed only where the digest that was asked for says so."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.errors import CommandError, NoSpaceError, TemplateError
from reconciler.kernel import command
from reconciler.kernel.syscalls import file_errors

_Node: TypeAlias = Mapping[str, object]

_TRANSPORTS = ("containers-storage", "dir", "docker-archive", "docker-daemon", "docker", "oci-archive", "oci", "sif")
_INSPECT_S = 120.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_POLICY = "/etc/containers/policy.json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFEST_MOST = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Files of an image's layers, lowest first, each with the content that the manifest names."""

    paths: Sequence[str]
    size: int


def reference(image: str, digest: str) -> str:
    """Give what skopeo calls an image; of a registry, the one of that digest whatever its tag says now."""
    if image.partition(":")[0] in _TRANSPORTS and not image.startswith("docker:"):
        return image
    name = image.removeprefix("docker://").partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"docker://{head}{slash}{last.partition(':')[0]}@{digest}"


def fetch(
    image: str, digest: str, directory: str, *, timeout_s: float, most: int, told: Callable[[str], None]
) -> Layers:
    """Copy an image into a directory that is not there yet, and give its layers, checked.

    Units: seconds; ``most`` bytes of all layers together, as they are stored.
    Raises: TemplateError, of another digest or a damaged image; CommandError; TimeLimitError; MissingToolError.
    Source: skopeo-copy(1); containers-transports(5); OCI image-spec, manifest.md and image-index.md.
    """
    source = reference(image, digest)
    what = f"image {image}"
    scratch = os.path.dirname(directory)
    raw = _skopeo("inspect", "--raw", source, timeout_s=_INSPECT_S, what=what, scratch=scratch)
    wanted = _allowed_manifests(raw, digest, what)
    _expect_room(raw, scratch, most, what)
    told(f"copying {image}")
    words = ("--quiet", "--preserve-digests", source, f"dir:{directory}")
    _skopeo("copy", *words, timeout_s=timeout_s, what=what, scratch=scratch)
    with file_errors("read", what), open(f"{directory}/manifest.json", "rb") as file:
        manifest = file.read(_MANIFEST_MOST)
    found = _digest(manifest)
    if found not in wanted:
        raise TemplateError(f"copy {what}: expected the manifest {digest}, got {found}")
    return _layers(_parsed(manifest, what), directory, most, what)


def _skopeo(deed: str, *words: str, timeout_s: float, what: str, scratch: str) -> str:
    policy = [] if os.path.exists(_POLICY) else ["--insecure-policy"]
    try:
        options = [*policy, "--tmpdir", scratch, "--override-os", "linux"]
        return command.run(["skopeo", *options, deed, *words], timeout_s=timeout_s)
    except CommandError as err:
        if "no space left" in err.output:
            raise NoSpaceError(f"copy {what}: no space left on the disk") from err
        raise CommandError(f"{deed} {what}: {_complaint(err.output)}", status=err.status, output="") from err


def _complaint(output: str) -> str:
    """Give what skopeo said last, without its log's frame."""
    last = output.strip().rpartition("\n")[2]
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', last)
    return found[1].replace('\\"', '"') if found else last


def _allowed_manifests(raw: str, digest: str, what: str) -> frozenset[str]:
    """Give the manifests that a digest stands for: its own, or those of all machines if it is that of an index."""
    found = _digest(raw.encode())
    if found != digest:
        raise TemplateError(f"copy {what}: expected the digest {digest}, got {found}")
    listed = _parsed(raw.encode(), what).get("manifests")
    if not isinstance(listed, list):
        return frozenset({digest})
    return frozenset(str(entry.get("digest")) for entry in listed if isinstance(entry, dict))


def _expect_room(raw: str, directory: str, most: int, what: str) -> None:
    layers = _parsed(raw.encode(), what).get("layers")
    size = sum(_size(layer) for layer in layers if isinstance(layer, dict)) if isinstance(layers, list) else 0
    if size > most:
        raise TemplateError(f"copy {what}: its layers have {size} bytes, expected at most {most}")
    with file_errors("look at", directory):
        disk = os.statvfs(directory)
    if size > (free := disk.f_bavail * disk.f_frsize):
        raise NoSpaceError(f"copy {what}: its layers take {size >> 20} MiB, {free >> 20} MiB are free on {directory}")


def _layers(manifest: _Node, directory: str, most: int, what: str) -> Layers:
    config, layers = manifest.get("config"), manifest.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list) or not layers:
        raise TemplateError(f"copy {what}: expected an image with a config and layers, got another kind of artifact")
    _expect_architecture(_checked(config, directory, what), what)
    paths = [_checked(layer, directory, what) for layer in layers if isinstance(layer, dict)]
    size = sum(os.path.getsize(path) for path in paths)
    if size > most:
        raise TemplateError(f"copy {what}: its layers have {size} bytes, expected at most {most}")
    return Layers(paths=paths, size=size)


def _checked(blob: Mapping[str, object], directory: str, what: str) -> str:
    """Give the file of a blob, whose content is what its digest says."""
    digest = str(blob.get("digest"))
    if not _DIGEST.fullmatch(digest):
        raise TemplateError(f"copy {what}: expected blobs named by sha256, got {digest!r}")
    path = f"{directory}/{digest.removeprefix('sha256:')}"
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise TemplateError(f"copy {what}: its layer {digest} is not there: {err.strerror}") from err
    if f"sha256:{found}" != digest:
        raise TemplateError(f"copy {what}: expected the layer {digest}, got sha256:{found}")
    return path


def _expect_architecture(config: str, what: str) -> None:
    with open(config, "rb") as file:
        made_for = _parsed(file.read(_MANIFEST_MOST), what).get("architecture")
    machine = platform.machine()
    if made_for != (here := _ARCHITECTURES.get(machine, machine)):
        raise TemplateError(f"copy {what}: it is made for {made_for}, this machine is {here}")


def _parsed(text: bytes, what: str) -> _Node:
    try:
        value = json.loads(text)
    except ValueError as err:
        raise TemplateError(f"copy {what}: expected a manifest of JSON: {err}") from err
    if not isinstance(value, dict):
        raise TemplateError(f"copy {what}: expected a manifest, got {type(value).__name__}")
    return value


def _size(layer: Mapping[str, object]) -> int:
    size = layer.get("size")
    return size if isinstance(size, int) else 0


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
