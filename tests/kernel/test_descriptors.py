"""How many files a process of ours may have open."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

_SAY = "import resource\nfrom reconciler.kernel import descriptors\nprint(descriptors.make_room(), end=' ')\n"
_SAY += "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"


@pytest.mark.kernel
def test_a_process_that_was_given_few_open_files_takes_all_that_it_may_have() -> None:
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 5000)
    command = ["prlimit", f"--nofile=1024:{hard}", sys.executable, "-c", _SAY]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.split() == [str(hard)] * 3
