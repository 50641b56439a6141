"""The process that unpacks: what it reads was written by strangers, and it costs a processor, which a loop has not.

Shape: one job as JSON on standard input, see `Job`; on standard output a line for each piece of news, then one of JSON
with `totals`, or with the `error` and its `text`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import reconciler
from reconciler.errors import KernelError, NoSpaceError, TemplateError, TimeLimitError, VectlError
from reconciler.kernel import archive, command
from reconciler.kernel.syscalls import checked, libc
from reconciler.kernel.unpack import Unpacker
from reconciler.kernel.unpack_marks import Rules, Setuid, Totals

_PR_SET_PDEATHSIG = 1
_MEMORY = 2 << 30
_HEADERS_MOST = 4 << 30
_ERRORS = (TemplateError, NoSpaceError, TimeLimitError, KernelError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Archives to unpack into one tree, each over the ones before it. ``what``: their name for people.

    Units: seconds.
    """

    archives: Sequence[str]
    tree: str
    what: str
    rules: Rules
    seconds: float


def unpack(job: Job, *, told: Callable[[str], None] = lambda text: None) -> Totals:
    """Unpack archives in a process of its own, with bounds on its memory, its time and what it writes.

    Raises: TemplateError; NoSpaceError; TimeLimitError; KernelError; MissingToolError; CommandError.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(reconciler.__file__)))
    argv = [sys.executable, "-P", "-s", "-S", "-m", __name__]
    last = ""

    def hear(line: str) -> None:
        nonlocal last
        if line.startswith("{"):
            last = line
        else:
            told(line)

    text = json.dumps({**asdict(job), "archives": [*job.archives]}).encode()
    command.run_telling(argv, hear, timeout_s=job.seconds + 30.0, input=text, env={"PYTHONPATH": package})
    answer = json.loads(last or "{}")
    if "totals" in answer:
        return Totals(**answer["totals"])
    kind = next((kind for kind in _ERRORS if kind.__name__ == answer.get("error")), TemplateError)
    raise kind(answer.get("text", f"unpack {job.what}: its process said nothing"))


def _main() -> None:
    given = json.load(sys.stdin)
    rules = given.pop("rules")
    job = Job(**given, rules=Rules(**{**rules, "setuid": Setuid(rules["setuid"])}))
    checked(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl", "PR_SET_PDEATHSIG")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job.rules.size, job.rules.size))
    try:
        _say(totals=asdict(unpack_here(job, told=_write)))
    except MemoryError:
        _say(error=TemplateError.__name__, text=f"unpack {job.what}: it takes more than {_MEMORY >> 20} MiB of memory")
    except VectlError as err:
        _say(error=type(err).__name__, text=str(err))


def unpack_here(job: Job, *, told: Callable[[str], None] = lambda text: None) -> Totals:
    """Unpack archives in this process, whose memory nothing bounds.

    Raises: as `unpack`.
    """
    deadline = time.monotonic() + job.seconds
    unpacker = Unpacker(job.tree, what=job.what, rules=job.rules, told=told)
    try:
        for path in job.archives:
            most = job.rules.size + _HEADERS_MOST
            with archive.opened(path, what=job.what, most=most, deadline=deadline) as stream:
                unpacker.unpack(stream)
        unpacker.finish()
        return unpacker.totals
    finally:
        unpacker.close()


def _say(**answer: object) -> None:
    _write(json.dumps(answer))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
