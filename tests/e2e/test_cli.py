"""Claims about the commands on a real host, where no agent runs: what they do, what they print, how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import reconciler
from tests.support.fleet import COMMAND_S, Document, Fleet, network, until, ve
from tests.support.fleet import fleet as made_fleet
from tests.support.outputs import misfits
from tests.support.terminal import Terminal, terminal

pytestmark = pytest.mark.xdist_group("cli")

LAN = network("lan", "10.181.1.0/24", gateway=["10.181.1.1"])
WEB = ve("web1", "10.181.1.11/24", metadata={"labels": {"tier": "web"}})
DB = ve("db1")


ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("VECTL_")},
    "PYTHONPATH": str(Path(reconciler.__file__).parent.parent),
}

# Somebody who may read everything, as the checkout may lie where only root reads, and change nothing.
STRANGER = (
    *("setpriv", "--reuid=65534", "--clear-groups"),
    *(f"--{caps}=-all,+dac_read_search" for caps in ("bounding-set", "inh-caps", "ambient-caps")),
)


def argv(fleet: Fleet, *args: str) -> list[str]:
    """Give the words that run a command on the host of a fleet."""
    vectl = [sys.executable, "-m", "reconciler.cli.entry", "--config", str(fleet.config)]
    return ["nsenter", f"--net=/proc/self/fd/{fleet.namespace}", "--", *vectl, *args]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with made_fleet(tmp_path_factory.getbasetemp(), LAN, WEB, DB) as made:
        yield made


@pytest.fixture
def fleet(host: Fleet) -> Fleet:
    """Two VEs that are as their manifests say. A test that changes one by hand puts it right itself."""
    put(host, LAN, WEB, DB)
    if not (host.is_ready("web1") and host.is_ready("db1") and set(host.records()) >= {"web1", "db1"}):
        apply(host, LAN, WEB, DB)
    return host


def put(fleet: Fleet, *documents: Document) -> None:
    """Write the manifests; the same ones are the same revision."""
    fleet.put_text("all.yaml", "\n---\n".join(json.dumps(document) for document in documents))


def apply(fleet: Fleet, *documents: Document, options: tuple[str, ...] = (), code: int = 0) -> str:
    """Make the host what some documents say."""
    put(fleet, *documents)
    return fleet.vectl("apply", str(fleet.manifests), "--yes", *options, code=code)


def read(fleet: Fleet, *args: str, code: int = 0) -> Any:  # the JSON of any command
    """Run a command for scripts, and give what it printed."""
    return json.loads(fleet.vectl(*args, "-o", "json", code=code))


def item(fleet: Fleet, name: str) -> Mapping[str, Any]:
    """Give what `vectl get` says of one VE."""
    (found,) = read(fleet, "get", name)["items"]
    assert isinstance(found, dict)
    return found


def reason(fleet: Fleet, name: str, kind: str = "Ready") -> str:
    """Give the reason of a condition of a VE."""
    return str(next(c["reason"] for c in item(fleet, name)["conditions"] if c["type"] == kind))


def process_limit(fleet: Fleet, name: str) -> Path:
    """Give the file that bounds the number of processes of a VE."""
    return fleet.ve(name).limit_file("pids.max", "pids.max", controller="pids")


@contextmanager
def at_a_terminal(fleet: Fleet, *args: str) -> Iterator[Terminal]:
    """Run a command in front of a person."""
    with terminal(argv(fleet, *args), env=ENVIRONMENT, inherit=fleet.namespace) as shown:
        yield shown


# Making a host what manifests say


def test_a_host_is_planned_made_and_then_left_alone(host: Fleet) -> None:
    directory = str(host.manifests)
    assert host.vectl("get", "-o", "name") == ""
    planned = read(host, "plan", directory, "--detailed-exitcode", code=2)
    assert misfits("plan", planned) == []
    assert planned["summary"]["create"] == 3

    lines = [json.loads(line) for line in host.vectl("apply", directory, "--yes", "-o", "json").splitlines()]
    assert [misfits("apply", line) for line in lines] == [[]] * len(lines)
    assert {line["ve"] for line in lines[:-1]} >= {"web1", "db1", "network/lan"}
    assert (lines[-1]["converged"], lines[-1]["summary"]["create"]) == (True, 3)

    again = json.loads(host.vectl("apply", directory, "--yes", "-o", "json"))
    assert (again["converged"], again["effects"]) == (True, 0)
    assert host.vectl("plan", directory, "--detailed-exitcode") == "No changes.\n"
    assert host.vectl("diff", directory, "--detailed-exitcode") == ""


def test_a_person_is_asked_and_may_decline(fleet: Fleet) -> None:
    put(fleet, LAN, WEB, ve("db1", processes=100))
    with at_a_terminal(fleet, "apply", str(fleet.manifests)) as person:
        person.expect("processes: 4096 -> 100")
        person.expect("Carry this out? [y/N]")
        person.type("n\n")
        assert person.end() == 4
    assert fleet.ve("db1").limit("processes") == 4096
    with at_a_terminal(fleet, "apply", str(fleet.manifests)) as person:
        person.expect("[y/N]")
        person.type("yes\n")
        assert person.end() == 0
    assert fleet.ve("db1").limit("processes") == 100


def test_where_nobody_can_be_asked_nothing_is_done(fleet: Fleet) -> None:
    put(fleet, LAN, WEB, ve("db1", processes=100))
    assert "expected --yes" in fleet.complaint("apply", str(fleet.manifests), code=64)
    assert fleet.ve("db1").limit("processes") == 4096


def test_a_difference_is_shown_planned_and_explained(fleet: Fleet) -> None:
    process_limit(fleet, "web1").write_text("70")
    directory = str(fleet.manifests)
    assert fleet.vectl("diff", directory, "--detailed-exitcode", code=2).splitlines()[2:] == [
        "-processes: 70",
        "+processes: 4096  # drift",
    ]
    assert read(fleet, "plan", directory)["summary"]["drift"] == 1
    told = fleet.vectl("describe", "web1")
    assert "processes   is 70, should be 4096" in told
    body = read(fleet, "describe", "web1")
    assert body["differences"] == [{"path": "processes", "text": "is 70, should be 4096"}]
    assert body["record"]["template"] == "busybox"
    comment = fleet.vectl("plan", directory, "-o", "markdown")
    assert "| web1 | put right | live | none |" in comment
    fleet.vectl("apply", directory, "--yes")
    assert fleet.vectl("diff", directory) == ""


def test_manifests_with_mistakes_change_nothing(fleet: Fleet) -> None:
    put(fleet, LAN, ve("db1", processes="many"))
    said = fleet.complaint("apply", str(fleet.manifests), "--yes", code=1)
    assert "all.yaml:" in said
    assert said.splitlines()[-1].startswith("vectl: load ")
    assert set(fleet.records()) == {"web1", "db1"}


def test_standard_input_is_manifests_too(fleet: Fleet) -> None:
    text = "\n---\n".join(json.dumps(document) for document in (LAN, WEB, DB))
    done = subprocess.run(
        argv(fleet, "plan", "-", "--detailed-exitcode"),
        input=text,
        env=ENVIRONMENT,
        pass_fds=(fleet.namespace,),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    assert (done.returncode, done.stdout) == (0, "No changes.\n"), done.stderr


# Plans on paper


def test_a_saved_plan_is_carried_out_but_for_what_changed_since(fleet: Fleet, tmp_path: Path) -> None:
    paper = str(tmp_path / "plan.json")
    put(fleet, LAN, ve("web1", "10.181.1.11/24", processes=50), ve("db1", processes=60))
    fleet.vectl("plan", str(fleet.manifests), "--out", paper)
    process_limit(fleet, "web1").write_text("70")
    said = fleet.complaint("apply", "--plan", paper, "--yes", code=4)
    assert "web1" not in said
    assert fleet.ve("web1").limit("processes") == 70
    assert fleet.ve("db1").limit("processes") == 60
    process_limit(fleet, "web1").write_text("4096")
    assert "refused (StalePlan)" in fleet.vectl("apply", "--plan", paper, "--yes", code=4)
    assert fleet.ve("web1").limit("processes") == 50


def test_a_plan_elsewhere_needs_no_host(fleet: Fleet, tmp_path: Path) -> None:
    seen = tmp_path / "observed.json"
    seen.write_text(fleet.vectl("observe"))
    put(fleet, LAN, WEB, ve("db1", processes=100))
    with seen.open() as observed, (fleet.manifests / "all.yaml").open() as manifests:
        done = subprocess.run(
            [
                *(*STRANGER, sys.executable, "-m", "reconciler.cli.entry"),
                *("--instance", fleet.instance.name, "--host", "here", "plan", "-", "-o", "json"),
                *("--observed", f"/proc/self/fd/{observed.fileno()}"),
            ],
            stdin=manifests,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            timeout=COMMAND_S,
            pass_fds=(observed.fileno(),),
            check=True,
        )
    made = json.loads(done.stdout)
    found = [(action["ve"], action["path"], action["after"]) for action in made["actions"]]
    assert found == [("db1", "processes", 100)]


# Looking


def test_what_scripts_get_is_as_promised(fleet: Fleet) -> None:
    found = read(fleet, "get")
    assert misfits("get", found) == []
    assert [one["name"] for one in found["items"]] == ["db1", "web1"]
    web = item(fleet, "web1")
    assert web["desired"]["memory"]["limit"] == web["observed"]["memory"]["limit"] == 64 << 20
    assert web["runtime"]["pid"] == fleet.ve("web1").pid
    assert os.stat(web["runtime"]["netns"]).st_ino
    assert found["revision"] == fleet.revision()


def test_ves_are_selected_and_listed(fleet: Fleet) -> None:
    assert fleet.vectl("get", "-l", "tier=web", "-o", "name") == "web1\n"
    header, line = fleet.vectl("get", "-l", "tier", "-o", "wide").splitlines()
    assert header.split()[:4] == ["NAME", "HOST", "POWER", "READY"]
    assert line.split()[:4] == ["web1", "here", "running", "True"]
    assert "10.181.1.11" in line
    assert fleet.ve("web1").uid in line
    assert "has a VE of that name" in fleet.complaint("get", "nobody")
    assert json.loads(fleet.complaint("get", "nobody", "-o", "json"))["kind"] == "StateError"


def test_a_ve_that_cannot_be_made_is_listed_with_the_reason(fleet: Fleet) -> None:
    apply(fleet, LAN, WEB, DB, ve("app", security={"profile": "app", "command": ["/bin/sh"]}), code=4)
    line = fleet.vectl("get", "app").splitlines()[1]
    assert line.split()[:5] == ["app", "here", "-", "False", "(Unsupported)"]
    assert (item(fleet, "app")["power"], item(fleet, "app")["observed"]) == ("stopped", None)
    assert "not supported yet by this version: security" in fleet.vectl("describe", "app")
    assert "has none of that name" in fleet.complaint("logs", "app")
    apply(fleet, LAN, WEB, DB)
    assert fleet.vectl("get", "-o", "name") == "db1\nweb1\n"


def test_a_watch_prints_what_changes_and_ends_at_ctrl_c(fleet: Fleet) -> None:
    watch = subprocess.Popen(
        argv(fleet, "get", "-w"),
        env=ENVIRONMENT,
        pass_fds=(fleet.namespace,),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert watch.stdout is not None
    with watch, watch.stdout:
        first = [watch.stdout.readline().split()[0] for _ in range(3)]
        assert first == [b"NAME", b"db1", b"web1"]
        fleet.vectl("pause", "db1")
        assert watch.stdout.readline().split()[0] == b"db1"
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 130
    fleet.vectl("unpause", "db1")


def test_events_tell_what_happened(fleet: Fleet) -> None:
    fleet.vectl("restart", "db1")
    lines = [json.loads(line) for line in fleet.vectl("events", "db1", "-o", "json").splitlines()]
    assert {line["ve"] for line in lines} == {"db1"}
    assert lines[-2]["reason"] == "Restarted"
    assert fleet.vectl("events", "-n", "1").splitlines()[0].split() == ["TIME", "VE", "KIND", "REASON", "MESSAGE"]


def test_the_audit_log_tells_who_had_what_done_and_that_it_is_whole(fleet: Fleet) -> None:
    fleet.vectl("protect", "db1")
    fleet.vectl("unprotect", "db1")
    lines = [json.loads(line) for line in fleet.vectl("audit", "--ve", "db1", "-o", "json").splitlines()]
    assert [misfit for line in lines for misfit in misfits("audit", line)] == []
    assert [(line["request"], line["detail"], line["outcome"]) for line in lines[-2:]] == [
        ("set-protection", "protect: True", "done"),
        ("set-protection", "protect: False", "done"),
    ]
    made = next(line for line in lines if any(action["op"] == "create" for action in line["actions"]))
    assert made["who"]
    assert made["ve_hash"]
    assert made["revision"].startswith("dir:")
    assert fleet.vectl("audit").splitlines()[0].split() == ["TIME", "WHO", "REVISION", "VE", "WHAT", "OUTCOME"]
    fleet.vectl("audit", "--verify")
    log = Path(fleet.instance.state_dir) / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"protect: True"', b'"protect: Tree"'))
    try:
        assert "was changed after it was written" in fleet.complaint("audit", "--verify", code=1)
    finally:
        log.write_bytes(whole)


def test_the_host_is_examined(fleet: Fleet) -> None:
    found = read(fleet, "doctor")
    assert found["ok"]
    levels = {probe["name"]: probe["level"] for probe in found["probes"]}
    assert {levels[name] for name in ("root", "overlay", "erofs", "btrfs", "bridge", "veth", "nftables")} == {"OK"}
    assert all(probe["remedy"] for probe in found["probes"] if probe["level"] == "FAIL")
    assert fleet.host_json("ip", "-j", "link", "show", "type", "veth") is not None


# Programs in a VE, and its log


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("web1", "--", "sh", "-c", "exit 7"), 7),
        (("web1", "--", "sh", "-c", "kill -9 $$"), 137),
        (("web1", "--", "no-such-program"), 127),
        (("web1", "--", "/etc/passwd"), 126),
        (("nobody", "--", "true"), 1),
        (("-u", "stranger", "web1", "--", "true"), 64),
        (("-i", "-t", "web1", "--", "true"), 64),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_exec_ends_as_the_program_did(fleet: Fleet, arguments: tuple[str, ...], status: int) -> None:
    fleet.vectl("exec", *arguments, code=status)


def test_exec_carries_input_output_and_user(fleet: Fleet) -> None:
    done = subprocess.run(
        argv(fleet, "exec", "-i", "-u", "www-data", "web1", "--", "sh", "-c", "id -u; cat; echo lost >&2"),
        input="x" * 300_000,
        env=ENVIRONMENT,
        pass_fds=(fleet.namespace,),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    assert (done.returncode, done.stderr) == (0, "lost\n")
    assert done.stdout == "33\n" + "x" * 300_000
    assert fleet.vectl("exec", "web1", "--", "cat") == ""


def test_a_login_shell_is_a_terminal_of_the_ve(fleet: Fleet) -> None:
    with at_a_terminal(fleet, "enter", "web1") as person:
        person.expect("# ")
        person.type("stty size; hostname; tty\r")
        person.expect("24 80")
        person.expect("web1\r\n/dev/pts/")
        person.resize(40, 100)
        person.type("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo re''sized\r")
        person.expect("resized")
        person.type("sh -c 'echo st\"\"arted; sleep 1000'\r")
        person.expect("started")
        person.type("\x03")
        person.type("exit 3\r")
        assert person.end() == 3


def test_a_program_in_a_ve_never_holds_the_persons_terminal(fleet: Fleet) -> None:
    with at_a_terminal(
        fleet, "exec", "-i", "web1", "--", "sh", "-c", "ls -l /proc/self/fd/0 /proc/self/fd/1"
    ) as person:
        assert person.end() == 0
    assert person.shown.count("pipe:") == 2


def test_logs_are_shown_safely_and_with_our_events(fleet: Fleet) -> None:
    fleet.vectl("exec", "web1", "--", "logger", "evil\x1b]0;title\x07 \x9b2J done")
    shown = until(lambda: _with(fleet.vectl("logs", "web1"), "done"), "the line in the log")
    assert "evil\ufffd]0;title\ufffd" in shown or "evil" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert " vectl: NewManifest: create" in shown
    assert len(fleet.vectl("logs", "web1", "-n", "1").splitlines()) < len(shown.splitlines())


def _with(text: str, wanted: str) -> str:
    return text if wanted in text else ""


def test_a_log_that_is_none_is_refused_and_not_waited_for(fleet: Fleet) -> None:
    script = "mv /var/log/messages /var/log/kept; mkfifo /var/log/messages"
    fleet.vectl("exec", "db1", "--", "sh", "-c", script)
    try:
        assert "expected a regular file" in fleet.complaint("logs", "db1")
        fleet.vectl("exec", "db1", "--", "sh", "-c", "rm /var/log/messages; ln -s /etc/shadow /var/log/messages")
        assert "root:*:19000" in fleet.vectl("logs", "db1")  # the VE's own, not the host's
    finally:
        fleet.vectl("exec", "db1", "--", "mv", "/var/log/kept", "/var/log/messages")


def test_a_followed_log_goes_on(fleet: Fleet) -> None:
    follow = subprocess.Popen(
        argv(fleet, "logs", "web1", "-f", "-n", "0"),
        env=ENVIRONMENT,
        pass_fds=(fleet.namespace,),
        stdout=subprocess.PIPE,
    )
    assert follow.stdout is not None
    with follow, follow.stdout:
        assert b"vectl: NewManifest" in follow.stdout.readline()
        fleet.vectl("exec", "web1", "--", "logger", "it goes on")
        while b"it goes on" not in (line := follow.stdout.readline()):
            assert line
        follow.send_signal(signal.SIGINT)
        assert follow.wait(30) == 130


# Requests of a person


def test_a_stopped_ve_stays_down_until_it_is_started(fleet: Fleet) -> None:
    fleet.vectl("stop", "web1", "--reason", "new disk")
    assert (item(fleet, "web1")["power"], reason(fleet, "web1")) == ("stopped", "Paused")
    apply(fleet, LAN, WEB, DB, code=5)
    assert not fleet.ve("web1").runs
    assert "paused (new disk)" in fleet.complaint("restart", "web1", code=4)
    runtime_log = Path(fleet.instance.ve_run_dir(fleet.ve("web1").uid), "runtime.log")
    runtime_log.write_text('{"level": "error", "msg": "no \\u001b[31m init"}\n')
    shown = fleet.vectl("logs", "web1")
    assert "runtime: error: no \ufffd[31m init" in shown
    assert "syslogd exiting" in shown
    fleet.vectl("start", "web1")
    assert (item(fleet, "web1")["power"], reason(fleet, "web1")) == ("running", "Converged")


def test_a_restart_gives_a_new_init(fleet: Fleet) -> None:
    before = fleet.ve("db1").init
    fleet.vectl("restart", "db1")
    assert fleet.ve("db1").init != before


def test_a_paused_ve_is_left_alone(fleet: Fleet) -> None:
    fleet.vectl("pause", "db1", "--reason", "being looked at", "--until", "1h")
    try:
        assert reason(fleet, "db1", "Paused") == "Paused"
        apply(fleet, LAN, WEB, ve("db1", processes=90), code=5)
        assert fleet.ve("db1").limit("processes") == 4096
    finally:
        fleet.vectl("unpause", "db1")
    assert fleet.ve("db1").limit("processes") == 90
    assert "not paused" in fleet.complaint("unpause", "db1")
    assert "none of that name" in fleet.complaint("pause", "nobody")


def test_waiting_ends_when_it_is_so_or_the_time_is_over(fleet: Fleet) -> None:
    fleet.vectl("wait", "web1")
    fleet.vectl("wait", "web1", "--for", "power=running")
    fleet.vectl("wait", "nobody", "--for", "delete")
    assert "not so in time" in fleet.complaint("wait", "web1", "--for", "delete", "--timeout", "0.1s", code=5)


def test_an_exported_ve_plans_to_no_change(fleet: Fleet, tmp_path: Path) -> None:
    exported = tmp_path / "web1.yaml"
    exported.write_text(fleet.vectl("export", "web1", "db1"))
    fleet.vectl("validate", str(exported))
    assert fleet.vectl("plan", str(exported), "--detailed-exitcode") == "No changes.\n"


# Removal


def test_what_no_manifest_names_goes_to_the_trash_only_when_asked(fleet: Fleet) -> None:
    apply(fleet, LAN, WEB, DB, ve("old"))
    fleet.vectl("exec", "old", "--", "sh", "-c", "echo kept > /root/file")
    assert "--prune would move them" in apply(fleet, LAN, WEB, DB)
    assert "old" in fleet.records()
    apply(fleet, LAN, WEB, DB, options=("--prune",))
    assert "old" not in fleet.records()
    fleet.vectl("wait", "old", "--for", "delete")
    (entry,) = read(fleet, "trash", "list")["items"]
    assert entry["name"] == "old"
    fleet.vectl("trash", "restore", "old")
    assert reason_of_pause(fleet, "old").startswith("restored by hand")
    apply(fleet, LAN, WEB, DB, ve("old"), code=5)
    fleet.vectl("unpause", "old")
    assert fleet.vectl("exec", "old", "--", "cat", "/root/file") == "kept\n"
    apply(fleet, LAN, WEB, DB, options=("--prune",))
    assert "expected --yes" in fleet.complaint("trash", "purge", "old", code=64)
    fleet.vectl("trash", "purge", "old", "--yes")
    assert "nothing of that name" in fleet.complaint("trash", "restore", "old")


def reason_of_pause(fleet: Fleet, name: str) -> str:
    """Give why a VE is paused, which its events tell."""
    pauses = json.loads(Path(fleet.instance.state_dir, "pauses.json").read_text())["pauses"]
    return str(next(pause["reason"] for pause in pauses if pause["ve"] == name))


def test_a_protected_ve_outlives_its_manifest(fleet: Fleet) -> None:
    fleet.vectl("protect", "db1")
    said = apply(fleet, LAN, WEB, options=("--prune",), code=4)
    assert "db1: refused (Protected" in said
    assert "db1" in fleet.records()
    assert "protected VEs are here: db1" in fleet.complaint("down", "--yes", code=4)
    fleet.vectl("unprotect", "db1")
    assert not fleet.records()["db1"].protect  # type: ignore[index]  # a name is text


def test_a_forgotten_ve_is_never_pruned(fleet: Fleet) -> None:
    apply(fleet, LAN, WEB, DB, ve("guest"))
    assert "a manifest names it" in fleet.complaint("forget", "guest", code=4)
    apply(fleet, LAN, WEB, DB)
    fleet.vectl("forget", "guest")
    assert apply(fleet, LAN, WEB, DB, options=("--prune",)) == "No changes.\n"
    assert fleet.ve("guest").runs
    apply(fleet, LAN, WEB, DB, ve("guest"))
    assert "guest: refused (MassRemoval)" in apply(fleet, LAN, WEB, DB, options=("--prune",), code=4)


def test_the_removal_of_many_waits_for_exactly_that_consent(fleet: Fleet) -> None:
    said = apply(fleet, LAN, options=("--prune",), code=4)
    assert "refused (MassRemoval)" in said
    assert set(fleet.records()) >= {"web1", "db1"}
    directory = str(fleet.manifests)
    whole = read(fleet, "plan", directory, "--prune", "--detailed-exitcode", code=3)["action_hash"]
    assert "has no such hash" in fleet.complaint("approve", "000000", directory, "--prune")
    fleet.vectl("approve", whole[:12], directory, "--prune")
    apply(fleet, LAN, options=("--prune",))
    assert fleet.records() == {}
    assert fleet.vectl("get", "-o", "name") == ""
    assert len(read(fleet, "trash", "list")["items"]) >= 2
    fleet.vectl("trash", "purge", "--all", "--yes")
