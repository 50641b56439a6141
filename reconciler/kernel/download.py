"""Downloads: a file of a server on disk, whole; what a cut connection left is gone on with, or begun anew."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from reconciler.errors import DownloadError, NoSpaceError, TimeLimitError
from reconciler.kernel.syscalls import file_errors

_STALLED_S = 30.0
_ATTEMPTS = 4
_PAUSE_S = 0.1
_CHUNK = 1 << 18
_TOLD_EVERY_S = 2.0
_NOT_THAT_RANGE = 416
_LATER = frozenset({408, _NOT_THAT_RANGE, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-")


def local_path(url: str) -> str | None:
    """Give the path that a ``file:`` URL names; None for another."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def join(server: str, path: str) -> str:
    """Give the URL of a path below a server's address."""
    return urljoin(server.rstrip("/") + "/", path.lstrip("/"))


def fetch(
    url: str, target: str, *, most: int, timeout_s: float, told: Callable[[str], None] = lambda text: None
) -> None:
    """Copy what an http or https URL names into a new file; after an error the file may be there, and is not whole.

    Units: ``most`` bytes; seconds.
    Raises: DownloadError, of what the server or the way to it did; NoSpaceError; TimeLimitError; KernelError.
    """
    job = _Download(url, most=most, deadline=time.monotonic() + timeout_s, told=told)
    with file_errors("write", target), open(target, "xb") as file:
        job.run(file)
        file.flush()
        os.fsync(file.fileno())


def read(url: str, *, most: int, timeout_s: float, scratch: str) -> bytes:
    """Give what a URL names, if it is small.

    ``scratch``: path of a file that may be made for it.
    Raises: as `fetch`.
    """
    fetch(url, scratch, most=most, timeout_s=timeout_s)
    with file_errors("read", scratch), open(scratch, "rb") as file:
        data = file.read()
    os.unlink(scratch)
    return data


class _Redirects(HTTPRedirectHandler):
    max_redirections = 5


class _Download:
    """``have``: how many bytes are in the file."""

    def __init__(self, url: str, *, most: int, deadline: float, told: Callable[[str], None]) -> None:
        self._url, self._most, self._deadline, self._told = url, most, deadline, told
        self._shown = url.partition("?")[0]  # what follows may be a secret
        self._have = 0
        self._told_at = time.monotonic()

    def run(self, file: BinaryIO) -> None:
        """Try until the file is whole, as long as it gets on."""
        opener, seen, farthest, failed = _opener(), "", 0, 0
        while failed < _ATTEMPTS:
            if failed:
                time.sleep(_PAUSE_S * 2**failed)
            try:
                with self._ask(opener) as answer:
                    missing = self._take(answer, file)
            except (URLError, HTTPException, ConnectionError, TimeoutError) as err:
                seen = str(getattr(err, "reason", None) or err) or type(err).__name__
            else:
                if not missing:
                    return
                seen = f"the connection ended {missing} bytes before the end"
            failed = 1 if self._have > farthest else failed + 1
            farthest = max(farthest, self._have)
            self._told(f"the connection was lost at {self._have >> 20} MiB")
        raise DownloadError(f"download {self._shown}: {seen}, after {_ATTEMPTS} attempts")

    def _ask(self, opener: OpenerDirector) -> HTTPResponse:
        headers = {"User-Agent": "vectl", "Accept-Encoding": "identity"}
        if self._have:
            headers["Range"] = f"bytes={self._have}-"
        try:
            answer = opener.open(Request(self._url, headers=headers), timeout=_STALLED_S)  # noqa: S310  # http only, see _opener
        except HTTPError as err:
            err.close()
            if err.code == _NOT_THAT_RANGE:
                self._have = 0
            if err.code in _LATER:
                raise URLError(f"the server says {err.code} {err.reason}") from err
            raise DownloadError(f"download {self._shown}: the server says {err.code} {err.reason}") from err
        assert isinstance(answer, HTTPResponse)
        return answer

    def _take(self, answer: HTTPResponse, file: BinaryIO) -> int:
        """Write down what is sent; give how many bytes of what was announced did not come."""
        sent_from = _RANGE.match(answer.headers.get("Content-Range", "")) if answer.status == 206 else None
        self._have = min(self._have, int(sent_from[1])) if sent_from else 0
        file.seek(self._have)
        file.truncate()
        announced = int(length) if (length := answer.headers.get("Content-Length", "")).isdecimal() else None
        end = None if announced is None else self._have + announced
        self._expect_room(file, max(self._have, end or 0), announced or 0)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            self._have += len(chunk)
            self._check(end)
        return 0 if end is None else max(0, end - self._have)

    def _expect_room(self, file: BinaryIO, size: int, coming: int) -> None:
        if size > self._most:
            raise DownloadError(f"download {self._shown}: it has {size} bytes, expected at most {self._most}")
        disk = os.fstatvfs(file.fileno())
        if coming > (free := disk.f_bavail * disk.f_frsize):
            raise NoSpaceError(f"download {self._shown}: it takes {coming >> 20} MiB, {free >> 20} MiB are free")

    def _check(self, end: int | None) -> None:
        if self._have > self._most:
            raise DownloadError(f"download {self._shown}: it has more than {self._most} bytes")
        now = time.monotonic()
        if now > self._deadline:
            raise TimeLimitError(f"download {self._shown}: not done in the time allowed, {self._have} bytes have come")
        if now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            of = "" if end is None else f" of {end >> 20}"
            self._told(f"downloaded {self._have >> 20}{of} MiB")


def _opener() -> OpenerDirector:
    """Speak http and https alone, through the proxies of the environment: a redirection leads to no file of ours."""
    opener = OpenerDirector()
    for handler in (ProxyHandler(), UnknownHandler(), HTTPHandler(), HTTPSHandler(), _Redirects()):
        opener.add_handler(handler)
    opener.add_handler(HTTPDefaultErrorHandler())
    opener.add_handler(HTTPErrorProcessor())
    return opener
