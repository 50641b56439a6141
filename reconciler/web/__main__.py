"""The agent as a process that speaks HTTP and TLS as well: more than most hosts need, so only where it is asked for."""

from __future__ import annotations

import asyncio  # noqa: F401  # before the agent does, which takes it without TLS
import sys

from reconciler.agent.__main__ import main
from reconciler.web.companions import companions

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], companions))
