"""An agent stays for months: it carries nothing that its source and its templates do not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def _printed(script: str) -> list[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_the_agent_of_a_directory_loads_nothing_of_a_repository() -> None:
    loaded = set(_printed("import sys, reconciler.agent.__main__; print(*sys.modules)"))
    of_git = {"kernel.git_fetch", "kernel.git_signature", "sources.repository", "sources.trust", "sources.notes"}
    assert loaded.isdisjoint({f"reconciler.{name}" for name in of_git})
    assert loaded.isdisjoint({"reconciler.agent.repository", "reconciler.agent.pulling", "reconciler.state.trust"})


def test_an_agent_loads_what_fetches_and_unpacks_archives_with_the_first_of_them() -> None:
    loaded = set(_printed("import sys, reconciler.agent.__main__; print(*sys.modules)"))
    assert loaded.isdisjoint({"urllib.request", "http.client", "tarfile", "reconciler.kernel.unpack"})


def test_an_agent_can_load_tls_when_a_download_needs_it() -> None:
    script = "import sys, reconciler.agent.__main__; print('ssl' in sys.modules); import ssl; print(ssl.HAS_TLSv1_3)"
    assert _printed(script) == ["False", "True"]


def test_who_notifies_over_the_web_has_streams_with_tls() -> None:
    script = "import reconciler.web.__main__, asyncio.sslproto; print(asyncio.sslproto.ssl is not None)"
    assert _printed(script) == ["True"]


@pytest.mark.parametrize("kind", ["VirtualEnvironment", "Network"])
def test_a_validator_is_built_for_a_kind_that_a_manifest_has_and_for_no_other(kind: str) -> None:
    text = f"apiVersion: ve/v1\\nkind: {kind}\\nmetadata: {{name: a}}\\nspec: {{}}\\n"
    script = (
        "from reconciler.manifests.kinds import KINDS; from reconciler.manifests.load import load_fleet;"
        f"load_fleet({{'a.yaml': b'{text}'}}, revision='x');"
        "print(*[name for name, kind in KINDS.items() if kind.__pydantic_complete__])"
    )
    assert _printed(script) == [kind]


def test_the_agent_of_a_host_without_a_coordinator_loads_nothing_of_a_fleet() -> None:
    loaded = set(_printed("import sys, reconciler.agent.__main__; print(*sys.modules)"))
    assert not {name for name in loaded if name.startswith(("reconciler.fleet", "cryptography"))}
    assert loaded.isdisjoint({f"reconciler.agent.{name}" for name in ("membership", "joining", "owning", "tending")})
