"""The trust file of the host: whose signatures count, read from files that only root can write, strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.errors import ConfigError, VectlError
from reconciler.kernel import files
from reconciler.kernel.git_signature import gpg_fingerprints, ssh_fingerprint
from reconciler.model.fleet import Finding
from reconciler.model.probe import Level, Probe
from reconciler.model.trust import Keyring, Signer, TrustPolicy
from reconciler.state import scalars
from reconciler.state.settings import Section, parse_settings, refuse

Reader = Callable[[str], bytes | None]
"""Reads a file; None, if there is none."""

_PATTERN = re.compile(r"(?!/)[^\[\]\\\x00-\x1f]+(?<!/)\Z")


def load_trust(file: str, *, read: Reader = files.read_trusted_if_exists) -> TrustPolicy:
    """Load a trust file. ``read``: for a person's own, which others than root may write.

    Raises: ConfigError, naming every mistake with file, line and column, or that there is no such file; RefusedError,
    if others than root can write it or a key that it names; MissingToolError, TimeLimitError, KernelError.
    """
    data = read(file)
    if data is None:
        raise ConfigError(f'read {file}: expected a file that names signers, found none; see README.md, "Trust"')
    return parse_trust(data, file=file, read=read)


def parse_trust(data: bytes, *, file: str, read: Reader) -> TrustPolicy:
    """Parse the text of a trust file, and read the keys that it names.

    Raises: ConfigError; what ``read`` raises.
    """
    findings: list[Finding] = []
    top = Section(parse_settings(data, file=file), findings)
    keys = _Keys(read)
    anchor = top.value("anchor", scalars.commit_id)
    signers = tuple(_signer(section, keys) for section in top.sections("signers") or ())
    forges = tuple(_forge(section, keys) for section in top.sections("mergeKeys") or ())
    if not signers and not forges:
        top.require("signers")
    top.end()
    refuse(findings)
    keyring = Keyring(ssh=tuple(keys.ssh), gpg=tuple(keys.gpg))
    return TrustPolicy(signers=(*signers, *forges), keyring=keyring, anchor=anchor, file=file)


@dataclass(slots=True)
class TrustFile:
    """Follows a trust file: it and the keys that it names are parsed only when they say something new."""

    path: str
    _read: Mapping[str, bytes | None] | None = None
    _policy: TrustPolicy | None = None

    def look(self) -> TrustPolicy:
        """Give what the file says now.

        Raises: as `load_trust`.
        """
        if self._policy is None or any(files.read_trusted_if_exists(path) != was for path, was in self._seen()):
            self._policy = None
            read: dict[str, bytes | None] = {}
            self._policy = load_trust(self.path, read=lambda path: read.setdefault(path, _trusted(path)))
            self._read = read
        return self._policy

    def _seen(self) -> tuple[tuple[str, bytes | None], ...]:
        return tuple((self._read or {}).items())


def examine(file: str | None) -> Probe:
    """Examine whether the trust file of a git source can be used; None: none is configured."""
    if file is None:
        remedy = "name allowed signers in a file, and that as source.git.trust"
        found = "none: whoever can write to the branch is trusted"
        return Probe(name="trust", level=Level.WARN, found=found, remedy=remedy)
    try:
        policy = load_trust(file)
    except VectlError as error:
        remedy = "mend it: while it is so, no other revision is taken"
        return Probe(name="trust", level=Level.WARN, found=str(error), remedy=remedy)
    start = f"from {policy.anchor[:12]} on" if policy.anchor else "from the first commit on"
    return Probe(name="trust", level=Level.OK, found=f"{file} names {len(policy.signers)} signers, {start}")


def _trusted(path: str) -> bytes | None:
    return files.read_trusted_if_exists(path)


class _Keys:
    """Takes in the keys that are named, and tells their fingerprints."""

    __slots__ = ("_read", "gpg", "ssh")

    def __init__(self, read: Reader) -> None:
        self._read = read
        self.ssh: list[str] = []
        self.gpg: list[bytes] = []

    def take_ssh(self, text: str) -> frozenset[str]:
        try:
            found = frozenset((ssh_fingerprint(text),))
        except ConfigError as err:
            raise ValueError(str(err).partition(": ")[2]) from err
        self.ssh.append(text)
        return found

    def take_gpg(self, text: str) -> frozenset[str]:
        exported = self._read(scalars.absolute_path(text))
        if exported is None:
            raise ValueError(f"expected a file with a public key, found no {text}")
        try:
            found = gpg_fingerprints(exported)
        except ConfigError as err:
            raise ValueError(f"{text}: {str(err).partition(': ')[2]}") from err
        self.gpg.append(exported)
        return found


def _signer(section: Section, keys: _Keys) -> Signer:
    signer = Signer(
        name=_name(section),
        keys=_key(section, keys),
        paths=section.values("paths", _pattern),
        valid_after=section.value("validAfter", _moment),
        valid_before=section.value("validBefore", _moment),
        may_review=_flag(section, "review", default=True),
    )
    section.end()
    return signer


def _forge(section: Section, keys: _Keys) -> Signer:
    """Parse a merge key; what its merges say is written by whoever wrote the pull request, so it reviews nothing."""
    signer = Signer(
        name=_name(section),
        keys=_key(section, keys),
        valid_after=section.value("validAfter", _moment),
        valid_before=section.value("validBefore", _moment),
        may_review=_flag(section, "review", default=False),
        merges_only=True,
    )
    section.end()
    return signer


def _name(section: Section) -> str:
    section.require("name")
    return section.value("name", _printable) or ""


def _key(section: Section, keys: _Keys) -> frozenset[str]:
    ssh, gpg = section.value("ssh", keys.take_ssh), section.value("gpg", keys.take_gpg)
    if section.setting("gpg") is None:
        section.require("ssh")
    elif section.setting("ssh") is not None:
        section.refuse("gpg", "expected either 'ssh' or 'gpg', got both; name the signer twice")
    return ssh or gpg or frozenset()


def _flag(section: Section, key: str, *, default: bool) -> bool:
    found = section.value(key, _boolean)
    return default if found is None else found


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"expected true or false, got {text!r}")
    return text == "true"


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"expected a name that can be printed, got {text!r}")
    return text


def _pattern(text: str) -> str:
    parts = text.split("/")
    if _PATTERN.match(text) is None or not {".", "..", ""}.isdisjoint(parts):
        raise ValueError(f"expected a pattern of paths from the top of the repository such as web/**, got {text!r}")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError(f"expected ** as a whole part of the path, got {text!r}")
    return text


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as err:
        raise ValueError(f"expected a date such as 2026-01-01, or a time of RFC 3339, got {text!r}") from err
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
