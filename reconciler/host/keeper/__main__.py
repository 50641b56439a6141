"""Start the keeper of an instance: ``python -m reconciler.host.keeper --run-dir DIR``; already running is success."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from reconciler.errors import VectlError
from reconciler.host.keeper import protocol
from reconciler.host.keeper.server import Keeper
from reconciler.kernel import daemon
from reconciler.kernel.syscalls import file_errors


def main() -> None:
    """Lock, detach, listen, and serve until told to end."""
    match sys.argv[1:]:  # argparse would stay in memory for as long as the VEs do
        case ["--run-dir", run_dir]:
            try:
                serve(os.path.abspath(run_dir))
            except VectlError as err:
                sys.exit(str(err))
        case _:
            sys.exit("usage: python -m reconciler.host.keeper --run-dir DIR")


def serve(run_dir: str) -> None:
    """Become the keeper of a run directory, or return at once if it has one.

    Raises: KernelError, NoSpaceError.
    """
    with file_errors("make", run_dir):
        os.makedirs(run_dir, 0o711, exist_ok=True)
    if daemon.try_lock(f"{run_dir}/{protocol.LOCK_NAME}") is None:
        return
    ready = daemon.detach(f"{run_dir}/{protocol.LOG_NAME}")
    daemon.set_name("vectl-keeper")
    daemon.protect_from_oom()
    daemon.adopt_orphans()
    keeper = Keeper(run_dir, _listen(run_dir))
    daemon.report_ready(ready)
    keeper.run()
    with suppress(FileNotFoundError):
        os.unlink(f"{run_dir}/{protocol.SOCKET_NAME}")


def _listen(run_dir: str) -> protocol.Socket:
    directory = protocol.open_run_dir(run_dir)
    address = protocol.socket_address(directory)
    listener = protocol.new_socket()
    with file_errors("listen on", f"{run_dir}/{protocol.SOCKET_NAME}"):
        with suppress(FileNotFoundError):
            os.unlink(address)  # of a keeper that was killed: the lock says that there is none
        listener.bind(address)
        os.chmod(address, 0o600)
        listener.listen()
    os.close(directory)
    return listener


if __name__ == "__main__":
    main()
