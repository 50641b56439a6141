"""The webhook of the source: a forge says that there is something new, and proves that it knows the secret.

What it sends is hashed as it comes, and neither kept nor read: it can only have the source looked at. A delivery that
is sent again does so once more, and no more.

Source: GitHub, "Validating webhook deliveries"; Gitea, "Webhooks"; GitLab, "Webhooks", secret and signing tokens;
the Standard Webhooks specification.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.errors import ConfigError
from reconciler.kernel.secret import read_secrets
from reconciler.web.exchange import Answer, Request

SECRET_MIN = 16
"""A shorter secret could be guessed. Units: bytes."""

SECRETS_MAX = 4
"""For each one a body is hashed."""

_OF_BODY = ("x-hub-signature-256", "x-vectl-signature", "x-gitea-signature", "x-forgejo-signature")
_STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
_TOKEN = b"whsec_"
_SIGNATURES_MAX = 8


def secrets_of(path: str) -> tuple[bytes, ...]:
    """Read the secrets of the webhook.

    Raises: ConfigError, also if one is too short; RefusedError, KernelError.
    """
    secrets = read_secrets(path)
    if min(map(len, secrets)) < SECRET_MIN:
        raise ConfigError(f"read {path}: expected secrets of {SECRET_MIN} bytes or more; try `openssl rand -hex 32`")
    if len(secrets) > SECRETS_MAX:
        raise ConfigError(f"read {path}: expected {SECRETS_MAX} secrets at most, one a line")
    return secrets


@dataclass(frozen=True, slots=True)
class _Claim:
    """Signatures of one kind that came: ``mac`` takes in what was signed, with one of the secrets."""

    mac: hmac.HMAC
    signatures: Sequence[bytes]

    @property
    def holds(self) -> bool:
        digest = self.mac.digest()
        return any(hmac.compare_digest(digest, one) for one in self.signatures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A request in coming. ``known``: it has shown the secret itself. ``accepted`` is called once it has proved it."""

    accepted: Callable[[], None]
    known: bool
    claims: Sequence[_Claim] = field(default=(), repr=False)

    def feed(self, data: bytes) -> None:
        """Take in a part of the body."""
        for claim in self.claims:
            claim.mac.update(data)

    def finish(self) -> Answer:
        """Answer, now that all of it is there."""
        if not (self.known or any(claim.holds for claim in self.claims)):
            return Answer(401, "expected a signature with the secret of this webhook")
        self.accepted()
        return Answer(202, "looking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Answers at one path. ``secret_file``: read for each delivery. ``accepted``: what to do for one."""

    secret_file: str
    accepted: Callable[[], None]

    def begin(self, request: Request) -> Delivery:
        """Take in a request's headers.

        Raises: VectlError, if the secret cannot be read.
        """
        secrets = secrets_of(self.secret_file)
        token = request.headers.get("x-gitlab-token", "").encode()
        known = [hmac.compare_digest(token, secret) for secret in secrets]
        claims = [claim for secret in secrets for claim in _claims(request.headers, secret)]
        return Delivery(accepted=self.accepted, known=any(known), claims=claims)


def _claims(headers: Mapping[str, str], secret: bytes) -> Iterator[_Claim]:
    plain = [headers.get(name, "").removeprefix("sha256=") for name in _OF_BODY]
    if digests := [digest for digest in (_decoded(binascii.unhexlify, text) for text in plain) if digest]:
        yield _Claim(hmac.new(secret, digestmod="sha256"), digests)
    name, moment, signatures = (headers.get(key, "") for key in _STANDARD)
    parts = [one.partition(",") for one in signatures.split()[:_SIGNATURES_MAX]]
    coded = [_decoded(base64.b64decode, digest) for version, _, digest in parts if version == "v1"]
    if digests := [digest for digest in coded if digest]:
        signed = f"{name}.{moment}.".encode("latin-1")
        yield _Claim(hmac.new(_standard_key(secret), signed, "sha256"), digests)


def _standard_key(secret: bytes) -> bytes:
    """Give the key that a signing token stands for."""
    if not secret.startswith(_TOKEN):
        return secret
    return _decoded(base64.b64decode, secret.removeprefix(_TOKEN).decode("latin-1")) or secret


def _decoded(decode: Callable[[bytes], bytes], text: str) -> bytes:
    """Decode; nothing, if it is not so coded."""
    try:
        return decode(text.encode("ascii"))
    except ValueError:  # binascii.Error and UnicodeError are ones too
        return b""
