"""Commands: the only place that starts a program, in a process group of its own and never past its deadline."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from reconciler.errors import CommandError, MissingToolError, TimeLimitError, TooLargeError
from reconciler.kernel.syscalls import kernel_error

if TYPE_CHECKING:
    import asyncio

OUTPUT_KEPT = 2000
"""Characters of a failed command's output that its error carries; the end, where tools say what was wrong."""

OUTPUT_READ = 1 << 16
"""Bytes of what a command says on stderr that are looked at where its stdout is handed on."""

_PACKAGES = {
    "btrfs": "btrfs-progs",
    "busybox": "busybox-static",
    "bzip2": "bzip2",
    "criu": "criu",
    "crun": "crun",
    "debootstrap": "debootstrap",
    "git": "git",
    "gpg": "gnupg",
    "gzip": "gzip",
    "ip": "iproute2",
    "lxcfs": "lxcfs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.erofs": "erofs-utils",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "prlimit": "util-linux",
    "resize2fs": "e2fsprogs",
    "runc": "runc",
    "setquota": "quota",
    "skopeo": "skopeo",
    "sqfs2tar": "squashfs-tools-ng",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
    "tc": "iproute2",
    "umoci": "umoci",
    "xz": "xz-utils",
    "zstd": "zstd",
}

# The service manager takes messages on these from its own child only; a command must not speak in our name.
_PRIVATE_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

# What is left to read after the group was killed is in the pipes already, unless a process that left the group
# holds them open: that one is not waited for.
_DRAIN_SECONDS = 1.0

_MEMORY_MAX = 1 << 29
"""What a bounded command may use of memory that is its own. Units: bytes."""

_VERSION = re.compile(r"\d+(?:\.\d+)+")


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    with_errors: bool = False,
) -> str:
    """Run a command to its end and return what it printed on stdout, or on stdout and stderr.

    It gets its own process group, no descriptor of ours but pipes, ``/`` as working directory, and the C locale with
    UTF-8. ``env`` is added to our own environment. A command that leaves a background process behind with its
    stdout open counts as not ended.

    Units: seconds.
    Raises: CommandError, if it ends otherwise than with status 0; TimeLimitError, after its whole group was killed;
    MissingToolError, if there is no such program.
    """
    return _text(run_bytes(argv, timeout_s=timeout_s, input=input, env=env, with_errors=with_errors))


