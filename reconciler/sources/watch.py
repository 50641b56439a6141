"""Hints that a directory changed: inotify where it is to be had. Whoever is woken looks; nobody trusts an event."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

import structlog
from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

_log = structlog.get_logger(__name__)

_CHANGES: list[type[events.FileSystemEvent]] = [
    events.FileCreatedEvent,
    events.FileModifiedEvent,
    events.FileClosedEvent,
    events.FileMovedEvent,
    events.FileDeletedEvent,
    events.DirCreatedEvent,
    events.DirModifiedEvent,
    events.DirMovedEvent,
    events.DirDeletedEvent,
]
"""All but opening and reading, which a look does itself: it would wake itself for ever."""

_JOIN_S = 2.0


class Watch:
    """Calls ``wake`` in ``loop`` when something below ``path`` may have changed, or ``path`` itself was replaced.

    Without inotify it never wakes, and says so: whoever relists on a timer loses time, not changes.
    """

    __slots__ = ("_loop", "_observer", "_path", "_pending", "_root", "_wake", "degraded")

    def __init__(self, path: str, wake: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        self._path = os.path.abspath(path)
        self._wake = wake
        self._loop = loop
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None
        self._pending = False
        self.degraded = ""
        """Why there are no hints at present; empty while there are."""

    def arm(self, root: tuple[int, int] | None) -> bool:
        """Begin to watch, or go on; after every look. ``root``: the device and inode of the directory looked at.

        Tells whether it began only now: what changed between the look and that was seen by neither.

        A watch stays with its inode: once the directory is replaced it would be silent for ever.
        """
        if self._observer is not None and self._observer.is_alive() and root == self._root:
            return False
        self.stop()
        try:
            self._observer = self._start(root is not None)
        except OSError as err:
            self._degrade(err.strerror or "inotify is not to be had")
            return False
        self._root = root
        self._restore()
        return True

    def stop(self) -> None:
        """Stop watching; idempotent."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(_JOIN_S)

    def _start(self, root_exists: bool) -> BaseObserver:
        observer = Observer()
        # The parent tells when the directory, or the link that leads to it, is put there anew.
        observer.schedule(_Handler(self._hint, only=self._path), os.path.dirname(self._path), event_filter=_CHANGES)
        if root_exists:
            target = os.path.realpath(self._path)
            observer.schedule(_Handler(self._hint), target, recursive=True, event_filter=_CHANGES)
        try:
            observer.start()
        except OSError:
            observer.unschedule_all()
            raise
        return observer

    def _hint(self) -> None:
        """Pass a hint on from the observer's thread; many that come at once are one."""
        if not self._pending:
            self._pending = True
            with suppress(RuntimeError):  # The loop was closed: nobody is left to be woken.
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._pending = False
        self._wake()

    def _degrade(self, reason: str) -> None:
        if reason != self.degraded:
            _log.warning("source.watch_degraded", path=self._path, reason=reason, instead="relisting on a timer")
        self.degraded = reason

    def _restore(self) -> None:
        if self.degraded:
            _log.info("source.watch_restored", path=self._path)
        self.degraded = ""


class _Handler(events.FileSystemEventHandler):
    """Turns events into hints; of the neighbours of ``only``, those into none."""

    def __init__(self, hint: Callable[[], None], *, only: str | None = None) -> None:
        self._hint = hint
        self._only = only

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        paths = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path))
        if self._only is None or self._only in paths:
            self._hint()
