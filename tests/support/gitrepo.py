"""Repositories for tests: a clone in which commits are made, and bare ones that servers give out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from reconciler.kernel.git import ISOLATED
from tests.support.patience import PATIENCE

ZERO = "0" * 40
COMMAND_S = 60.0 * PATIENCE

ANN: Mapping[str, str] = {
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0100",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0100",
}
"""Who commits where nothing else is said, and when: the same content gives the same commits."""


def git(path: Path, *arguments: str, env: Mapping[str, str] | None = None, input: bytes | None = None) -> str:
    """Run git in a directory, without this machine's settings; give what it printed."""
    done = subprocess.run(
        ["git", "-C", str(path), *arguments],
        env={**os.environ, **ISOLATED, **ANN, **(env or {})},
        input=input,
        capture_output=True,
        timeout=COMMAND_S,
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.returncode}\n{done.stderr.decode()}"
    return done.stdout.decode().strip()


def bare(path: Path) -> Path:
    """Make a bare repository with the branch main; it takes pushes over http, too."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    git(path, "config", "http.receivepack", "true")
    return path


class Clone:
    """A repository with a work tree in which commits are made, on the branch main at first."""

    def __init__(self, path: Path, *, env: Mapping[str, str] | None = None) -> None:
        """``env``: what git is told beside, e.g. a config with a signing key, or another identity."""
        self.path, self.env = path, dict(env or {})
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main", ".")

    def git(self, *arguments: str, input: bytes | None = None) -> str:
        """Run git in it."""
        return git(self.path, *arguments, env=self.env, input=input)

    def commit(self, files: Mapping[str, str | None], message: str = "change", *options: str) -> str:
        """Write files, None removes one, and commit everything; give the commit's name."""
        for name, text in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                file.unlink()
            else:
                file.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message, *options)
        return self.git("rev-parse", "HEAD")

    def push(self, to: str | Path, refspec: str = "HEAD:refs/heads/main", *options: str) -> None:
        """Push to a repository by its address."""
        self.git("push", "--quiet", *options, str(to), refspec)
