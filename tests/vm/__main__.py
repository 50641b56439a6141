"""Try the working tree by hand on a guest: `python -m tests.vm run 'pytest tests/kernel'`, or `... shell`."""

import argparse
import os
import select
import socket
import sys
import termios
import time
import tty

from tests.vm import guest, prepared, saved

LEAVE = b"\x1d"
RUN_SECONDS = 3600.0


def main() -> int:
    """Start a guest with the tree as it is now, and end with the status of what ran in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument("--timeout", type=float, default=RUN_SECONDS, help="seconds for the command")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("shell", help="a root shell on the guest's console")
    verbs.add_parser("run", help="one command, by bash, in the tree").add_argument("command")
    asked = parser.parse_args()
    before = time.monotonic()
    with saved.restored(saved.saved_state()) as host:
        print(f"a guest after {time.monotonic() - before:.1f} s", file=sys.stderr)
        if asked.verb == "shell":
            return shell(host)
        return host.run(f"{prepared.ENTER}; {asked.command}", asked.timeout, echo=sys.stdout.buffer).status


def shell(host: guest.Guest) -> int:
    """Join this terminal and the guest's console until Ctrl-]."""
    print("Ctrl-] leaves, and throws the guest away", file=sys.stderr)
    before = termios.tcgetattr(sys.stdin)
    size = os.get_terminal_size()
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(host.machine.folder / "console.sock"))
        console.sendall(f"stty rows {size.lines} cols {size.columns}; {prepared.ENTER}\r".encode())
        try:
            tty.setraw(sys.stdin)
            relay(console)
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    return 0


def relay(console: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    while True:
        readable = select.select([sys.stdin, console], [], [])[0]
        if console in readable:
            if not (shown := console.recv(1 << 16)):
                return
            os.write(sys.stdout.fileno(), shown)
        if sys.stdin in readable:
            typed = os.read(sys.stdin.fileno(), 1024)
            if not typed or LEAVE in typed:
                return
            console.sendall(typed)


if __name__ == "__main__":
    sys.exit(main())
