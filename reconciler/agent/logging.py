"""How the agent logs: for people on a terminal, as JSON elsewhere; no local variable of a traceback ever."""

from __future__ import annotations

import logging
import sys

import structlog

from reconciler.plan.words import printable


def configure(level: str, *, terminal: bool, color: bool = False) -> None:
    """Set up structlog for this process; words go to standard error. ``terminal``: for people, on one."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=False),
    ]
    renderer = _for_people(color) if terminal else _for_machines()
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping().get(level.upper(), 20)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _for_people(color: bool) -> list[structlog.typing.Processor]:
    return [
        _printable,
        structlog.dev.ConsoleRenderer(colors=color, exception_formatter=structlog.dev.plain_traceback),
    ]


def _printable(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make texts safe for a terminal: some of them a VE wrote."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _for_machines() -> list[structlog.typing.Processor]:
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
