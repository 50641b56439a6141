"""Signatures of commits and notes: checked by ssh-keygen and gpg against keys that are named, and by no other's word.

Source: gitformat-signature(5); ssh-keygen(1) and PROTOCOL.sshsig of OpenSSH; gpg(1) and doc/DETAILS of GnuPG.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from reconciler.errors import CommandError, ConfigError
from reconciler.kernel import command, files
from reconciler.model.trust import UNSIGNED, Keyring, Signature, SignatureState

COMMITS = "git"
"""The namespace in which git has commits signed."""

NOTES = "vectl"
"""The namespace in which notes are signed: neither passes for the other."""

SSH_KINDS = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
"""The kinds of key that count; certificates do not: who made them could name anybody."""

SIGNATURE_MAX = 64 << 10
"""More than any signature needs. Units: bytes."""

_SSH_BEGIN, _SSH_END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_BEGIN = "-----BEGIN "
_PGP_BEGIN = "-----BEGIN PGP SIGNATURE-----"
_MAGIC = b"SSHSIG\x00\x00\x00\x01"
_STATUS = "[GNUPG:] "
_BINARY = "00"
"""A signature over the bytes as they are. Source: RFC 4880, section 5.2.1."""

_WEAK_HASHES = frozenset(("1", "2", "3"))
"""MD5, SHA-1 and RIPEMD-160, by their numbers. Source: RFC 4880, section 9.4."""

_TIMEOUT_S = 30.0


@contextmanager
def verifier(keyring: Keyring) -> Iterator[Verifier]:
    """Give what checks signatures against these keys, until the end of the block.

    Raises: CommandError, if gpg takes a key for none; MissingToolError, TimeLimitError, KernelError.
    """
    with tempfile.TemporaryDirectory(prefix="vectl-trust-") as home:
        keys = {ssh_fingerprint(line): " ".join(line.split()[:2]) for line in keyring.ssh}
        allowed = "".join(f'{print_} namespaces="{COMMITS},{NOTES}" {line}\n' for print_, line in keys.items())
        files.write_volatile(f"{home}/allowed", allowed.encode("ascii"))
        for exported in keyring.gpg:
            _gpg(home, "--import-options", "import-minimal", "--import", input=exported)
        yield Verifier(home=home, ssh=frozenset(keys), has_gpg=bool(keyring.gpg))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Checks signatures. ``home``: a directory with the keys; ``ssh``: the fingerprints of those of ssh."""

    home: str
    ssh: frozenset[str]
    has_gpg: bool

    def check(self, payload: bytes, signature: str, *, at: float, namespace: str = COMMITS) -> Signature:
        """Check an armoured signature of ssh or gpg, which is to have been valid at a time.

        Units: ``at`` seconds since the epoch.
        Raises: TimeLimitError, MissingToolError, KernelError.
        """
        armour = signature.strip()
        if not armour:
            return UNSIGNED
        if len(armour) > SIGNATURE_MAX or not armour.isascii() or armour.count(_BEGIN) != 1:
            return _bad(f"it is no signature of at most {SIGNATURE_MAX} bytes")
        if armour.startswith(_SSH_BEGIN):
            return self._check_ssh(payload, armour, namespace)
        if armour.startswith(_PGP_BEGIN) and namespace == COMMITS:
            return self._check_gpg(payload, armour, at)
        return _bad("it is neither of ssh nor of gpg" if namespace == COMMITS else "it is not of ssh")

    def _check_ssh(self, payload: bytes, armour: str, namespace: str) -> Signature:
        key = _ssh_signer(armour)
        if key is None:
            return _bad("it is no whole signature of ssh")
        if key not in self.ssh:
            return Signature(state=SignatureState.UNKNOWN_KEY, key=key)
        files.write_volatile(f"{self.home}/signature", f"{armour}\n".encode("ascii"))
        options = ["-f", f"{self.home}/allowed", "-I", key, "-n", namespace, "-s", f"{self.home}/signature"]
        try:
            command.run(["ssh-keygen", "-Y", "verify", *options], timeout_s=_TIMEOUT_S, input=payload)
        except CommandError:
            return _bad("it is of something else", key=key)
        return Signature(state=SignatureState.GOOD, key=key)

    def _check_gpg(self, payload: bytes, armour: str, at: float) -> Signature:
        if not self.has_gpg:
            return Signature(state=SignatureState.UNKNOWN_KEY)
        files.write_volatile(f"{self.home}/signature", f"{armour}\n".encode("ascii"))
        # Whether a key had expired is asked of the time of the commit: it may well have since.
        options = ["--trust-model", "always", "--status-fd", "1", "--faked-system-time", f"{at:.0f}!"]
        try:
            said = _gpg(self.home, *options, "--verify", f"{self.home}/signature", "-", input=payload)
        except CommandError as error:
            return _failed(_statuses(error.output))
        return _judged(_statuses(said))


def sign_ssh(payload: bytes, key: str, *, namespace: str = NOTES) -> str:
    """Sign something with a private key of ssh, or one that an agent holds if ``key`` is the public one; armoured.

    Raises: CommandError, TimeLimitError, MissingToolError.
    """
    return command.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace], timeout_s=60.0, input=payload)


