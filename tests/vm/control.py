"""Run the driver's commands inside the guest, over a virtio-serial port; it stands alone there.

Shape: a request is one line of JSON, {"command", "timeout", "stdin"}, and `stdin` bytes. The answer is frames of a
kind (`r` ready, `o` output, `s` status), the length in decimal, a newline, and as many bytes.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
import typing

PORT = "/dev/virtio-ports/vectl"
CHUNK = 1 << 16
TIMED_OUT = 124


def main() -> None:
    """Answer requests until the driver hangs up."""
    with open(PORT, "r+b", buffering=0) as port, open(port.fileno(), "rb", closefd=False) as requests:
        send(port, b"r", b"")
        while line := requests.readline():
            request = json.loads(line)
            with tempfile.TemporaryFile(dir="/var/tmp") as stdin:
                receive(requests, stdin, request["stdin"])
                status = run(port, request["command"], stdin, request["timeout"])
            send(port, b"s", b"%d" % status)


def send(port: typing.IO[bytes], kind: bytes, payload: bytes) -> None:
    """Write one frame whole; the port takes as much as its queue has room for."""
    left = memoryview(b"%s%d\n%s" % (kind, len(payload), payload))
    while left:
        left = left[os.write(port.fileno(), left) :]


def receive(requests: typing.IO[bytes], stdin: typing.IO[bytes], size: int) -> None:
    """Spool what the driver sends to the command, so that it cannot block on a command that reads nothing."""
    while size > 0 and (data := requests.read(min(CHUNK, size))):
        stdin.write(data)
        size -= len(data)
    stdin.seek(0)


def run(port: typing.IO[bytes], command: str, stdin: typing.IO[bytes], timeout: float) -> int:
    """Run one command in a session of its own, and send what it prints as it comes."""
    deadline = time.monotonic() + timeout
    with subprocess.Popen(
        ["bash", "-c", command], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        ended = forward(port, process, deadline)
        if not ended:
            # Its session is its process group; what it put into sessions of their own is its tests' to end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode if ended else TIMED_OUT


def forward(port: typing.IO[bytes], process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Send output until the command has ended; a child that it leaves running may keep the pipe, and is not awaited."""
    assert process.stdout is not None
    end = os.pidfd_open(process.pid)
    watched = [process.stdout.fileno(), end]
    try:
        while (left := deadline - time.monotonic()) > 0:
            readable = select.select(watched, [], [], left)[0]
            if watched[0] != end and watched[0] in readable:
                data = os.read(watched[0], CHUNK)
                send(port, b"o", data)
                watched = watched if data else [end]
            elif end in readable:
                return True
        return False
    finally:
        os.close(end)


if __name__ == "__main__":
    main()
