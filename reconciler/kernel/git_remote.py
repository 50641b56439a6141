"""How git reaches a server: what it may speak, whom it believes, who it says it is. No secret is in argv or environ.

Source: git-config(1); git(1), "Environment Variables"; gitcredentials(7); ssh_config(5).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from reconciler.kernel.git import ISOLATED

_CONNECT_S = 15
_STALLED_S = 30
_CREDENTIALS = "VECTL_GIT_CREDENTIALS"

_SCP_LIKE = re.compile(r"(?:[^@/]+@)?(?P<rest>[\w.-]+:.*)", re.DOTALL)

_HELPER = (
    f'!f() {{ [ "$1" = get ] || return 0; line=; IFS= read -r line < "${_CREDENTIALS}" || [ -n "$line" ] || return 1; '
    r'printf "username=%s\npassword=%s\n" "${line%%:*}" "${line#*:}"; }; f'
)
"""Reads the one line ``user:password`` of a file by the shell's own means: no process has it among its arguments."""

_BOUNDED: Mapping[str, str] = {
    "core.bigFileThreshold": "8m",
    "core.deltaBaseCacheLimit": "32m",
    "core.packedGitLimit": "128m",
    "core.packedGitWindowSize": "16m",
    "fetch.fsckObjects": "true",
    "fetch.unpackLimit": "1",  # loose objects are inflated whole in memory, packs are not
    "fetch.writeCommitGraph": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": str(_STALLED_S),
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "transfer.fsckObjects": "true",
    "transfer.unpackLimit": "1",
}
"""What a stranger's pack may cost, and that nothing but it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A repository on a server, or in a directory of this machine.

    ``ssh_key``, ``known_hosts``, ``ca``, ``credentials``: paths; None: root's and the system's own, and no password.
    ``timeout_s``: for one fetch from it, from connecting to the last object. Units: seconds.
    """

    url: str
    ssh_key: str | None = None
    known_hosts: str | None = None
    ca: str | None = None
    credentials: str | None = None
    timeout_s: float = 60.0

    @property
    def shown(self) -> str:
        """The address without user and query, which may be secrets."""
        return shown(self.url)

    @property
    def protocol(self) -> str:
        """What is spoken: ``ssh``, ``https``, ``http`` or ``file``."""
        if "://" in self.url:
            return urlsplit(self.url).scheme
        return "file" if self.url.startswith("/") else "ssh"

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """The host and port that are connected to; None for a directory."""
        match self.protocol:
            case "file":
                return None
            case "ssh" if "://" not in self.url:
                return self.url.partition(":")[0].rpartition("@")[2], 22
            case protocol:
                parts = urlsplit(self.url)
                return parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(protocol, 22)


def shown(url: str) -> str:
    """Give an address without user and query, which may be secrets."""
    if "://" not in url:
        match = _SCP_LIKE.fullmatch(url)
        return url if url.startswith("/") or match is None else match["rest"]
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def settings(remote: Remote) -> tuple[str, ...]:
    """Give the options before a git command that talks to a remote."""
    helpers = ["credential.helper="]  # an empty one takes back those of every file
    if remote.credentials is not None:
        helpers.append(f"credential.helper={_HELPER}")
    return tuple(
        word for one in (*(f"{key}={value}" for key, value in _BOUNDED.items()), *helpers) for word in ("-c", one)
    )


def environment(remote: Remote) -> dict[str, str]:
    """Give the variables of a git command that talks to a remote."""
    return {
        **ISOLATED,
        "GIT_ALLOW_PROTOCOL": remote.protocol,
        "GIT_SSH_COMMAND": shlex.join(ssh_command(remote)),
        "GIT_SSH_VARIANT": "ssh",
        **({} if remote.ca is None else {"GIT_SSL_CAINFO": remote.ca}),  # stronger than any setting
        **({} if remote.credentials is None else {_CREDENTIALS: remote.credentials}),
    }


def ssh_command(remote: Remote) -> tuple[str, ...]:
    """Give the ssh client's command line, up to the host: no agent, no configuration file, no question.

    Source: ssh(1), ssh_config(5).
    """
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ClearAllForwardings": "yes",
        "ControlPath": "none",
        "ConnectTimeout": str(min(_CONNECT_S, max(1, int(remote.timeout_s)))),
        "ServerAliveInterval": str(_STALLED_S // 2),
        "ServerAliveCountMax": "2",
    }
    if remote.ssh_key is not None:
        options["IdentityFile"] = _quoted(remote.ssh_key)
    if remote.known_hosts is not None:
        options["UserKnownHostsFile"] = _quoted(remote.known_hosts)
        options["GlobalKnownHostsFile"] = os.devnull
    return ("ssh", "-F", "none", *(word for key, value in options.items() for word in ("-o", f"{key}={value}")))


def _quoted(path: str) -> str:
    """Give a path as ssh reads it in an option: quotes against white space, and percent signs stand for something."""
    return '"' + path.replace("%", "%%") + '"'
