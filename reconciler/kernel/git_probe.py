"""The way to a git server, step by step: its name, a connection, its certificate, and whether it lets us in."""

from __future__ import annotations

import os
import socket
import ssl
from urllib.request import getproxies_environment, proxy_bypass

from reconciler.errors import CommandError, FetchError, TimeLimitError
from reconciler.kernel import command
from reconciler.kernel.git_failure import failure, too_late
from reconciler.kernel.git_remote import Remote, environment, settings

_CONNECT_S = 10.0


def proxy_of(remote: Remote) -> str | None:
    """Give the proxy of our environment that a server is reached through; None for a direct way.

    Source: curl(1), "ENVIRONMENT".
    """
    host = remote.endpoint[0] if remote.endpoint else ""
    if remote.protocol not in ("http", "https") or proxy_bypass(host):
        return None
    found = getproxies_environment()
    return found.get(remote.protocol) or found.get("all")


def resolve(host: str) -> tuple[str, ...]:
    """Give the addresses of a name.

    Raises: FetchError.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as err:
        problem = f"find {host}: {err.strerror or 'no address'}; look at this host's DNS, or at `url`"
        raise FetchError(problem, reason="RemoteUnreachable") from err
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def connect(host: str, port: int) -> None:
    """Try a connection.

    Raises: FetchError.
    """
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as err:
        seen = err.strerror or "no answer"
        problem = f"connect to {host} port {port}: {seen}; look whether it runs, and at firewalls on the way"
        raise FetchError(problem, reason="RemoteUnreachable") from err


def certificate(host: str, port: int, ca: str | None) -> str:
    """Try a TLS handshake; tell until when the server's certificate is valid.

    Raises: FetchError.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        with (
            socket.create_connection((host, port), timeout=_CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            seen = secure.getpeercert() or {}
    except OSError as err:  # of which a refused certificate is one
        told = err.verify_message if isinstance(err, ssl.SSLCertVerificationError) else err.strerror or "no TLS"
        remedy = f"look at {ca}, the `ca`" if ca else "name the server's authority as `ca`"
        problem = f"trust {host} port {port}: {told.rstrip('.')}; {remedy}"
        raise FetchError(problem, reason="CertificateRefused") from err
    return str(seen.get("notAfter", ""))


async def ask(remote: Remote, ref: str) -> str | None:
    """Ask a server what a ref stands for; None, if it has no such ref.

    Raises: FetchError; MissingToolError.
    """
    argv = ["git", *settings(remote), "ls-remote", "--quiet", "--", remote.url, ref]
    try:
        printed = await command.run_async(argv, timeout_s=remote.timeout_s, env=environment(remote))
    except TimeLimitError as error:
        raise too_late(remote) from error
    except CommandError as error:
        raise failure(remote, error.output) from error
    named = (line.split("\t") for line in printed.splitlines())
    return next((oid for oid, *name in named if name == [ref]), None)


def readable_by_others(path: str) -> bool:
    """Say whether somebody but root can read a file.

    Raises: OSError.
    """
    found = os.stat(path)
    return found.st_uid != 0 or bool(found.st_mode & 0o077)
