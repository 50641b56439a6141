"""EROFS images: a template's tree as one read-only file, the same bytes wherever the same tree is made into one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress

from reconciler.errors import CommandError, NoSpaceError, UsageError
from reconciler.kernel import command, files
from reconciler.kernel.syscalls import file_errors

_SECONDS = 900.0
_FULL = os.strerror(errno.ENOSPC)


def make_image(source: str, image: str, *, uuid: str, epoch: int = 0, all_root: bool = False) -> None:
    """Make an image of a directory's content, on disk under its name only when it is whole.

    The same tree gives the same bytes with the same version of mkfs.erofs, in whatever order the files were made.
    A file newer than ``epoch`` gets that as its time, so at the default all have the same. Compiled Python files
    are out of date then: a tree with Python in it should have the date of its newest package. With ``all_root``
    every file belongs to root.

    Units: ``epoch`` in seconds since 1970.
    Raises: CommandError; MissingToolError; TimeLimitError; KernelError; NoSpaceError.
    Source: mkfs.erofs(1); SOURCE_DATE_EPOCH of reproducible-builds.org.
    """
    partial = f"{image}.partial"
    with file_errors("write", image), suppress(FileNotFoundError):
        os.unlink(partial)
    owners = ["--all-root"] if all_root else []
    argv = ["mkfs.erofs", "--quiet", "-U", uuid, *owners, partial, source]
    try:
        command.run(argv, timeout_s=_SECONDS, env={"SOURCE_DATE_EPOCH": str(epoch)})
    except CommandError as err:
        if _FULL in err.output:
            raise NoSpaceError(f"write {image}: {_FULL}") from err
        raise
    _publish(partial, image)


def export(image: str, target: str) -> None:
    """Write an image's tree into a tar archive, compressed as its name says, or the image as it is into an .erofs.

    The file is there whole or not at all; one of that name is replaced.

    Raises: UsageError, for another kind of file; CommandError; MissingToolError; TimeLimitError; KernelError.
    Source: tar(1), --auto-compress.
    """
    if not target.endswith((".erofs", ".tar", ".tar.gz", ".tar.xz", ".tar.zst")):
        raise UsageError(f"export to {target}: expected .erofs, .tar, .tar.gz, .tar.xz or .tar.zst at its end")
    directory, name = os.path.split(target)
    partial = f"{directory}/.partial-{name}"
    try:
        if target.endswith(".erofs"):
            with file_errors("write", target):
                shutil.copyfile(image, partial)
        else:
            _write_tar(image, partial)
        _publish(partial, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _write_tar(image: str, archive: str) -> None:
    """Mount the image in a mount table that ends with the command."""
    script = 'mount -t erofs -o ro,nodev,nosuid,loop "$1" "$2" && shift 2 && exec tar "$@"'
    with tempfile.TemporaryDirectory() as tree:
        options = ["--numeric-owner", "--sort=name", "--format=pax", "--xattrs", "--xattrs-include=*"]
        words = [*options, "--auto-compress", "-C", tree, "-cf", archive, "."]
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", image, tree, *words]
        command.run(argv, timeout_s=_SECONDS)


def _publish(partial: str, image: str) -> None:
    with file_errors("write", image):
        fd = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(partial, image)
    files.sync_directory(os.path.dirname(image) or ".")
