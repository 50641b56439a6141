"""The limit of CPU time, which several systems say twice: as a limit, and as a number of CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reconciler.importing.draft import Job
from reconciler.importing.report import Setting
from reconciler.importing.words import cpus

_LEAST = 0.01
_OF_CPUS = "it may use the time of so many CPUs, on whichever they are"


def limit(job: Job, said: Iterable[tuple[Setting | None, Callable[[str], float]]], *, number: str) -> None:
    """Set the smallest of the limits that are said, each read to a number of CPUs; 0 is none.

    ``number``: the key that says how many CPUs there are, of which a limit of time is only nearly the same.
    """
    found: list[tuple[float, Setting]] = []
    for setting, read in said:
        if setting is None:
            continue
        try:
            amount = read(setting.value.strip())
        except ValueError as err:
            job.drop(setting, str(err))
            continue
        if amount:
            found.append((max(amount, _LEAST), setting))
    if not found:
        return
    least, setting = min(found, key=lambda one: one[0])
    for other in (one for _, one in found if one is not setting):
        job.ignore(other, f"{setting.key} allows less")
    if setting.key == number:
        job.change(setting, "cpu.limit", cpus(least), _OF_CPUS)
    else:
        job.put(setting, "cpu.limit", cpus(least))
