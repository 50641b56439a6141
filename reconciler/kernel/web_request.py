"""Requests to a web server: sent once, and to the address that was named and no other."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, UnknownHandler

from reconciler.errors import DownloadError

ANSWER_MAX = 8 << 20
"""The most that is read of an answer. Units: bytes."""


def request(
    method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, timeout_s: float = 10.0
) -> bytes:
    """Send a request, have it accepted, and give what was answered. An answer that leads elsewhere is not followed.

    Units: seconds, for each step of the way.
    Raises: DownloadError, naming the server, and nothing of what was sent to it.
    """
    opener = OpenerDirector()  # the usual one would take file: and ftp: addresses too
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(), UnknownHandler()):
        opener.add_handler(handler)
    where = url.partition("?")[0]
    try:
        where = urlsplit(url).hostname or where
        asked = Request(url, data=body, headers={**headers}, method=method)  # noqa: S310  # the handlers bound it
        with opener.open(asked, timeout=timeout_s) as answer:
            status, data = answer.status, answer.read(ANSWER_MAX)
    except (OSError, HTTPException, ValueError) as err:
        raise DownloadError(f"ask {where}: {getattr(err, 'reason', None) or err}") from err
    if not 200 <= status < 300:
        raise DownloadError(f"ask {where}: {method} was answered by {status}")
    return bytes(data)
