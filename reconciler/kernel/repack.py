"""Packing anew: an archive that a template would refuse, or that holds a root file system below something else."""

from __future__ import annotations

import tarfile as tar_format
import time
from collections.abc import Iterator
from typing import IO

from reconciler.errors import TemplateError
from reconciler.kernel import archive
from reconciler.kernel.archive import Header, Stream
from reconciler.kernel.pack import (
    CAPABILITY,
    CHUNK,
    ENTRIES_MOST,
    IDS,
    INITS,
    PLACE_OF_DEVICES,
    SIZE_MOST,
    XATTR,
    Packed,
    Packer,
    packing,
)

PREFIXES = ("", "rootfs", "backup/container/rootfs", "backup/instance/rootfs")
"""Where in an archive the root file system is: of backups and images of Incus and LXC below others."""

_SECONDS = 3600.0


def inspect(path: str, *, id_base: int = 0) -> tuple[Packed, bool]:
    """Read an archive to its end; say what is in it, and whether a template can be built from it as it is.

    Raises: TemplateError; TimeLimitError; KernelError; MissingToolError.
    """
    found, prefixes, is_fit = Packed(), set[str](), id_base == 0
    for member, _ in _members(path):
        name = _name(member.name)
        found.entries += 1
        found.size += member.size if member.isreg() else 0
        prefixes |= {prefix for prefix in PREFIXES if name == f"{prefix}/etc".lstrip("/")}
        found.inits |= {init for init in INITS if name == init or name.endswith(f"rootfs/{init}")}
        is_fit &= not member.isdev() and not member.name.startswith("/") and min(member.uid, member.gid) >= 0
        is_fit &= max(member.uid, member.gid) < IDS
    found.prefix = next((prefix for prefix in PREFIXES if prefix in prefixes), "")
    return found, is_fit and not found.prefix


def repack(path: str, target: str, *, id_base: int = 0, prefix: str = "") -> Packed:
    """Write an archive anew, with what a template takes. ``prefix``: only what is below it, without it.

    Raises: as `pack_directory`; TimeLimitError; MissingToolError.
    """
    gone: set[str] = set()
    with packing(target, what=f"archive {path}", id_base=id_base) as packer:
        packer.packed.prefix = prefix
        for member, content in _members(path):
            _take(packer, member, content, prefix, gone)
    return packer.packed


def _take(packer: Packer, member: tar_format.TarInfo, content: IO[bytes] | None, prefix: str, gone: set[str]) -> None:
    whole = _name(member.name)
    if prefix and whole != prefix and not whole.startswith(f"{prefix}/"):
        return
    name = whole[len(prefix) :].lstrip("/")
    if ".." in name.split("/"):
        raise TemplateError(f"pack {packer.what}: {member.name!r} is refused: a path with '..'")
    entry = tar_format.TarInfo(name or ".")
    entry.type, entry.mode, entry.uid, entry.gid = member.type, member.mode & 0o7777, member.uid, member.gid
    entry.mtime = max(0, int(member.mtime))
    if member.isreg():
        entry.type, entry.size = tar_format.REGTYPE, member.size
        wanted = (XATTR + CAPABILITY, f"{XATTR}user.")
        entry.pax_headers = {key: text for key, text in member.pax_headers.items() if key.startswith(wanted)}
    elif member.issym():
        entry.linkname = member.linkname
    elif member.islnk():
        entry.linkname = _name(member.linkname)[len(prefix) :].lstrip("/")
        if entry.linkname in gone:
            return
    elif not (member.isdir() or member.isfifo()):
        gone.add(name)
        if not name.startswith(f"{PLACE_OF_DEVICES}/"):
            packer.packed.leave_out(name, "a device")
        return
    packer.add(entry, content if member.isreg() else None)


def _name(text: str) -> str:
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _members(path: str) -> Iterator[tuple[tar_format.TarInfo, IO[bytes] | None]]:
    """Read the entries of an archive, with their content. Raises: TemplateError, of a damaged one."""
    most = SIZE_MOST + (4 << 30)
    with archive.opened(path, what=f"archive {path}", most=most, deadline=time.monotonic() + _SECONDS) as stream:
        try:
            yield from _of_stream(stream)
        except (tar_format.TarError, EOFError, OverflowError, ValueError) as err:
            raise TemplateError(f"read archive {path}: it is no tar archive, or damaged: {err}") from err


def _of_stream(stream: Stream) -> Iterator[tuple[tar_format.TarInfo, IO[bytes] | None]]:
    with tar_format.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=Header) as tar:  # type: ignore[call-overload]  # what it needs is read()
        count = 0
        while (member := tar.next()) is not None:
            count += 1
            if count > ENTRIES_MOST:
                raise ValueError(f"more than {ENTRIES_MOST} entries")
            yield member, tar.extractfile(member) if member.isreg() else None
            tar.members.clear()  # it would remember all of them
