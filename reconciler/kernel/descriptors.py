"""How many files this process may have open."""

from __future__ import annotations

import resource

_MOST = 1 << 18
"""Enough for ten thousand VEs; some programs that we call go through all numbers that there could be."""


def make_room() -> int:
    """Raise the soft limit of open files to what is allowed, and give it: some twenty are kept open for each VE.

    Source: getrlimit(2), RLIMIT_NOFILE; systemd gives services a soft limit of 1024 for the sake of select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _MOST if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
