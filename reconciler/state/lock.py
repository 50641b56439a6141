"""One at a time: the lock that the agent and the commands hold around plan and apply."""

from __future__ import annotations

from contextlib import AbstractContextManager

from reconciler.kernel import files
from reconciler.model.instance import Instance
from reconciler.state import layout


def instance_lock(instance: Instance, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the instance; it lies with the state, so that it guards that whatever the run directory is.

    Units: seconds, of waiting for another holder.
    Raises: BusyError, naming the holder's pid; KernelError.
    """
    layout.make_directory(instance.state_dir)
    return files.lock(f"{instance.state_dir}/lock", wait_s=wait_s)
