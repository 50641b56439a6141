"""The agent's socket: requests of the command line, carried out by the one process that may.

Shape: one JSON object per line each way; ``{"op": ..., ...}`` is answered by ``{"ok": true, "result": ...}`` or by
``{"ok": false, "error": ..., "exit_code": ...}``. The socket belongs to root and lies in a directory of the instance.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from reconciler.agent.loop import Agent
from reconciler.agent.operations import Operations
from reconciler.errors import ExitCode, UsageError, VectlError
from reconciler.model.commit import TrustState
from reconciler.model.facts import Json
from reconciler.model.identity import VeName
from reconciler.model.instance import Instance
from reconciler.sources.snapshot import Snapshot

_LINE_BYTES = 1 << 16

Arguments = Mapping[str, Json]


def socket_path(instance: Instance) -> str:
    """Give the socket's path."""
    return f"{instance.run_dir}/agent.sock"


class Server:
    """Answers requests while the agent runs."""

    def __init__(
        self,
        agent: Agent,
        operations: Operations,
        instance: Instance,
        *,
        refresh: Callable[[], Awaitable[Snapshot]],
    ) -> None:
        """``refresh`` finds out what is new in the source."""
        self._agent, self._operations, self._instance = agent, operations, instance
        self._find_newest = refresh
        self._server: asyncio.Server | None = None
        self._handlers: Mapping[str, Callable[[Arguments], Awaitable[Json]]] = {
            "ping": self._ping,
            "count": self._count,
            "reconcile": self._reconcile,
            "refresh": self._refresh,
            "stop": self._stop,
            "start": self._start,
            "restart": self._restart,
            "pause": self._pause,
            "unpause": self._unpause,
            "protect": self._protect,
            "forget": self._forget,
            "trash-restore": self._restore,
            "trash-purge": self._purge,
        }

    async def open(self) -> None:
        """Begin to answer."""
        path = socket_path(self._instance)
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._server = await asyncio.start_unix_server(self._converse, path, limit=_LINE_BYTES)
        os.chmod(path, 0o600)

    async def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
        with suppress(FileNotFoundError):
            os.unlink(socket_path(self._instance))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who asks while the agent ends is cut off: unsuppressed, asyncio would log that as an error of ours.
        with suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> dict[str, Json]:
        try:
            request = json.loads(line)
            handler = self._handlers.get(str(request.get("op"))) if isinstance(request, dict) else None
            if handler is None:
                raise UsageError(f"read request: expected one of {', '.join(sorted(self._handlers))}")
            return {"ok": True, "result": await handler(request)}
        except VectlError as error:
            return {"ok": False, "error": str(error), "kind": type(error).__name__, "exit_code": int(error.exit_code)}
        except ValueError as error:
            return {
                "ok": False,
                "error": f"read request: {error}",
                "kind": "UsageError",
                "exit_code": int(ExitCode.USAGE),
            }

    async def _ping(self, arguments: Arguments) -> Json:
        del arguments
        return {
            "pid": os.getpid(),
            "revision": self._agent.reconciler.fleet.revision,
            "source": self._agent.reconciler.desk.source,
            "turns": len(self._agent.queue),
        }

    async def _count(self, arguments: Arguments) -> Json:
        """Look at the counters of VEs now, and write down what was seen."""
        name, shortages = arguments.get("ve"), self._agent.shortages
        if shortages is not None:
            names = self._agent.reconciler.names
            await shortages.look([uid for uid, known in names.items() if name in (None, known)], deep=True)
            shortages.write_down()
        return None

    async def _reconcile(self, arguments: Arguments) -> Json:
        name = arguments.get("ve")
        self._agent.ask(VeName(str(name)) if name else None)
        return None

    async def _refresh(self, arguments: Arguments) -> Json:
        """Find out what is new in the source; give it, or why there is nothing to be taken."""
        del arguments
        newest = await self._find_newest()
        refused = newest.trust if newest.trust.state is not TrustState.TRUSTED else None
        reason, problem = (
            (refused.reason, refused.message) if refused and not newest.reason else (newest.reason, newest.problem)
        )
        return {"revision": newest.revision, "reason": reason, "problem": problem if reason else ""}

    async def _stop(self, arguments: Arguments) -> Json:
        reason, cold = str(arguments.get("reason") or ""), bool(arguments.get("cold"))
        await self._operations.stop(_ve(arguments), by=_by(arguments), reason=reason, cold=cold)
        return None

    async def _start(self, arguments: Arguments) -> Json:
        await self._operations.start(_ve(arguments), by=_by(arguments), cold=bool(arguments.get("cold")))
        self._agent.ask(None)
        return None

    async def _restart(self, arguments: Arguments) -> Json:
        await self._operations.restart(_ve(arguments), by=_by(arguments))
        self._agent.ask(None)
        return None

    async def _pause(self, arguments: Arguments) -> Json:
        until = arguments.get("until")
        await self._operations.pause(
            _ve_or_all(arguments),
            by=_by(arguments),
            reason=str(arguments.get("reason") or ""),
            until=float(until) if isinstance(until, int | float) else None,
        )
        self._agent.ask(None)
        return None

    async def _unpause(self, arguments: Arguments) -> Json:
        await self._operations.unpause(_ve_or_all(arguments), by=_by(arguments))
        self._agent.ask(None)
        return None

    async def _protect(self, arguments: Arguments) -> Json:
        await self._operations.set_protection(_ve(arguments), protect=bool(arguments.get("protect")), by=_by(arguments))
        self._agent.ask(None)
        return None

    async def _forget(self, arguments: Arguments) -> Json:
        await self._operations.forget(_ve(arguments), by=_by(arguments))
        self._agent.ask(None)
        return None

    async def _restore(self, arguments: Arguments) -> Json:
        await self._operations.restore(str(arguments.get("id")), by=_by(arguments))
        self._agent.ask(None)
        return None

    async def _purge(self, arguments: Arguments) -> Json:
        await self._operations.purge(str(arguments.get("id")), by=_by(arguments))
        return None


def _refused(message: str, kind: str, code: ExitCode) -> dict[str, Json]:
    return {"ok": False, "error": message, "kind": kind, "exit_code": int(code)}


def _ve(arguments: Arguments) -> VeName:
    name = arguments.get("ve")
    if not isinstance(name, str) or not name:
        raise UsageError("read request: expected the name of a VE in `ve`")
    return VeName(name)


def _ve_or_all(arguments: Arguments) -> VeName | None:
    return _ve(arguments) if arguments.get("ve") is not None else None


def _by(arguments: Arguments) -> str:
    return str(arguments.get("by") or "root")


async def ask(instance: Instance, op: str, **arguments: Json) -> dict[str, Json] | None:
    """Ask the agent of an instance; None if none runs.

    Shape: what `Server` answers; an error of the agent's is in the answer, not raised.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path(instance), limit=_LINE_BYTES)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    try:
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
        answer = json.loads(line) if line else None
        return answer if isinstance(answer, dict) else None
    finally:
        writer.close()
