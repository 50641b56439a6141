"""The exception tree: every failure that a person or the loop has to tell apart.

Two questions decide the class. Who can mend it: time (`RetryableError`) or a person (`TerminalError`)? And which
exit code does a command end with: that is an attribute of the class, so no caller translates.

A message reads ``<verb> <object>: <what was expected or seen>``; lower case, no full stop, no secrets, the remedy
last if it is known. An OSError, a netlink error or a command's non-zero exit becomes one of these once, in the room
that met it, with ``from``.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a `vectl` command ends; of several, the precedence is ERROR > REFUSED > CONSENT > CHANGES > OK.

    Source: sysexits.h for USAGE; terraform's ``-detailed-exitcode`` for CHANGES.
    """

    OK = 0
    ERROR = 1
    CHANGES = 2
    CONSENT = 3
    REFUSED = 4
    NOT_CONVERGED = 5
    USAGE = 64
    INTERRUPTED = 130


class VectlError(Exception):
    """The root of all errors that vectl raises on purpose."""

    exit_code: ExitCode = ExitCode.ERROR


class RetryableError(VectlError):
    """Something that may pass by itself: the loop backs off and looks again."""


class TerminalError(VectlError):
    """Something that a person must act on: retrying the same input gives the same error."""


class UsageError(TerminalError):
    """The command line asks for something that has no meaning."""

    exit_code = ExitCode.USAGE


class RefusedError(TerminalError):
    """A safety rule or the host's policy refuses what was asked."""

    exit_code = ExitCode.REFUSED


class NotConvergedError(RetryableError):
    """The time allowed ran out before observed equalled desired."""

    exit_code = ExitCode.NOT_CONVERGED


class ConfigError(TerminalError):
    """The instance's configuration file is not usable."""


class ManifestError(TerminalError):
    """A revision is not valid; carries nothing but its text, the findings are in the revision's report."""


class StateError(TerminalError):
    """A file of vectl's own state is damaged or of a format that this version does not know."""


class KernelError(RetryableError):
    """A system call, a kernel file or a netlink request failed.

    ``errno`` is the kernel's number, or 0 where there is none.
    """

    def __init__(self, message: str, *, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class KernelFormatError(KernelError):
    """The kernel, or a tool, printed something that its documentation does not describe."""


class CommandError(RetryableError):
    """A command ended with a non-zero status or by a signal.

    ``status`` is the exit status, negative for a signal's number; ``output`` the end of what it printed.
    """

    def __init__(self, message: str, *, status: int, output: str) -> None:
        super().__init__(message)
        self.status = status
        self.output = output


class TimeLimitError(RetryableError):
    """A command or a wait did not end within its deadline."""


class MissingToolError(TerminalError):
    """A program or a kernel feature that is needed is not there; the message says how to get it."""


class TooLargeError(TerminalError):
    """There is more of something than is ever read."""


class NoSpaceError(RetryableError):
    """The pool, or a quota on it, is full."""


class InUseError(RetryableError):
    """A limit cannot go below what is in use and cannot be taken away; the one in force stays until that is freed."""


class NotSuspendableError(RetryableError):
    """What runs in a VE holds something that cannot be saved; the message names it, process by process."""


class TemplateError(TerminalError):
    """A template cannot be built, or its image is not what its digest says."""


class DownloadError(RetryableError):
    """A server, or the way to it, did not give what was asked for."""


class FetchError(RetryableError):
    """A repository, or the way to it, did not give what was asked for.

    ``reason`` is a PascalCase word for a condition.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DeliveryError(RetryableError):
    """A server was not told what it should be, and may be later. Units: ``wait_s`` seconds, as it asks for."""

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class NotWantedError(TerminalError):
    """A server refused what it was told, and would again."""


class KeeperError(RetryableError):
    """The keeper could not be reached or refused a request."""


class CoordinatorAwayError(RetryableError):
    """The coordinator does not answer, or not for a quorum: what was asked was surely not done, nothing is known."""


class OutcomeUnknownError(RetryableError):
    """A transaction was sent to the coordinator and not answered: it may have been carried out, or may yet be."""


class OwnershipError(RetryableError):
    """A VE's ownership, or its move, is not as was thought; whoever acts on it reads it anew."""


class UnprovenError(OwnershipError):
    """A record of the coordinator is damaged, or not signed by the host that may write it: nothing is known."""


class OwnedElsewhereError(OwnershipError):
    """A VE is another host's. ``host`` names it."""

    def __init__(self, message: str, *, host: str) -> None:
        super().__init__(message)
        self.host = host


class PeerError(RetryableError):
    """Another host did not answer, is not who it should be, or refused; what it has done is not known."""


class BusyError(RetryableError):
    """Another process holds what is needed; the message names it."""


class ReadBackError(RetryableError):
    """An action took no effect: what was read back is not what was written."""


class InjectedFailureError(RetryableError):
    """A failpoint fired. Never raised unless failpoints were switched on."""
