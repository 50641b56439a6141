"""Boot a guest, run commands in it, copy trees in and out."""

import base64
import collections.abc
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import socket
import subprocess
import tempfile
import typing

from tests.vm import image, machine, qmp

BOOT_SECONDS = 300
COPY_SECONDS = 300
GRACE_SECONDS = 60


class GuestError(Exception):
    """A guest did not boot, stopped answering, or a step of preparing it failed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command in the guest ended; the status is 124 when its time was up."""

    status: int
    output: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A guest that answers."""

    machine: machine.Machine
    control: socket.socket
    answers: typing.BinaryIO
    qmp: qmp.Qmp

    def wait(self) -> None:
        """Wait until a guest that boots answers.

        Raises: GuestError.
        """
        try:
            self.receive()
        except OSError as err:
            raise GuestError(f"boot a guest: no answer in {BOOT_SECONDS} s; see {self.machine.console}") from err

    def run(self, command: str, timeout: float, *, stdin: bytes = b"", echo: typing.BinaryIO | None = None) -> Done:
        """Run a command by bash as root, and give what it printed on both streams.

        Raises: GuestError.
        """
        request = json.dumps({"command": command, "timeout": timeout, "stdin": len(stdin)})
        self.control.settimeout(timeout + GRACE_SECONDS)
        printed = bytearray()
        try:
            self.control.sendall(request.encode() + b"\n" + stdin)
            while (frame := self.receive())[0] != b"s":
                printed += frame[1]
                if echo:
                    echo.write(frame[1])
                    echo.flush()
        except OSError as err:
            raise GuestError(f"run {command!r}: no answer from the guest: {err}") from err
        return Done(status=int(frame[1]), output=printed.decode(errors="replace"))

    def check(self, command: str, timeout: float, *, stdin: bytes = b"") -> str:
        """Run a command that must succeed, and give what it printed.

        Raises: GuestError.
        """
        done = self.run(command, timeout, stdin=stdin)
        if done.status != 0:
            raise GuestError(f"run {command!r}: status {done.status}: {done.output[-4000:]}")
        return done.output

    def receive(self) -> tuple[bytes, bytes]:
        """Take one frame: its kind and what it holds.

        Raises: GuestError; OSError, when none came in time.
        """
        head = self.answers.readline()
        if not head:
            raise GuestError(f"wait for the guest: it is gone; see {self.machine.log} and {self.machine.console}")
        return head[:1], self.answers.read(int(head[1:]))

    def copy_in(self, source: pathlib.Path, target: str, names: collections.abc.Sequence[str] = (".",)) -> None:
        """Copy files of a folder, all or those named, into a folder of the guest."""
        pack = ["tar", "-C", str(source), "-c", "--null", "-T", "-"]
        listed = b"\0".join(os.fsencode(name) for name in names)
        archive = subprocess.run(pack, input=listed, stdout=subprocess.PIPE, check=True, timeout=COPY_SECONDS).stdout
        self.check(f"mkdir -p {shlex.quote(target)} && tar -C {shlex.quote(target)} -x", COPY_SECONDS, stdin=archive)

    def copy_out(self, source: str, target: pathlib.Path) -> None:
        """Copy one file of the guest."""
        encoded = self.check(f"base64 -w0 {shlex.quote(source)}", COPY_SECONDS)
        target.write_bytes(base64.b64decode(encoded))

    def keep_evidence(self) -> str:
        """Keep the journal and the kernel's log beside the console, and name them all by a pattern."""
        kept = {".journal": "journalctl --merge --no-pager", ".dmesg": "dmesg"}
        with contextlib.suppress(GuestError):
            for suffix, command in kept.items():
                said = self.run(command, GRACE_SECONDS).output
                self.machine.log.with_suffix(suffix).write_text(said)
        return f"{self.machine.log.with_suffix('')}.*"

    def power_off(self) -> None:
        """Shut the guest down in order, and wait until its machine has ended."""
        self.run("systemctl --no-block poweroff", COPY_SECONDS)
        self.control.settimeout(BOOT_SECONDS)
        while self.answers.read(1):
            pass


@contextlib.contextmanager
def booted(built: image.Image, disk: pathlib.Path | None = None) -> collections.abc.Iterator[Guest]:
    """Boot an image until it answers; the disk is thrown away in the end, unless one is given to be kept.

    Raises: GuestError.
    """
    with tempfile.TemporaryDirectory(prefix="vectl-vm-") as name:
        folder = pathlib.Path(name)
        disk = disk or folder / "disk.qcow2"
        machine.overlay(built, disk)
        kind = machine.Machine(image=built, disk=disk, folder=folder, log=machine.new_log())
        with started(kind) as guest:
            guest.wait()
            yield guest


@contextlib.contextmanager
def started(kind: machine.Machine) -> collections.abc.Iterator[Guest]:
    """Run a machine, and connect to it; what is in it need not answer yet.

    Raises: GuestError, QmpError.
    """
    with contextlib.ExitStack() as exits:
        exits.enter_context(machine.running(kind))
        control = exits.enter_context(qmp.stream(kind.folder / "control.sock"))
        control.settimeout(BOOT_SECONDS)
        yield Guest(
            machine=kind,
            control=control,
            answers=exits.enter_context(control.makefile("rb")),
            qmp=exits.enter_context(qmp.connected(kind.folder / "qmp.sock")),
        )
