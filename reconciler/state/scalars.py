"""What single values of the configuration may be: each check gives the value back, or says what it expected."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable

from reconciler.model import units
from reconciler.model.identity import HostName

_INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,11}\Z")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_LISTEN = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/]+):([0-9]{1,5})\Z")
_RUNTIMES = ("runc", "crun")
_GIT_URL = re.compile(
    r"(?:(?:https?|ssh)://(?:[^\s:/@]+(?::(?P<password>[^\s/@]*))?@)?[\w.\[\]:-]+(?:/\S*)?|(?!-)[\w.-]+@[\w.-]+:(?!/)\S+)\Z"
)
_LOOPBACK = re.compile(r"http://(?:[^/@]*@)?(?:127(?:\.\d{1,3}){3}|\[::1\]|localhost)(?::\d+)?(?:/|\Z)")
_REF = re.compile(r"(?!-)[A-Za-z0-9._/+=-]+\Z")
_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_HTTP_URL = re.compile(
    r"(?:https://[\w.-]+|https://\[[0-9A-Fa-f:.]+\]|http://(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]))"
    r"(?::\d{1,5})?(?:/[!-~]*)?\Z",
    re.ASCII,
)
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)+\Z")
_DAY_S = 86400.0

_POOL_MIN = 256 << 20
"""Below it btrfs has no room left for data. Units: bytes. Source: mkfs.btrfs(8), "--mixed"."""


_BANDWIDTH_MIN = 64 << 10
"""Below it one frame would take so long that the host seems dead. Units: bytes per second."""


def instance_name(text: str) -> str:
    """Check the name of an instance: bridges, cgroups, tables and marks are named after it.

    Raises: ValueError.
    """
    if _INSTANCE.match(text) is None:
        raise ValueError(f"expected 1 to 12 of a-z, 0-9 and '-', a letter first, got {text!r}")
    return text


def host_name(text: str) -> HostName:
    """Check the name that manifests call this host.

    Raises: ValueError.
    Source: RFC 1123, section 2.1.
    """
    if _HOST.match(text) is None:
        raise ValueError(f"expected a label such as node-a, of a-z, 0-9 and '-', got {text!r}")
    return HostName(text)


def absolute_path(text: str) -> str:
    """Check a path that is used as it stands.

    Raises: ValueError.
    """
    if not os.path.isabs(text) or os.path.normpath(text) != text or text in ("/", "//"):
        raise ValueError(f"expected an absolute path without '..' or a slash at its end, got {text!r}")
    return text


def subdir(text: str) -> str:
    """Check a path below the top of a repository.

    Raises: ValueError.
    """
    if os.path.isabs(text) or os.path.normpath(text) != text or text.split("/")[0] in (".", ".."):
        raise ValueError(f"expected a path below the top of the repository, without '..', got {text!r}")
    return text


def count(low: int, high: int) -> Callable[[str], int]:
    """Give the check for a whole number within bounds, both included."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
            raise ValueError(f"expected a number from {low} to {high}, got {text!r}")
        return int(text)

    return parse


def interval(text: str) -> float:
    """Parse how often something is done.

    Units: seconds.
    Raises: ValueError.
    """
    seconds = units.parse_duration(text)
    if not 1 <= seconds <= _DAY_S:
        raise ValueError(f"expected a duration from 1s to 1d, got {text!r}")
    return seconds


def pool_size(text: str) -> int:
    """Parse the size of the pool.

    Units: bytes.
    Raises: ValueError.
    """
    size = units.parse_size(text)
    if size < _POOL_MIN:
        raise ValueError(f"expected {units.format_size(_POOL_MIN)} or more, got {text!r}")
    return size


def runtime(text: str) -> str:
    """Check the name of an OCI runtime that we know how to talk to.

    Raises: ValueError.
    """
    if text not in _RUNTIMES:
        raise ValueError(f"expected {' or '.join(_RUNTIMES)}, got {text!r}")
    return text


def listen(text: str) -> str:
    """Check an address with a port; IPv6 in brackets.

    Raises: ValueError.
    """
    match = _LISTEN.match(text)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"expected an address and a port such as 127.0.0.1:9118, got {text!r}")
    return text


def listen_ip(text: str) -> str:
    """Check an IP address of this host with a port; IPv6 in brackets.

    Raises: ValueError.
    """
    try:
        ipaddress.ip_address(listen(text).rpartition(":")[0].strip("[]"))
    except ValueError as err:
        raise ValueError(f"expected an IP address and a port such as 192.0.2.11:7443, got {text!r}") from err
    return text


def bandwidth(text: str) -> int:
    """Parse how much is sent in a second.

    Units: bytes per second.
    Raises: ValueError.
    """
    rate = units.parse_size(text)
    if rate < _BANDWIDTH_MIN:
        raise ValueError(f"expected {units.format_size(_BANDWIDTH_MIN)} a second or more, got {text!r}")
    return rate


def local(text: str) -> str:
    """Check the one coordinator that needs no address.

    Raises: ValueError.
    """
    if text != "local":
        raise ValueError(f"expected local, or etcd with its endpoints, got {text!r}")
    return text


def text(text: str) -> str:
    """Check that there is any text at all.

    Raises: ValueError.
    """
    if not text.strip():
        raise ValueError("expected some text")
    return text


def git_url(text: str) -> str:
    """Check the address of a git repository: ssh, https, or a directory of this machine; never with a password.

    Without TLS only this machine's own server is believed.

    Raises: ValueError.
    """
    if text.startswith(("/", "file:///")):
        return text
    match = _GIT_URL.match(text)
    if match is None:
        raise ValueError(f"expected ssh://, https:// or an absolute path, got {text.partition('@')[2] or text!r}")
    if match["password"] is not None:
        raise ValueError("expected no password in an address; put it into a file and name that as 'credentials'")
    if text.startswith("http://") and not _LOOPBACK.match(text):
        raise ValueError(
            "expected https:// or ssh://; what http:// brings from another machine anybody may have changed"
        )
    return text


def http_url(text: str) -> str:
    """Check the address of a server that is told something: https, or http on this machine; never with a password.

    Raises: ValueError.
    """
    match = _HTTP_URL.match(text)
    if match is None:
        raise ValueError("expected https:// and a name, or http:// and an address of this machine, without a password")
    return text


def repository(text: str) -> str:
    """Check the name of a repository on a forge.

    Raises: ValueError.
    """
    if _REPOSITORY.match(text) is None or {".", ".."} & set(text.split("/")):
        raise ValueError(f"expected an owner and a name such as org/fleet, got {text!r}")
    return text


def ref_name(text: str) -> str:
    """Check the name of a branch or a tag.

    Raises: ValueError.
    Source: git-check-ref-format(1).
    """
    is_odd = ".." in text or "//" in text or "@{" in text or text.endswith((".lock", "/", "."))
    if _REF.match(text) is None or is_odd:
        raise ValueError(f"expected the name of a branch or tag such as main, got {text!r}")
    return text


def commit_id(text: str) -> str:
    """Check the whole name of a commit.

    Raises: ValueError.
    """
    if _COMMIT.match(text) is None:
        raise ValueError(f"expected the 40 or 64 hexadecimal digits of a commit, got {text!r}")
    return text
