"""Keys of people, made by ssh-keygen and gpg, and the settings by which git signs with them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.kernel.files import remove_tree
from tests.support.patience import PATIENCE

COMMAND_S = 60.0 * PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who signs. ``public``: the line of the trust file; ``env``: what git is told so that it signs as this person."""

    name: str
    public: Mapping[str, object]
    env: Mapping[str, str] = field(repr=False)
    key: str = ""

    def signer(self, **more: object) -> dict[str, object]:
        """Give the entry of the trust file."""
        return {"name": self.name, **self.public, **more}


def ssh_person(directory: Path, name: str, kind: str = "ed25519") -> Person:
    """Make somebody with an ssh key."""
    key = directory / f"{name}.key"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"{name}@example.org", "-f", str(key)]
    _run(*argv)
    public = key.with_suffix(".key.pub").read_text().strip()
    settings = ["[gpg]", "format = ssh", "[user]", f"signingkey = {key}", "[commit]", "gpgsign = true"]
    return Person(name=name, public={"ssh": public}, env=_config(directory, name, settings), key=str(key))


@contextmanager
def gpg_home() -> Iterator[Path]:
    """Give a directory of gpg keys whose agent ends with the block; its path is short enough for sockets."""
    home = tempfile.mkdtemp(prefix="gpg-", dir="/tmp")
    try:
        yield Path(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], capture_output=True, timeout=COMMAND_S)
        with suppress(FileNotFoundError):
            remove_tree(home)


def gpg_person(
    home: Path, name: str, *, made: int = 1_600_000_000, expires: str = "never", kind: str = "ed25519"
) -> Person:
    """Make somebody with a gpg key.

    Units: ``made`` seconds since the epoch; ``expires`` as ``gpg --quick-generate-key`` takes it.
    """
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-tty"]
    make = [*gpg, "--passphrase", "", "--faked-system-time", f"{made}!", "--quick-generate-key"]
    _run(*make, f"{name} <{name}@example.org>", kind, "sign", expires)
    exported = _run(*gpg, "--armor", "--export", name)
    file = home / f"{name}.asc"
    file.write_bytes(exported)
    # The agent of gpg signs at the time that it is told, so that commits of the past can be made.
    wrapper = home / "gpg-at"
    wrapper.write_text(f'#!/bin/sh\nexec gpg --homedir {home} ${{GPG_AT:+--faked-system-time "$GPG_AT!"}} "$@"\n')
    wrapper.chmod(0o755)
    settings = ["[gpg]", f"program = {wrapper}", "[user]", f"signingkey = {name}", "[commit]", "gpgsign = true"]
    return Person(name=name, public={"gpg": str(file)}, env=_config(home, name, settings))


def signed_note(person: Person, payload: bytes, namespace: str = "vectl") -> str:
    """Sign something with ssh-keygen, as a person would in a shell."""
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", person.key]
    return _run(*argv, input=payload).decode()


def at(moment: int) -> dict[str, str]:
    """Give the settings by which git commits, and gpg signs, at a time. Units: seconds since the epoch."""
    return {"GIT_COMMITTER_DATE": f"{moment} +0000", "GIT_AUTHOR_DATE": f"{moment} +0000", "GPG_AT": str(moment)}


def _run(*argv: str, input: bytes | None = None) -> bytes:
    return subprocess.run(argv, input=input, check=True, capture_output=True, timeout=COMMAND_S).stdout


def _config(directory: Path, name: str, lines: list[str]) -> Mapping[str, str]:
    file = directory / f"{name}.gitconfig"
    file.write_text("\n".join(lines) + "\n")
    return {"GIT_CONFIG_GLOBAL": str(file), "PATH": os.environ["PATH"]}
