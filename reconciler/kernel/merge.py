"""Merging: what a VE sees, its template below its own data, as one image that another VE can be made from.

It is done in a process of its own, in whose mount table alone the layers are. They are only read: what is taken out
of the merged tree, an identity for one, is taken out in a third layer in memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import reconciler
from reconciler.errors import KernelError, MissingToolError, NoSpaceError, TemplateError, VectlError
from reconciler.kernel import command, erofs, fscontext, loop, mount, profile, userns
from reconciler.kernel.syscalls import file_errors

_SECONDS = 1800.0
_CHANGES_BYTES = 256 << 20
_NOSUID_NODEV = 0x2 | 0x4
_ERRORS = (TemplateError, NoSpaceError, MissingToolError, KernelError)
_OPTIONS = (("index", "off"), ("xino", "on"), ("metacopy", "off"), ("redirect_dir", "follow"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """``lower``: the image of the template. ``volume``: a directory with the data, which nothing changes: ``upper``
    in it, or in the file system in the file ``disk``, where the owners count from ``id_base``. ``image``: the file
    to make; ``scratch``: an empty directory.

    ``init``, ``directories`` and ``files``: as for `profile.apply`.
    """

    lower: str
    volume: str
    disk: str | None
    id_base: int
    id_count: int
    image: str
    uuid: str
    scratch: str
    init: str
    directories: Sequence[str]
    files: Sequence[str]


def merge(job: Merge) -> None:
    """Make an image of a template and data, without the identity of the VE whose data it is.

    Raises: TemplateError; NoSpaceError; KernelError; TimeLimitError; MissingToolError; CommandError.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(reconciler.__file__)))
    argv = [sys.executable, "-P", "-s", "-S", "-m", __name__]
    said = command.run(argv, timeout_s=_SECONDS, input=json.dumps(asdict(job)).encode(), env={"PYTHONPATH": package})
    answer = json.loads(said or "{}")
    if "error" in answer:
        kind = next((kind for kind in _ERRORS if kind.__name__ == answer["error"]), KernelError)
        raise kind(str(answer["text"]))


def _main() -> None:
    job = Merge(**json.load(sys.stdin))
    try:
        _merge(job)
    except VectlError as err:
        sys.stdout.write(json.dumps({"error": type(err).__name__, "text": str(err)}))
    else:
        sys.stdout.write("{}")


def _merge(job: Merge) -> None:
    mount.enter_private_namespace()
    places = {name: f"{job.scratch}/{name}" for name in ("lower", "data", "changes", "tree")}
    with file_errors("make", job.scratch):
        for path in places.values():
            os.mkdir(path)
        os.chdir(job.scratch)
    mount.mount_image(job.lower, places["lower"], fstype="erofs", read_only=True)
    _show_data(job, places["data"])
    mount.mount_tmpfs(places["changes"], size=_CHANGES_BYTES)
    for name in ("upper", "work"):
        os.mkdir(f"{places['changes']}/{name}")
    _mount_overlay(places["tree"])
    profile.apply(places["tree"], init=job.init, directories=job.directories, files=job.files)
    erofs.make_image(places["tree"], job.image, uuid=job.uuid, epoch=int(time.time()))


def _show_data(job: Merge, target: str) -> None:
    if job.disk is None:
        with file_errors("show", job.volume):
            os.rmdir(target)
            os.symlink(job.volume, target)
        return
    id_map = userns.open_user_namespace(0, job.id_count, inside=job.id_base)
    try:
        # Attached to nothing, a loop device is freed with the last mount of it.
        with loop.attached(job.disk, read_only=True, direct_io=False) as device:
            settings = (("source", device), ("ro", None), ("noload", None))
            tree = fscontext.mount_detached("ext4", settings, what=job.disk, attributes=_NOSUID_NODEV)
        _attach(tree, target)
        _attach(mount.clone(target, id_map=id_map), target)
    finally:
        os.close(id_map)


def _mount_overlay(target: str) -> None:
    # By names relative to the scratch directory: a colon in a path would divide it.
    layers = (("lowerdir", "data/upper:lower"), ("upperdir", "changes/upper"), ("workdir", "changes/work"))
    settings = (("source", "overlay"), *layers, *_OPTIONS)
    _attach(fscontext.mount_detached("overlay", settings, what="the merged tree", attributes=_NOSUID_NODEV), target)


def _attach(tree: int, target: str) -> None:
    try:
        mount.attach(tree, target)
    finally:
        os.close(tree)


if __name__ == "__main__":
    _main()
