"""Command a running QEMU by its machine protocol.

Source: https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

import contextlib
import dataclasses
import json
import pathlib
import socket
import time
import typing
from collections.abc import Iterator

ANSWER_SECONDS = 60.0
START_SECONDS = 60.0
MIGRATION_SECONDS = 120.0
POLL_SECONDS = 0.02


class QmpError(Exception):
    """QEMU refused a command, went away, or did not finish in time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Qmp:
    """A connection over which commands are taken."""

    connection: socket.socket
    answers: typing.BinaryIO

    def execute(self, command: str, **arguments: object) -> typing.Any:
        """Run one command, and give what it returns; events that come meanwhile are passed over.

        Raises: QmpError.
        """
        asked = {"execute": command, "arguments": {name.replace("_", "-"): arguments[name] for name in arguments}}
        try:
            self.connection.sendall(json.dumps(asked).encode())
            while not {"return", "error"} & (answer := self.receive()).keys():
                pass
        except OSError as err:
            raise QmpError(f"run {command} in QEMU: {err}") from err
        if "error" in answer:
            raise QmpError(f"run {command} in QEMU: {answer['error']['desc']}")
        return answer["return"]

    def receive(self) -> dict[str, typing.Any]:
        """Take one message.

        Raises: QmpError; OSError, when none came in time.
        """
        line = self.answers.readline()
        if not line:
            raise QmpError("wait for QEMU: it is gone")
        message: dict[str, typing.Any] = json.loads(line)
        return message

    def share_memory(self) -> None:
        """Leave memory that lies in a file where it is, out of what is saved and loaded."""
        self.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def save(self, state: pathlib.Path) -> None:
        """Write the running machine's state; it stands still from then on.

        Raises: QmpError.
        """
        self.share_memory()
        self.execute("migrate", uri=f"file:{state}")
        self.wait_for_migration()

    def load(self, state: pathlib.Path) -> None:
        """Load a state into a machine that waits for one, and let it run.

        Raises: QmpError.
        """
        self.share_memory()
        self.execute("migrate-incoming", uri=f"file:{state}")
        self.wait_for_migration()

    def wait_for_migration(self) -> None:
        """Wait until a state is saved or loaded whole.

        Raises: QmpError.
        """
        deadline = time.monotonic() + MIGRATION_SECONDS
        while (found := self.execute("query-migrate")).get("status") != "completed":
            if found.get("status") == "failed":
                raise QmpError(f"migrate a machine: {found.get('error-desc', 'failed')}")
            if time.monotonic() > deadline:
                raise QmpError(f"migrate a machine: {found} after {MIGRATION_SECONDS} s")
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def connected(path: pathlib.Path) -> Iterator[Qmp]:
    """Connect to the socket of a QEMU that has just been started.

    Raises: QmpError.
    """
    with contextlib.ExitStack() as exits:
        connection = exits.enter_context(stream(path))
        connection.settimeout(ANSWER_SECONDS)
        qmp = Qmp(connection=connection, answers=exits.enter_context(connection.makefile("rb")))
        qmp.receive()
        qmp.execute("qmp_capabilities")
        yield qmp


def stream(path: pathlib.Path) -> socket.socket:
    """Connect to a socket that QEMU is about to make.

    Raises: QmpError.
    """
    deadline = time.monotonic() + START_SECONDS
    connection = socket.socket(socket.AF_UNIX)
    while connection.connect_ex(str(path)) != 0:
        if time.monotonic() > deadline:
            connection.close()
            raise QmpError(f"connect {path}: the machine has not started in {START_SECONDS} s")
        time.sleep(POLL_SECONDS)
    return connection
