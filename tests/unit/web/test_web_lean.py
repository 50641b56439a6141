"""An agent that speaks no HTTP carries nothing of it, for as long as it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("room", "has_http"), [("reconciler.agent", False), ("reconciler.web", True)])
def test_only_who_speaks_http_loads_it(room: str, has_http: bool) -> None:
    script = f"import sys, {room}.__main__; print('h11' in sys.modules, 'rich' in sys.modules and sys.modules['rich'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(has_http), "None"]