def ssh_fingerprint(line: str) -> str:
    """Give the fingerprint of a public key as ssh writes it, e.g. ``ssh-ed25519 AAAA... comment``.

    Raises: ConfigError, if it is no key of a kind that counts.
    """
    kind, _, rest = line.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split()[0] if rest.strip() else "", validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if kind not in SSH_KINDS or _taken(blob)[0] != kind.encode("ascii"):
        raise ConfigError(f"read ssh key: expected a public key of {', '.join(SSH_KINDS)}, got {line[:40]!r}")
    return _fingerprint(blob)


def gpg_fingerprints(exported: bytes) -> frozenset[str]:
    """Give the fingerprints of the keys that gpg exported.

    Raises: ConfigError, if they are not one public key at least, or a secret one; MissingToolError, TimeLimitError.
    """
    with tempfile.TemporaryDirectory(prefix="vectl-trust-") as home:
        try:
            listed = _gpg(home, "--with-colons", "--import-options", "show-only", "--import", input=exported)
        except CommandError as error:
            raise ConfigError("read gpg key: expected what `gpg --export --armor` prints") from error
    kinds = [line.split(":") for line in listed.splitlines()]
    if any(words[0] == "sec" for words in kinds):
        raise ConfigError("read gpg key: expected a public key, got a secret one; it belongs on no server")
    found = frozenset(after[9] for words, after in pairwise(kinds) if words[0] == "pub" and after[0] == "fpr")
    if not found:
        raise ConfigError("read gpg key: expected what `gpg --export --armor` prints, found no key in it")
    return found


def _gpg(home: str, *arguments: str, input: bytes) -> str:
    """Run gpg on keys of ours alone: no agent, no network, no settings of root's."""
    quiet = ["--homedir", home, "--no-options", "--batch", "--no-tty", "--no-autostart", "--disable-dirmngr"]
    return command.run(["gpg", *quiet, *arguments], timeout_s=_TIMEOUT_S, input=input)


def _bad(problem: str, *, key: str = "") -> Signature:
    return Signature(state=SignatureState.BAD, key=key, problem=problem)


def _ssh_signer(armour: str) -> str | None:
    """Give the fingerprint of the key that a signature says it is of."""
    inner = armour.removeprefix(_SSH_BEGIN).removesuffix(_SSH_END)
    try:
        blob = base64.b64decode("".join(inner.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    key, _ = _taken(blob.removeprefix(_MAGIC)) if blob.startswith(_MAGIC) else (b"", b"")
    return _fingerprint(key) if key else None


def _taken(blob: bytes) -> tuple[bytes, bytes]:
    """Take a string off a blob; an empty one, if there is none. Source: RFC 4251, section 5."""
    size = int.from_bytes(blob[:4], "big")
    whole = len(blob) >= 4 + size and len(blob) >= 4
    return (blob[4 : 4 + size], blob[4 + size :]) if whole else (b"", b"")


def _fingerprint(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii")
    return f"SHA256:{digest.rstrip('=')}"


def _statuses(said: str) -> Mapping[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for line in said.splitlines():
        if line.startswith(_STATUS):
            word, *rest = line.removeprefix(_STATUS).split(" ")
            found.setdefault(word, []).append(rest)
    return found


def _judged(said: Mapping[str, list[list[str]]]) -> Signature:
    """Judge what gpg said of a signature that it took: exactly one, and nothing against it."""
    valid = said.get("VALIDSIG", [])
    if len(said.get("NEWSIG", [])) != 1 or len(valid) != 1 or len(valid[0]) < 10:
        return _bad("expected one signature of gpg")
    key = valid[0][9]
    if "REVKEYSIG" in said:
        return Signature(state=SignatureState.REVOKED, key=key)
    if "EXPKEYSIG" in said or "EXPSIG" in said:
        return Signature(state=SignatureState.EXPIRED, key=key)
    if valid[0][7] in _WEAK_HASHES or valid[0][8] != _BINARY or "GOODSIG" not in said:
        return _bad("it is of a weak digest, or not of the commit as it is", key=key)
    return Signature(state=SignatureState.GOOD, key=key)


def _failed(said: Mapping[str, list[list[str]]]) -> Signature:
    """Judge what gpg said of a signature that it did not take; the last word of ERRSIG is the key, before it why."""
    if "BADSIG" in said:
        return _bad("it is of something else", key=said["BADSIG"][0][0])
    why = said.get("ERRSIG", [[]])[0]
    code, key = (why[5], why[-1]) if len(why) >= 7 else ("", "")
    if code == _NO_KEY:
        return Signature(state=SignatureState.UNKNOWN_KEY, key=key)
    if code == _OTHER_TIME:
        return Signature(state=SignatureState.EXPIRED, key=key, problem="the commit is older than its key")
    return _bad("gpg cannot check it", key=key)


_NO_KEY, _OTHER_TIME = "9", "6"
