"""A fleet of real VEs for one test module: an instance, its agent, and a network namespace that is its whole host.

Everything that the instance makes is looked for at the end; what is left fails the module.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import reconciler
from reconciler.agent import server
from reconciler.errors import VectlError
from reconciler.kernel import netns
from reconciler.model.condition import Condition, ConditionType, Event, Status, broken_invariants
from reconciler.model.identity import HostName, VeName
from reconciler.model.instance import Instance
from reconciler.model.record import decode_record
from reconciler.model.volume import Record
from reconciler.sources.snapshot import snapshot_of
from reconciler.state import layout
from reconciler.state.conditions import Conditions
from reconciler.state.events import EventLog
from tests.support import leftovers, scratch
from tests.support.inside import Ve
from tests.support.patience import PATIENCE

T = TypeVar("T")
Document: TypeAlias = Mapping[str, object]
Value: TypeAlias = Any
"""The value of a field of a manifest, right or wrong."""

DEADLINE_S = 30.0 * PATIENCE
COMMAND_S = 60.0 * PATIENCE

# Only events and files' hints wake the agent of a test: what a timer would find late is not found at all.
_QUIET = {"resync": "1h", "relist": "1h", "settle": "20ms", "pruneDelay": "300ms"}


def until(condition: Callable[[], T], what: str, *, deadline_s: float = DEADLINE_S) -> T:
    """Wait until a look gives something true, and give that; what cannot be looked at yet is not true yet."""
    deadline, last = time.monotonic() + deadline_s, "nothing true"
    while True:
        try:
            found = condition()
            if found:
                return found
            last = repr(found)
        except (LookupError, OSError, VectlError, subprocess.CalledProcessError) as err:
            last = repr(err)
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for {what}; last seen: {last}"
        time.sleep(0.01)


def reaches(one: Fleet | Ve, address: str) -> None:
    """Wait until an address answers the host, or a VE: the kernel may still be asking who has it."""
    until(lambda: one.can_reach(address), f"{address} to answer")


def network(name: str, *subnets: str, **spec: Value) -> Document:
    """Make a manifest of a network."""
    return _document("Network", {"name": name}, {"subnets": list(subnets), **spec})


def ve(name: str, *addresses: str, on: str = "lan", metadata: Document | None = None, **spec: Value) -> Document:
    """Make a manifest of a small VE that stops soon; with addresses it has one interface."""
    links = [{"name": "eth0", "network": on, "addresses": list(addresses)}] if addresses else []
    small = {"memory": {"limit": "64Mi"}, "disk": {"size": "64Mi"}, "boot": {"stopTimeout": "5s"}, "interfaces": links}
    return _document("VirtualEnvironment", {"name": name, **(metadata or {})}, {**small, **spec})


def _document(kind: str, metadata: Document, spec: Document) -> Document:
    return {"apiVersion": "ve/v1", "kind": kind, "metadata": metadata, "spec": spec}


@dataclass(kw_only=True)
class Fleet:
    """An instance with its manifests. ``namespace``: descriptor of the network namespace that it takes for the host."""

    instance: Instance
    directory: Path
    namespace: int
    agent: subprocess.Popen[bytes] | None = None
    follows_config: bool = False
    _edits: int = 0
    _log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def manifests(self) -> Path:
        """The directory that the agent is told to follow."""
        return self.directory / "manifests"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "config.yaml"

    @property
    def log(self) -> Path:
        """What all agents of the instance said."""
        return self.directory / "agent.log"

    # What a person does

    def put(self, file: str, *documents: Document) -> None:
        """Write a file of manifests in one step. No two edits give the same revision, whatever they say."""
        self._edits += 1
        self.put_text(file, f"# {self._edits}\n" + "\n---\n".join(json.dumps(document) for document in documents))

    def put_text(self, file: str, text: str) -> None:
        """Write a file of manifests in one step, whatever it says."""
        temporary = self.manifests / f".{file}.tmp"
        temporary.write_text(text)
        temporary.rename(self.manifests / file)

    def drop(self, file: str) -> None:
        """Remove a file of manifests."""
        (self.manifests / file).unlink()

    def vectl(self, *args: str, code: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Run a command to its end, and give what it printed on standard output."""
        done = self._run_vectl(args, env)
        assert done.returncode == code, f"vectl {' '.join(args)}: {done.returncode}, not {code}\n{done.stderr}"
        return done.stdout

    def complaint(self, *args: str, code: int = 1, env: Mapping[str, str] | None = None) -> str:
        """Run a command that is to fail, and give what it said."""
        done = self._run_vectl(args, env)
        assert done.returncode == code, f"vectl {' '.join(args)}: {done.returncode}, not {code}\n{done.stderr}"
        return done.stderr

    def _run_vectl(self, args: Sequence[str], env: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._argv(*args),
            env={**_environment(), **(env or {})},
            pass_fds=(self.namespace,),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )

    def _argv(self, *args: str) -> list[str]:
        vectl = [sys.executable, "-m", "reconciler.cli.entry", "--config", str(self.config)]
        return ["nsenter", f"--net=/proc/self/fd/{self.namespace}", "--", *vectl, *args]

    def host(self, *argv: str, check: bool = True) -> str:
        """Run a command of the host in its network namespace."""
        return self.in_namespace(self.namespace, *argv, check=check)

    def in_namespace(self, namespace: int, *argv: str, check: bool = True) -> str:
        """Run a command in a network namespace."""
        return subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{namespace}", "--", *argv],
            pass_fds=(namespace,),
            stdout=subprocess.PIPE,
            text=True,
            check=check,
            timeout=COMMAND_S,
        ).stdout

    def host_json(self, *argv: str) -> Any:  # whatever the command's JSON is
        """Run a command that prints JSON, in the host's network namespace."""
        return json.loads(self.host(*argv) or "[]")

    def can_reach(self, address: str) -> bool:
        """Say whether an address answers the host."""
        return "1 packets received" in self.host("busybox", "ping", "-c", "1", "-W", "1", address, check=False)

    def ask(self, op: str, **arguments: str | bool | float) -> Any:  # whatever it answers
        """Ask the agent, as the commands do."""
        answer = asyncio.run(server.ask(self.instance, op, **arguments))
        assert answer is not None, "no agent answers"
        assert answer["ok"], answer
        return answer["result"]

    @contextmanager
    def in_one_moment(self) -> Iterator[None]:
        """Let all that is done in the block be one for the agent: it is held, and sees nothing of it half done."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.agent.send_signal(signal.SIGCONT)

    # The agent

    def follow(self, **source: Value) -> None:
        """Have the agents that are started from now on follow the source of the configuration, which is this one."""
        told = json.loads(self.config.read_text())
        self.config.write_text(json.dumps({**told, "source": source}))
        self.follows_config = True

    def start_agent(self, *options: str, failpoints: str = "", wait: bool = True, path: str = "") -> None:
        """Start the agent, and wait until it answers. ``path``: where it finds programs, if not where we do."""
        assert self.agent is None
        self._log = self.log.open("ab")
        self.agent = subprocess.Popen(
            self._argv("agent", *(() if self.follows_config else ("--source", str(self.manifests))), *options),
            env={**_environment(), "VECTL_FAILPOINTS": failpoints, **({"PATH": path} if path else {})},
            pass_fds=(self.namespace,),
            stdout=self._log,
            stderr=self._log,
        )
        if wait:
            until(self._answers, "the agent to answer")

    def _answers(self) -> bool:
        assert self.agent is not None
        assert self.agent.poll() is None, f"the agent ended:\n{self.log.read_text()[-2000:]}"
        return asyncio.run(server.ask(self.instance, "ping")) is not None

    def end_agent(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the agent and wait for it; give its exit status."""
        assert self.agent is not None
        self.agent.send_signal(number)
        return self.await_agent_end()

    def await_agent_end(self) -> int:
        """Wait until the agent has ended by itself; give its exit status."""
        assert self.agent is not None
        assert self._log is not None
        try:
            status = self.agent.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.agent.send_signal(signal.SIGABRT)  # it writes down where each of its threads is
            self.agent.wait(DEADLINE_S)
            raise AssertionError(f"the agent did not end:\n{self.log.read_text(errors='replace')[-8000:]}") from None
        self._log.close()
        self.agent = self._log = None
        return status

    # What is to be seen

    def revision(self) -> str:
        """Give the name of the revision that the manifests are now."""
        files = {path.name: path.read_bytes() for path in self.manifests.glob("[!.]*.yaml")}
        return snapshot_of("dir", files).revision

    def records(self) -> dict[VeName, Record]:
        """Read the records of all VEs that are in the pool."""
        files = sorted(Path(self.instance.ves).glob("*/record.json"))
        read = [decode_record(file.read_bytes(), where=str(file)) for file in files]
        found = {record.name: record for record in read}
        assert len(found) == len(read), f"a name twice: {[record.name for record in read]}"
        return found

    def ve(self, name: str) -> Ve:
        """Find a VE by its name."""
        return Ve(self.instance, self.records()[VeName(name)].uid)

    def conditions(self, subject: str) -> dict[ConditionType, Condition]:
        """Read the conditions of a VE or of the source, which must hold together."""
        found = Conditions(layout.conditions_dir(self.instance)).read(subject)
        if not subject.startswith("_"):
            assert not found or broken_invariants(found) == ()
        return {condition.type: condition for condition in found}

    def is_ready(self, name: str) -> bool:
        """Say whether the agent holds a VE to be as the manifests say now."""
        ready = self.conditions(name).get(ConditionType.READY)
        return ready is not None and ready.status is Status.TRUE and ready.revision == self.revision()

    def await_ready(self, *names: str) -> None:
        """Wait until the agent holds VEs to be as the manifests say now."""
        for name in names:
            with self.explained(name):
                until(lambda name=name: self.is_ready(name), f"{name} to be ready")  # type: ignore[misc]  # bound now

    def await_reason(self, name: str, reason: str, kind: ConditionType = ConditionType.READY) -> Condition:
        """Wait until a condition has a reason."""
        with self.explained(name):
            until(lambda: self.conditions(name)[kind].reason == reason, f"{kind} of {name} to be {reason}")
        return self.conditions(name)[kind]

    def await_removed(self, name: str) -> None:
        """Wait until a VE is no longer in the pool."""
        with self.explained(name):
            until(lambda: name not in self.records(), f"{name} to be removed")

    @contextmanager
    def explained(self, name: str) -> Iterator[None]:
        """Add to a failed wait what the agent says of a VE or of a host object, and of everything lately."""
        try:
            yield
        except AssertionError as err:
            said = self.log.read_text(errors="replace").splitlines()[-5:] if self.log.exists() else []
            told = [f"{e.ve}: {e.reason}: {e.message}" for e in self.events()[-10:]]
            known = (
                [] if "/" in name else [f"{c.type}: {c.reason}: {c.message}" for c in self.conditions(name).values()]
            )
            raise AssertionError("\n".join(line[:400] for line in [str(err), *known, *told, *said])) from err

    def events(self) -> list[Event]:
        """Give everything that people were told, oldest first."""
        return list(EventLog(layout.events_file(self.instance)).read())

    def told(self, name: str) -> list[str]:
        """Give the reasons of the events of a VE, oldest first."""
        return [event.reason for event in self.events() if event.ve == name]

    @contextmanager
    def puts_right(self, name: str, path: str) -> Iterator[None]:
        """Wait at the end of the block until the agent has corrected a field of a VE or host object once more."""

        def corrections() -> int:
            started = f"update {path} " if path else "create"
            found = (e for e in self.events() if e.ve == name and e.reason in ("Drifted", "InitEnded"))
            return sum(event.message.startswith(started) for event in found)

        before = corrections()
        yield
        with self.explained(name):
            until(lambda: corrections() > before, f"{path} of {name} to be put right")

    def said(self, event: str) -> list[dict[str, Any]]:
        """Give all lines of the agents' log about something that happens in them, oldest first."""
        whole = self.log.read_text(errors="replace").rpartition("\n")[0]
        lines = (json.loads(line) for line in whole.splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    def passes(self) -> list[dict[str, Any]]:
        """Give the passes that are over, of all agents: those over everything, and of others those that did something.

        A pass is written down when it is over, which is later than what it did is told and seen.
        """
        return self.said("pass.finished")

    def actions(self) -> list[str]:
        """Give the passes of all agents that did something, as ``key: number of actions``."""
        return [f"{line['key']}: {line['actions']}" for line in self.passes() if line["actions"]]

    def settle(self) -> None:
        """Wait until the agent follows the manifests as they are and has nothing to do, now or after a delay."""

        def is_at_rest() -> bool:
            told = self.ask("ping")
            return (told["revision"], told["turns"]) == (self.revision(), 0)

        until(is_at_rest, "the agent to be at rest")


def _environment() -> dict[str, str]:
    """Give an environment in which the reconciler under test is found, and no configuration of this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VECTL_")}
    return {**kept, "PYTHONPATH": str(Path(reconciler.__file__).parent.parent), "PYTHONFAULTHANDLER": "1"}


@contextmanager
def fleet(base: Path, *documents: Document, **config: Value) -> Iterator[Fleet]:
    """Make an instance with a directory of its own, its manifests in ``all.yaml``; no agent runs yet."""
    _make_passable(base)
    with _claimed_name() as name, scratch.directory(base / name) as directory, _namespace() as namespace:
        made = Fleet(instance=_instance(name, directory, config), directory=directory, namespace=namespace)
        made.manifests.mkdir()
        made.config.write_text(json.dumps(_config(made.instance, config)))
        made.put("all.yaml", *documents)
        made.host("ip", "link", "set", "lo", "up")
        try:
            yield made
        finally:
            _take_down(made)


@contextmanager
def neighbour(of: Fleet, base: Path, *documents: Document, **config: Value) -> Iterator[Fleet]:
    """Make a second instance on the host of another one."""
    with _claimed_name() as name, scratch.directory(base / name) as directory:
        made = Fleet(instance=_instance(name, directory, config), directory=directory, namespace=of.namespace)
        made.manifests.mkdir()
        made.config.write_text(json.dumps(_config(made.instance, config)))
        made.put("all.yaml", *documents)
        try:
            yield made
        finally:
            _take_down(made)


def _instance(name: str, directory: Path, config: Mapping[str, object]) -> Instance:
    return Instance(
        name=name,
        host=HostName(str(config.get("host", "here"))),
        state_dir=f"{directory}/state",
        run_dir=f"{directory}/run",
        cgroup=f"/{name}",
        runtime=str(config.get("runtime", "runc")),
    )


def _config(instance: Instance, more: Mapping[str, object]) -> Mapping[str, object]:
    ours = {"instance": instance.name, "host": instance.host, "stateDir": instance.state_dir}
    return {**ours, "runDir": instance.run_dir, "pool": {"size": "1Gi"}, **_QUIET, **more}


def _take_down(made: Fleet) -> None:
    """Take an instance down as a person would, and look for what is left of it."""
    try:
        if made.agent is not None:
            made.end_agent(signal.SIGTERM if made.agent.poll() is None else signal.SIGCONT)
        named = [word for record in made.records().values() for word in ("--destroy-data", record.name)]
        made.vectl("down", "--yes", *named)
        left = leftovers.find(made.instance, made.namespace)
    finally:
        leftovers.sweep(made.instance)
    assert left == [], f"left of {made.instance.name}: {left}"


@contextmanager
def _claimed_name() -> Iterator[str]:
    """Choose a short name that nobody else has on this machine, and hold it."""
    with socket.socket(socket.AF_UNIX) as claim:
        while True:
            name = f"t{secrets.token_hex(2)}"
            with suppress(OSError):
                claim.bind(f"\0vectl-test-{name}")
                break
        yield name


def _make_passable(directory: Path) -> None:
    """Let the ids of VEs pass through a directory that pytest made for root alone."""
    for path in (directory, *directory.parents):
        mode = path.stat().st_mode
        if not mode & 0o001:
            path.chmod(mode | 0o011)


@contextmanager
def _namespace() -> Iterator[int]:
    descriptor = netns.create()
    try:
        yield descriptor
    finally:
        os.close(descriptor)