def run_bytes(
    argv: Sequence[str],
    *,
    timeout_s: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    with_errors: bool = False,
) -> bytes:
    """Run a command as `run` does, and return what it printed as it is.

    Units: seconds.
    Raises: as `run`.
    """
    with started(argv[0]):
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_errors else subprocess.PIPE,
            cwd="/",
            env=_environment(env),
            process_group=0,
        )
    try:
        out, err_out = process.communicate(input, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise _too_late(argv, timeout_s, _end(process)) from None
    except BaseException:
        _end(process)
        raise
    _judge(argv, process.returncode, out, err_out or b"")
    return out


def run_bounded(
    argv: Sequence[str],
    *,
    timeout_s: float,
    output_max: int,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Run a command as `run_bytes` does, and end it when it has printed ``output_max`` or needs too much memory.

    For where others decide how much there is to print. The command may write no larger files either.

    Units: bytes; seconds.
    Raises: TooLargeError; else as `run`.
    """
    with tempfile.TemporaryFile() as out, started(argv[0]):
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=out,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(env),
            process_group=0,
        )
        try:
            # The kernel counts, rather than we: whoever of the group writes, no file grows past it.
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (output_max, output_max))
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MEMORY_MAX, _MEMORY_MAX))
            _, err_out = process.communicate(input, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise _too_late(argv, timeout_s, _end(process)) from None
        except BaseException:
            _end(process)
            raise
        said = err_out or b""
        if b"out of memory" in said.lower():
            raise TooLargeError(f"run {argv[0]}: expected that {_MEMORY_MAX} bytes of memory are enough")
        if os.fstat(out.fileno()).st_size >= output_max:
            raise TooLargeError(f"run {argv[0]}: expected {output_max} bytes at most, got more")
        _judge(argv, process.returncode, b"", said)
        out.seek(0)
        return out.read()


@contextmanager
def at_the_end(script: str, *arguments: str) -> Iterator[None]:
    """Have a line of shell carried out when the block has ended, or this process has, whatever ended it.

    A process of its own waits for that from before the block on, in a session of its own.

    Shape: ``arguments`` are ``$1`` and on.
    Raises: MissingToolError; KernelError.
    """
    with started("sh"):
        waiting = subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _; {script}", "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    try:
        yield
    finally:
        assert waiting.stdin is not None
        waiting.stdin.close()
        waiting.wait()


def run_telling(
    argv: Sequence[str],
    told: Callable[[str], None],
    *,
    timeout_s: float,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command as `run` does, and hand on each line that it prints on stdout while it runs.

    ``input``: at most what a pipe holds.
    Units: seconds.
    Raises: as `run`.
    """
    with tempfile.TemporaryFile() as said:
        with started(argv[0]):
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd="/",
                env=_environment(env),
                process_group=0,
            )
        late = threading.Timer(timeout_s, lambda: _kill_group(process.pid, reaped=process.returncode is not None))
        try:
            late.start()
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(input)
            process.stdin = None
            for line in process.stdout:
                told(_text(line).rstrip("\n"))
            status = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            was_late = not late.is_alive()
            late.cancel()
        output = os.pread(said.fileno(), OUTPUT_READ, 0)
        if was_late:
            raise _too_late(argv, timeout_s, _text(output))
        _judge(argv, status, b"", output)


async def run_async(
    argv: Sequence[str], *, timeout_s: float, input: bytes | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a command as `run` does, without blocking the event loop; a cancellation kills its group as well.

    Units: seconds.
    Raises: as `run`.
    """
    import asyncio

    with started(argv[0]):
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env=_environment(env),
            process_group=0,
        )
    talk = asyncio.ensure_future(_converse(process, input))
    try:
        async with asyncio.timeout(timeout_s):
            out, err_out = await asyncio.shield(talk)
    except TimeoutError:
        raise _too_late(argv, timeout_s, await _end_async(process, talk)) from None
    except BaseException:
        await _end_async(process, talk)
        raise
    assert process.returncode is not None
    _judge(argv, process.returncode, out, err_out)
    return _text(out)


async def _converse(process: asyncio.subprocess.Process, input: bytes | None) -> tuple[bytes, bytes]:
    """Give a command what it reads, and take what it prints: of its stderr the end, which may come from a stranger."""
    import asyncio

    assert process.stdout is not None
    assert process.stderr is not None
    out, err_out, _ = await asyncio.gather(process.stdout.read(), _end_of(process.stderr), _feed(process, input))
    await process.wait()
    return out, err_out


async def _feed(process: asyncio.subprocess.Process, input: bytes | None) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(input or b"")
        await process.stdin.drain()
    process.stdin.close()


async def _end_of(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while more := await stream.read(OUTPUT_READ):
        kept = (kept + more)[-OUTPUT_READ:]
    return kept


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _PRIVATE_VARIABLES}
    return {**inherited, "LC_ALL": "C.UTF-8", "LANGUAGE": "", **(extra or {})}


def _judge(argv: Sequence[str], status: int, out: bytes, err_out: bytes) -> None:
    if status == 0:
        return
    ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    output = (_text(out) + _text(err_out))[-OUTPUT_KEPT:]
    last = output.strip().rpartition("\n")[2]
    raise CommandError(f"run {argv[0]}: {ended}" + (f": {last}" if last else ""), status=status, output=output)


@contextmanager
def started(program: str) -> Iterator[None]:
    """Turn the failure to start a program in the block into ours.

    Raises: MissingToolError, if there is no such program; KernelError.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError) as err:
        raise missing_tool(
            program, "no such program" if isinstance(err, FileNotFoundError) else "not executable"
        ) from err
    except OSError as err:
        raise kernel_error("run", program, err.errno or 0) from err


def parse_version(text: str) -> tuple[int, ...]:
    """Find the version in what a program prints; empty, if there is none."""
    match = _VERSION.search(text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def missing_tool(program: str, seen: str) -> MissingToolError:
    """Make the error of a program that is not there, with the package that has it."""
    package = _PACKAGES.get(os.path.basename(program))
    remedy = f"; install the Debian package {package}" if package else ""
    return MissingToolError(f"run {program}: {seen}{remedy}")


def _too_late(argv: Sequence[str], timeout_s: float, output: str) -> TimeLimitError:
    last = output.strip().rpartition("\n")[2]
    return TimeLimitError(f"run {argv[0]}: not ended after {timeout_s:g} s" + (f", last said {last!r}" if last else ""))


def _end(process: subprocess.Popen[bytes]) -> str:
    _kill_group(process.pid, reaped=process.returncode is not None)
    try:
        out, err_out = process.communicate(timeout=_DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return ""
    return _text((out or b"") + (err_out or b""))[-OUTPUT_KEPT:]


async def _end_async(process: asyncio.subprocess.Process, talk: asyncio.Future[tuple[bytes, bytes]]) -> str:
    import asyncio

    _kill_group(process.pid, reaped=process.returncode is not None)
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            out, err_out = await talk
    except TimeoutError:
        return ""
    return _text(out + err_out)[-OUTPUT_KEPT:]


def _kill_group(leader: int, *, reaped: bool) -> None:
    # A number cannot become a process again while a group has it. So if the leader is reaped and its number is a
    # process, then the group is gone and the number a stranger's.
    if reaped and _exists(leader):
        return
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.getpgid(pid)
    except ProcessLookupError:
        return False
    return True


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
