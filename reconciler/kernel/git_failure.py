"""Why git could not fetch: what git, ssh and curl print, as a word for a condition, a sentence and a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable

from reconciler.errors import FetchError
from reconciler.kernel.git_remote import Remote

_SAID = 300
"""Characters of what git said that are told on; a server may have put them there."""

_Remedy = Callable[[Remote], str]


def _nothing(remote: Remote) -> str:
    del remote
    return ""


def _known_hosts(remote: Remote) -> str:
    file = remote.known_hosts or "/etc/ssh/ssh_known_hosts"
    host, port = remote.endpoint or ("", 22)
    scan = f"ssh-keyscan {host}" if port == 22 else f"ssh-keyscan -p {port} {host}"
    return f"compare `{scan}` with what its administrator tells, and write that line to {file}"


def _login(remote: Remote) -> str:
    if remote.protocol == "ssh":
        key = remote.ssh_key or "root's own key"
        return f"let {key} read the repository there, or name another one as `sshKey`"
    return (
        f"look whether {remote.credentials} has the line user:password that the server wants"
        if remote.credentials
        else "write a line user:password to a file for root alone, and name that as `credentials`"
    )


def _certificate(remote: Remote) -> str:
    return f"look at {remote.ca}, the `ca`" if remote.ca else "name the server's authority as `ca`"


def _ref(remote: Remote) -> str:
    del remote
    return "look at `branch`, `tag` or `commit` of the source"


def _url(remote: Remote) -> str:
    del remote
    return "look at `url` of the source, and at who may read there"


def _redirected(remote: Remote) -> str:
    del remote
    return "it may send us elsewhere: name the new address as `url`"


def _bounds(remote: Remote) -> str:
    del remote
    return "it is more than one fetch may bring, or needs too much memory: keep only manifests in the repository"


def _safe(remote: Remote) -> str:
    return f"use `chown -R root {remote.shown}`, or serve it over ssh"


_CAUSES: tuple[tuple[str, str, _Remedy], ...] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed", "HostKeyChanged", _known_hosts),
    (
        r"No \S+ host key is known|Host key verification failed|no matching host key type",
        "HostKeyUnknown",
        _known_hosts,
    ),
    (r"certificate|SSL_ERROR|SSL routines|gnutls_handshake|TLS", "CertificateRefused", _certificate),
    (r"could(?: not|n't) find remote ref|not our ref|unadvertised object", "RefMissing", _ref),
    (
        r"Permission denied \(|Authentication failed|could not read (?:Username|Password)|returned error: 40[13]"
        r"|Load key |Too many authentication failures|UNPROTECTED PRIVATE KEY",
        "AuthenticationFailed",
        _login,
    ),
    (r"dubious ownership", "SourceUnreadable", _safe),
    (r"returned error: 30\d|unable to update url base from redirection", "FetchFailed", _redirected),
    (r"not found|returned error: 404|does not appear to be a git repository|does not exist", "RepositoryMissing", _url),
    (r"Operation too slow|Timeout, server \S+ not responding", "FetchTimedOut", _nothing),
    (
        r"Could(?: not|n't) (?:resolve|connect)|Failed to connect|Connection (?:refused|timed out|reset|closed)"
        r"|No route to host|[Nn]etwork is unreachable|Name or service not known|kex_exchange_identification"
        r"|Temporary failure in name resolution|banner exchange",
        "RemoteUnreachable",
        _nothing,
    ),
    (r"File too large|[Oo]ut of memory|unable to allocate|malloc failed", "SourceTooLarge", _bounds),
)
"""The first that fits. ``remote:`` lines, which the server writes, are not looked at."""


def failure(remote: Remote, output: str) -> FetchError:
    """Tell why a fetch failed, from what git printed on stderr."""
    lines = [line for line in _plain(output, remote).splitlines() if line and not line.startswith("remote:")]
    for pattern, reason, remedy in _CAUSES:
        fitting = [line for line in lines if re.search(pattern, line)]
        if fitting:
            return _error(remote, fitting[-1], reason, remedy(remote))
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return _error(remote, (fatal or lines or ["git did not say why"])[0], "FetchFailed", "")


def too_late(remote: Remote) -> FetchError:
    """Tell that a fetch took too long."""
    problem = f"expected an answer within {remote.timeout_s:g} s, and all of it"
    return _error(remote, problem, "FetchTimedOut", "a first fetch may need more: see `timeout` of the source")


def _error(remote: Remote, said: str, reason: str, remedy: str) -> FetchError:
    words = said.removeprefix("fatal: ").removeprefix("error: ").rstrip(". ")
    return FetchError(f"fetch {remote.shown}: {words[:_SAID]}{remedy and f'; {remedy}'}", reason=reason)


def _plain(text: str, remote: Remote) -> str:
    """Give what was printed without what a terminal would obey, and without the parts of the address that are told to
    nobody."""
    text = text.replace(remote.url, remote.shown).replace("\r", "\n")
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
