"""Public keys of hosts: the one line that a manifest pins.

Source: RFC 8709, section 4 (ssh-ed25519); RFC 4253, section 6.6; RFC 8032, section 5.1.5.
"""

from __future__ import annotations

import base64
import binascii
from typing import NewType

PublicLine = NewType("PublicLine", str)
"""The name of the algorithm and the key, as sshd writes them, without a comment: equal texts are equal keys."""

_KIND = "ssh-ed25519"
_HEAD = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
_KEY_BYTES = 32
_FIELD = 2**255 - 19
_WEAK = frozenset(
    {
        0,
        1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
        _FIELD - 1,
    }
)
"""The y of the points of small order: for such a key a signature can be made by anybody."""


def parse_public_key(text: str) -> PublicLine:
    """Take a line such as ``ssh-ed25519 AAAA... root@node-a``; its comment is left out.

    Raises: ValueError, with the words for what was expected.
    """
    kind, *words = text.strip().split(maxsplit=2)[:2] or [""]
    if kind != _KIND or not words or not text.strip().isprintable():
        raise ValueError(f"expected a line 'ssh-ed25519 AAAA...', as `vectl host key` prints it, got {_shown(text)}")
    blob = _decoded(words[0])
    if blob is None or not blob.startswith(_HEAD) or len(blob) != len(_HEAD) + _KEY_BYTES:
        raise ValueError("expected a whole ssh-ed25519 key, got one that is cut or changed; copy the line anew")
    if _ordinate(blob[len(_HEAD) :]) % _FIELD in _WEAK:
        raise ValueError("expected the key of a host, got one that everybody could sign for; use `vectl host key`")
    return public_line(blob[len(_HEAD) :])


def public_line(key: bytes) -> PublicLine:
    """Give the line of a raw key."""
    return PublicLine(f"{_KIND} {base64.b64encode(_HEAD + key).decode()}")


def raw_key(line: PublicLine) -> bytes:
    """Give the raw key of a line."""
    return base64.b64decode(line.split()[1])[len(_HEAD) :]


def _decoded(word: str) -> bytes | None:
    """Decode base64 that is written in the one way in which a key is."""
    try:
        blob = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if base64.b64encode(blob).decode() == word else None


def _ordinate(key: bytes) -> int:
    return int.from_bytes(key, "little") & (2**255 - 1)


def _shown(text: str) -> str:
    """Give the beginning of what was written; a private key may have been pasted, so not more of it."""
    return repr(f"{text[:12]}..." if len(text) > 12 else text)
