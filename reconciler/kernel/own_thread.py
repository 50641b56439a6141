"""Threads made for one call: what it does to its thread, entering namespaces above all, ends with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from reconciler.kernel import mount

_Result = TypeVar("_Result")


def call(function: Callable[[], _Result], *, name: str) -> _Result:
    """Call a function in a thread that ends with it. ``name``: what the thread is called in listings.

    Raises: whatever the function raises.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) as once:
        return once.submit(function).result()


def call_with_own_mounts(function: Callable[[], _Result]) -> _Result:
    """Call a function in a thread that has a mount table of its own: what it mounts, nobody sees, and it is gone after.

    Even if this process is killed in it. The function must not import, and its working directory is its own.

    Raises: KernelError; whatever the function raises.
    """

    def enter_and_call() -> _Result:
        mount.enter_private_namespace()
        return function()

    return call(enter_and_call, name="mounts")
