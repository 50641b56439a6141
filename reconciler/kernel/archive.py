"""Archives: what kind of compression a file has, told by its first bytes, and the tar stream that comes out of it."""

from __future__ import annotations

import os
import subprocess
import tarfile as tar_format
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler.errors import TemplateError, TimeLimitError
from reconciler.kernel import command
from reconciler.kernel.syscalls import file_errors

_MAGIC: Mapping[bytes, Sequence[str]] = {
    b"\x1f\x8b": ("gzip", "-dc"),
    b"\xfd7zXZ\x00": ("xz", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
    b"BZh": ("bzip2", "-dc"),
    b"hsqs": ("sqfs2tar",),
}
_LONGEST = max(map(len, _MAGIC))
_NOBODY = 65534
_END_S = 5.0
_KEPT = 2000
_HEADER_MOST = 1 << 20
_PADDING_READS = 64


class Header(tar_format.TarInfo):
    """A header that is damaged is an error wherever it is; tarfile takes all but the first for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        """Read one header, which costs no more memory than a header may."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _HEADER_MOST:
            raise tar_format.ReadError(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: tar_format.TarFile) -> Header:
        """Read the next header."""
        try:
            return super().fromtarfile(tarfile)
        except tar_format.HeaderError as err:
            if type(err).__name__ in _ENDS:
                raise
            raise tar_format.ReadError(f"a damaged header: {err}") from err


_ENDS = ("EOFHeaderError", "EmptyHeaderError")
_LONG_HEADERS = frozenset(
    (
        tar_format.XHDTYPE,
        tar_format.XGLTYPE,
        tar_format.SOLARIS_XHDTYPE,
        tar_format.GNUTYPE_LONGNAME,
        tar_format.GNUTYPE_LONGLINK,
    )
)


class Stream:
    """What comes out of an archive, up to a size and a moment; tarfile reads it.

    Units: ``most`` bytes; ``deadline`` of the monotonic clock.
    """

    def __init__(self, pipe: int, *, what: str, most: int, deadline: float) -> None:
        self._pipe, self._what, self._most, self._deadline = pipe, what, most, deadline
        self.seen = 0
        self.has_ended = False

    def read(self, size: int) -> bytes:
        """Give at most so many bytes, none only at the end.

        Raises: TemplateError, for more than was allowed; TimeLimitError.
        """
        if time.monotonic() > self._deadline:
            raise TimeLimitError(f"unpack {self._what}: not done in the time allowed")
        with file_errors("read", self._what):
            data = os.read(self._pipe, size)
        self.seen += len(data)
        self.has_ended = not data
        if self.seen > self._most:
            raise TemplateError(f"unpack {self._what}: expected at most {self._most} bytes of content")
        return data


@contextmanager
def opened(path: str, *, what: str, most: int, deadline: float) -> Iterator[Stream]:
    """Open an archive as a stream of tar, decompressed by the program of its kind; an ordinary file is tar itself.

    ``what``: its name for people.
    Raises: TemplateError, if it is corrupt, once all of it was read; MissingToolError.
    """
    with file_errors("open", path):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        argv = _program(os.pread(file, _LONGEST, 0))
        if argv is None:
            yield Stream(file, what=what, most=most, deadline=deadline)
            return
        with _running(argv, path, file) as decompressor:
            stream = Stream(decompressor.pipe, what=what, most=most, deadline=deadline)
            try:
                yield stream
            except TemplateError:
                if stream.has_ended:  # too early for the reader: whose fault that is, the decompressor knows
                    decompressor.expect_success(what)
                raise
            _read_rest(decompressor.pipe, what)
            decompressor.expect_success(what)
    finally:
        os.close(file)


def _program(head: bytes) -> Sequence[str] | None:
    return next((argv for magic, argv in _MAGIC.items() if head.startswith(magic)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decompressor:
    """A program that runs; ``said``: the file of what it says."""

    name: str
    process: subprocess.Popen[bytes]
    pipe: int
    said: int

    def expect_success(self, what: str) -> None:
        """Wait for its end, which comes at once when all that it gives was read.

        Raises: TemplateError, if it failed.
        """
        if self.process.wait(_END_S):
            complaint = os.pread(self.said, _KEPT, 0).decode(errors="replace").strip().rpartition("\n")[2]
            raise TemplateError(f"unpack {what}: it is corrupt or cut off, {self.name} says {complaint!r}")


@contextmanager
def _running(argv: Sequence[str], path: str, file: int) -> Iterator[_Decompressor]:
    with tempfile.TemporaryFile() as said:
        with command.started(argv[0]):
            process = _start(argv, path, file, said.fileno())
        assert process.stdout is not None
        try:
            yield _Decompressor(name=argv[0], process=process, pipe=process.stdout.fileno(), said=said.fileno())
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _start(argv: Sequence[str], path: str, file: int, said: int) -> subprocess.Popen[bytes]:
    if argv[0] == "sqfs2tar":  # a file system is not read from its beginning to its end: that one takes a name
        return subprocess.Popen([*argv, path], stdin=file, stdout=subprocess.PIPE, stderr=said, cwd="/")
    # It reads and writes what it was given, and nothing that strangers wrote makes more of it than that.
    return subprocess.Popen(
        argv,
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=said,
        cwd="/",
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=(),
    )


def _read_rest(pipe: int, what: str) -> None:
    """Read what follows the end of a tar: padding, which a decompressor would otherwise fail to write."""
    for _ in range(_PADDING_READS):
        if not os.read(pipe, 1 << 16):
            return
    raise TemplateError(f"unpack {what}: it goes on after the end of the archive")
