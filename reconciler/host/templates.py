"""Templates: images of root file systems, named by their content, built once and mounted read-only for all."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from reconciler.errors import BusyError, KernelError, StateError, TemplateError
from reconciler.host import images, trees
from reconciler.host.site import Site
from reconciler.kernel import erofs, files, mount
from reconciler.kernel.hashing import sha256_of
from reconciler.kernel.syscalls import file_errors
from reconciler.manifests.canonical import template_key
from reconciler.model.decode import parse_object, render_object
from reconciler.model.identity import Digest, TemplateName
from reconciler.model.volume import (
    BuildTemplate,
    ImageObservation,
    ImageSource,
    RemoveTemplate,
    TemplateSpec,
)

_INDEX_FORMAT = 1
_SCRATCH = "build-"
_DIGITS = 64
_IMAGE_FILE = re.compile(r"[0-9a-f]{64}\.(erofs|json)")
_LOCK_S = 60.0


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
    """Build a template's image, unless an image of the same source is there.

    Who asks for the same one meanwhile waits and shares it; others are built beside it.

    Raises: TemplateError; DownloadError; CommandError; MissingToolError; NoSpaceError; TimeLimitError.
    """
    template = effect.template
    if (present := read_index(site).get(template.key)) is not None:
        images.touch(site, present)
        return
    if isinstance(template.source, ImageSource):
        _adopt(site, template.key, Digest(template.source.digest), template)
        return
    async with site.builds.setdefault(template.key, asyncio.Lock()):
        if template.key not in read_index(site):
            await asyncio.to_thread(_build_image, site, template)


def _adopt(site: Site, key: Digest, digest: Digest, template: TemplateSpec) -> None:
    """Make an image that is there known under the key of a template that names it by its digest."""
    if not os.path.exists(site.instance.template_image(digest)):
        raise TemplateError(f"build template {template.name}: its image {digest} is not on this host; bring it here")
    with _lock(site.instance.templates):
        _write_index(site, {**read_index(site), key: digest})
    images.touch(site, digest)


def _build_image(site: Site, template: TemplateSpec) -> None:
    begun = time.monotonic()

    def tell(text: str) -> None:
        site.told(f"{template.name}: {text}")

    def show(text: str) -> None:
        site.progress(f"{template.name}: {text}")

    directory = site.instance.templates
    with scratch_of(directory) as scratch, file_errors("build template", template.name):
        place = trees.Place(
            tree=f"{scratch}/tree", scratch=scratch, programs=site.instance.programs, told=tell, progress=show
        )
        os.mkdir(place.tree, 0o755)
        newest = trees.build(template, place)
        tell("making the image")
        image = f"{scratch}/image.erofs"
        erofs.make_image(place.tree, image, uuid=str(uuid.UUID(template.key[:32])), epoch=newest)
        _publish(site, image, template.key, _note(template.name, images.words(template.source)))
    tell(f"built in {time.monotonic() - begun:.1f} s")


def publish_captured(site: Site, image: str, name: TemplateName, *, source: str) -> None:
    """Make an image known that was made of a VE, and can be made of nothing else; it is put where it is looked for.

    Raises: KernelError; NoSpaceError.
    """
    key = template_key(ImageSource(digest=sha256_of(image)))
    _publish(site, image, key, _note(name, source, is_original=True))


def publish_received(site: Site, image: str, digest: Digest, note: ImageObservation) -> None:
    """Make an image known that another host has sent, by nothing but its own digest, and put it where it is looked for.

    What it was built from, as that host says, is not relied on.

    Raises: StateError, if it has another digest; KernelError; NoSpaceError.
    """
    found = sha256_of(image)
    if found != digest:
        raise StateError(f"receive template image {digest}: what has arrived has the digest {found}")
    _publish(site, image, template_key(ImageSource(digest=digest)), note)


def _note(name: TemplateName, source: str, *, is_original: bool = False) -> ImageObservation:
    now = time.time()
    return ImageObservation(name=name, source=source, size=0, built_at=now, used_at=now, is_original=is_original)


def _publish(site: Site, image: str, key: Digest, note: ImageObservation) -> None:
    """Put a whole image where it is looked for, and make it known under a key last."""
    digest = Digest(sha256_of(image))
    os.chmod(image, 0o444)
    os.utime(image)
    with _lock(site.instance.templates):  # or a sweep would find an image that nothing knows
        images.write_note(site, digest, note)
        os.rename(image, site.instance.template_image(digest))
        files.sync_directory(site.instance.templates)
        _write_index(site, {**read_index(site), key: digest})


@contextmanager
def scratch_of(directory: str) -> Iterator[str]:
    """Make a directory to build in, locked as long as it is built in; it is removed in the end."""
    with _lock(directory):  # or another sweep would find it before it is locked
        _sweep(directory)
        scratch = tempfile.mkdtemp(prefix=_SCRATCH, dir=directory)
        held = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        os.chmod(scratch, 0o755)  # noqa: S103  # mmdebstrap's unprivileged helpers pass through it
        yield scratch
    finally:
        with suppress(BusyError):
            files.remove_tree(scratch)
        os.close(held)


def sweep(site: Site) -> None:
    """Remove what builds and removals have left that a crash ended: what is half made, and images that nothing knows.

    What is still mounted, or at work, stays, and so do images of which it cannot be said whether something is on them.

    Raises: BusyError; KernelError.
    """
    directory = site.instance.templates
    with _lock(directory):
        _sweep(directory)
        known = set(read_index(site).values())
        found = {Digest(name[:_DIGITS]) for name in os.listdir(directory) if _IMAGE_FILE.fullmatch(name)}
        if unknown := found - known:
            with suppress(StateError):
                for digest in unknown - {used for _, used in images.users(site)}:
                    _discard(site, digest)


def _sweep(directory: str) -> None:
    with file_errors("list", directory):
        left = [f"{directory}/{name}" for name in os.listdir(directory) if name.startswith(_SCRATCH)]
    for path in left:
        with suppress(FileNotFoundError, BlockingIOError, BusyError, KernelError):
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files.remove_tree(path)
            finally:
                os.close(held)


def remove(site: Site, effect: RemoveTemplate) -> None:
    """Remove an image that nothing on the host is on; absent is success.

    Raises: BusyError.
    """
    with _lock(site.instance.templates):
        index = dict(read_index(site))
        digest = index.pop(effect.key, None)
        if digest is None:
            return
        if digest not in index.values():
            for user, used in images.users(site):
                if used == digest:
                    raise BusyError(f"remove template {digest[:12]}: {user} uses it")
        _write_index(site, index)
        if digest not in index.values():
            _discard(site, digest)


def _discard(site: Site, digest: Digest) -> None:
    target = site.instance.template_mount(digest)
    if mount.is_mounted(target):
        mount.unmount(target)
        os.rmdir(target)
    for path in (site.instance.template_image(digest), images.note_file(site, digest)):
        with suppress(FileNotFoundError):
            os.unlink(path)


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


def _lock(directory: str) -> AbstractContextManager[None]:
    """Keep other processes from the index and from each other's builds: commands build templates too."""
    return files.lock(f"{directory}/index.lock", wait_s=_LOCK_S)


def _write_index(site: Site, images: Mapping[Digest, Digest]) -> None:
    content = render_object({"images": {str(key): str(digest) for key, digest in images.items()}}, format=_INDEX_FORMAT)
    files.write_atomic(_index_file(site), content)
