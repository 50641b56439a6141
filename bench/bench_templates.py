"""From a Debian 13 template that is built to a VE whose ssh answers: how long it takes, and what has which share."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bench import common
from reconciler.agent.session import open_session
from reconciler.host.keeper import records
from reconciler.manifests.load import load_fleet
from reconciler.model.action import Action
from reconciler.model.fleet import Fleet
from reconciler.model.identity import Uid
from reconciler.model.instance import Instance
from reconciler.state.config import Config

ROUNDS = 5
DEADLINE_S = 120.0
NETWORK = "10.203.0.0/24"
TEMPLATE = """
apiVersion: ve/v1
kind: Template
metadata: {name: debian-13}
spec: {source: {debootstrap: {suite: trixie, packages: [openssh-server]}}}
"""
LAN = f"""
apiVersion: ve/v1
kind: Network
metadata: {{name: lan}}
spec: {{mode: bridged, subnets: [{NETWORK}], gateway: [10.203.0.1]}}
"""
PHASES = {
    "create": "manifest to init let go",
    "boot": "init to the first unit of ours",
    "keys": "host keys made",
    "sshd": "sshd up and answering",
}


def main() -> None:
    """Build the template once, make VEs of it one after the other, and print the medians."""
    common.machine()
    with common.place("bntempl", ves=0) as place:
        for path in place.manifests.iterdir():
            path.unlink()
        (place.manifests / "base.yaml").write_text(f"{LAN}---{TEMPLATE}")
        seconds = common.timed(lambda: _build(place))
        common.report("build of Debian 13 with openssh-server", f"{seconds:.1f} s", "none")
        rounds = asyncio.run(_measure(place))
    total = statistics.median(sum(one.values()) for one in rounds)
    common.report("cached Debian 13 template to answering ssh", f"{total:.2f} s (median of {ROUNDS})", "none")
    for phase, what in PHASES.items():
        middle = statistics.median(one[phase] for one in rounds)
        common.report(f"  {phase}: {what}", f"{middle * 1000:.0f} ms, {middle / total:.0%}", "none")


def _build(place: common.Place) -> None:
    done = place.vectl("template", "build", "debian-13", "--manifests", str(place.manifests), timeout_s=1800)
    assert done.returncode == 0, done.stderr


async def _measure(place: common.Place) -> list[Mapping[str, float]]:
    config, source = Config(instance=place.instance), f"dir:{place.manifests}"
    async with open_session(config, source=source, fleet=_load(place.manifests, "r0")) as session:
        await session.reconciler.converge()
        rounds = []
        for number in range(ROUNDS):
            (place.manifests / f"ve{number}.yaml").write_text(_manifest(number))
            let_go: list[float] = []

            def step(action: Action, name: str, let_go: list[float] = let_go) -> None:
                if name == "StartRuntime":
                    let_go.append(time.monotonic())

            session.reconciler.on_step = step
            begun = time.monotonic()
            session.reconciler.fleet = _load(place.manifests, f"r{number + 1}")
            result = await session.reconciler.pass_all()
            assert all(outcome.ok for outcome in result.outcomes), result.outcomes
            answered = await asyncio.to_thread(_await_ssh, f"10.203.0.{10 + number}")
            rounds.append(_phases(place.instance, number, begun, let_go[-1], answered))
        return rounds


def _load(manifests: Path, revision: str) -> Fleet:
    loaded = load_fleet({path.name: path.read_bytes() for path in manifests.iterdir()}, revision=revision)
    assert loaded.fleet is not None, loaded.findings
    return loaded.fleet


def _manifest(number: int) -> str:
    interface = f"{{name: eth0, network: lan, addresses: [10.203.0.{10 + number}/24]}}"
    return (
        f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: deb{number}}}\n"
        f"spec: {{template: debian-13, memory: {{limit: 512Mi}}, disk: {{size: 512Mi}}, interfaces: [{interface}]}}\n"
    )


def _await_ssh(address: str) -> float:
    """Wait for what an ssh server says first; give when that was."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((address, 22), timeout=5) as connection:
                if connection.recv(16).startswith(b"SSH-2.0"):
                    return time.monotonic()
        except OSError:
            time.sleep(0.005)
    raise AssertionError(f"ssh at {address} does not answer")


def _phases(instance: Instance, number: int, begun: float, let_go: float, answered: float) -> Mapping[str, float]:
    """Part the time by what systemd says of the unit that makes the host keys; its clock is the host's."""
    uid = next(
        uid
        for uid in os.listdir(instance.ves)
        if f'"deb{number}"' in Path(instance.ves, uid, "record.json").read_text()
    )
    record = records.read_init(instance.run_dir, Uid(uid))
    assert record is not None
    asked = ["systemctl", "show", "vectl-ssh-keys.service", "-p", "ExecMainStartTimestampMonotonic"]
    asked += ["-p", "ExecMainExitTimestampMonotonic"]
    enter = ["nsenter", f"--target={record.init.pid}", "--all", "--root", "--wd", "--", *asked]
    shown = subprocess.run(enter, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.splitlines()
    times = {key: int(value) / 1e6 for key, _, value in (line.partition("=") for line in shown)}
    started, ended = times["ExecMainStartTimestampMonotonic"], times["ExecMainExitTimestampMonotonic"]
    return {"create": let_go - begun, "boot": started - let_go, "keys": ended - started, "sshd": answered - ended}


if __name__ == "__main__":
    main()
