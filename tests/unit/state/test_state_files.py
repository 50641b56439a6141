"""What is kept on disk: it comes back, expires when it should, stays bounded; damage is never read as empty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import BusyError, KernelError, StateError, UsageError
from reconciler.model.action import Operation
from reconciler.model.facts import Json
from reconciler.model.identity import HostName, Uid, VeName
from reconciler.model.instance import Instance
from reconciler.state import layout
from reconciler.state.approvals import VALID_S, Approvals
from reconciler.state.history import History
from reconciler.state.journal import Intent, Journal
from reconciler.state.lastgood import Kept, LastGood
from reconciler.state.lock import instance_lock
from reconciler.state.pause import Pause, Pauses, pause_of
from reconciler.state.removals import WINDOW_S, Removal, Removals

UID = Uid("7c9e6679-7425-40de-944b-e07fc1f90ae7")
WEB1, WEB2 = VeName("web1"), VeName("web2")
HASH, OTHER_HASH = "a" * 64, "b" * 64
INTENT = Intent(
    action="web1:memory.limit", ve="web1", uid=UID, effects=("SetLimit", "WriteRecord"), revision="dir:1", at=5.0
)


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "state")


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(
        name="t", host=HostName("h"), state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"), cgroup="/t"
    )


def test_an_intent_is_unfinished_until_it_is_done(state: str) -> None:
    journal = Journal(state)
    assert journal.unfinished() == ()
    journal.begin(INTENT)
    assert Journal(state).unfinished() == (INTENT,)
    journal.done(INTENT.action)
    journal.done(INTENT.action)
    assert Journal(state).unfinished() == ()


def test_intents_of_host_objects_and_long_paths_are_kept(state: str) -> None:
    journal = Journal(state)
    first = Intent(action="network/lan:" + "x" * 500, ve="network/lan", uid=None, effects=(), revision="r", at=2.0)
    second = Intent(action="network/lan:../..", ve="network/lan", uid=None, effects=(), revision="r", at=1.0)
    journal.begin(first)
    journal.begin(second)
    assert journal.unfinished() == (second, first)


def test_an_action_begun_again_is_one_intent(state: str) -> None:
    journal = Journal(state)
    journal.begin(INTENT)
    journal.begin(INTENT)
    assert journal.unfinished() == (INTENT,)
    assert len(os.listdir(state)) == 1


def test_the_journal_does_not_grow_with_what_was_done(state: str) -> None:
    journal = Journal(state)
    for number in range(50):
        intent = Intent(action=f"a:{number}", ve="a", uid=None, effects=(), revision="r", at=number)
        journal.begin(intent)
        journal.done(intent.action)
    assert os.listdir(state) == []


def test_a_measured_downtime_is_the_median_of_the_last_twenty(state: str) -> None:
    history = History(state)
    for seconds in [100.0] * 30 + [float(number) for number in range(1, 21)]:
        history.add(Operation.RESTART, "rlimits.nofile", seconds)
    history.add(Operation.RECREATE, "template", 3.0)
    assert History(state).medians() == {
        (Operation.RESTART, "rlimits.nofile"): 10.5,
        (Operation.RECREATE, "template"): 3.0,
    }


def test_the_history_forgets_the_kinds_not_seen_for_longest(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.state.history._KEYS", 3)
    history = History(state)
    for path in ("a", "b", "c", "a", "d"):
        history.add(Operation.UPDATE, path, 1.0)
    assert {path for _, path in history.medians()} == {"c", "a", "d"}


def test_a_pause_holds_until_it_expires(state: str) -> None:
    pause = Pause(ve=WEB1, reason="maintenance", since=10.0, until=20.0, by="ann")
    Pauses(state).put(pause)
    assert Pauses(state).in_force(19.9) == (pause,)
    assert Pauses(state).in_force(20.0) == ()


def test_a_pause_replaces_that_of_the_same_ve_only(state: str) -> None:
    pauses = Pauses(state)
    everything = Pause(ve=None, reason="freeze", since=1.0)
    stopped = Pause(ve=WEB1, reason="stopped by hand", since=2.0, by_stop=True)
    pauses.put(Pause(ve=WEB1, reason="first", since=1.0))
    pauses.put(everything)
    pauses.put(stopped)
    assert set(pauses.in_force(3.0)) == {everything, stopped}
    assert pause_of(WEB1, pauses.in_force(3.0)) == stopped
    assert pause_of(WEB2, pauses.in_force(3.0)) == everything


def test_a_pause_is_lifted_once(state: str) -> None:
    pauses = Pauses(state)
    pauses.put(Pause(ve=None, reason="freeze", since=1.0))
    assert not pauses.lift(WEB1)
    assert pauses.lift(None)
    assert not pauses.lift(None)
    assert pause_of(WEB1, pauses.in_force(2.0)) is None


def test_expired_pauses_do_not_pile_up(state: str) -> None:
    pauses = Pauses(state)
    for number in range(20):
        pauses.put(Pause(ve=VeName(f"ve{number}"), reason="", since=float(number), until=number + 0.5))
    assert len(json.loads((Path(state) / "pauses.json").read_text())["pauses"]) == 1


def test_a_consent_is_for_exactly_one_hash_and_for_a_day(state: str) -> None:
    given_ = Approvals(state).approve(HASH, by="ann", now=100.0)
    assert given_.expires == 100.0 + 24 * 3600
    assert Approvals(state).in_force(100.0) == (given_,)
    assert Approvals(state).in_force(given_.expires - 1) == (given_,)
    assert Approvals(state).in_force(given_.expires) == ()


def test_a_consent_given_while_the_clock_was_ahead_does_not_hold(state: str) -> None:
    Approvals(state).approve(HASH, by="ann", now=10 * VALID_S)
    assert Approvals(state).in_force(VALID_S) == ()


def test_a_consent_can_be_renewed(state: str) -> None:
    approvals = Approvals(state)
    approvals.approve(HASH, by="ann", now=1.0)
    renewed = approvals.approve(HASH, by="bob", now=50.0)
    other = approvals.approve(OTHER_HASH, by="bob", now=50.0)
    assert set(approvals.in_force(60.0)) == {renewed, other}


@pytest.mark.parametrize("text", ["", "abc", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_part_of_a_hash_is_no_consent(state: str, text: str) -> None:
    with pytest.raises(UsageError, match="64 hex digits"):
        Approvals(state).approve(text, by="ann", now=1.0)


def test_removals_count_for_a_day_and_each_ve_once(state: str) -> None:
    removals = Removals(state)
    first = Removal(uid=UID, name=WEB1, source="s", at=10.0)
    again = Removal(uid=UID, name=WEB1, source="s", at=20.0)
    other = Removal(uid=Uid("u2"), name=WEB2, source="s", at=15.0)
    for removal in (first, other, again):
        removals.add(removal)
    assert Removals(state).recent(30.0) == (other, again)
    assert Removals(state).recent(15.0 + WINDOW_S) == (again,)
    assert Removals(state).recent(20.0 + WINDOW_S) == ()


def test_a_removal_dated_in_the_future_counts(state: str) -> None:
    removal = Removal(uid=UID, name=WEB1, source="s", at=1e9)
    Removals(state).add(removal)
    assert Removals(state).recent(1.0) == (removal,)


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), max_size=5))
def test_the_last_good_revision_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    kept = Kept(revision="dir:0123456789ab", source="dir:/srv", files=files, at=7.0)
    last_good = LastGood(str(tmp_path_factory.getbasetemp() / "last-good"))
    last_good.keep(kept)
    assert last_good.read() == kept


def test_without_a_last_good_revision_there_is_none(state: str) -> None:
    assert LastGood(state).read() is None


def _fill(state: str) -> None:
    Journal(state).begin(INTENT)
    History(state).add(Operation.RESTART, "x", 1.0)
    Pauses(state).put(Pause(ve=WEB1, reason="", since=1.0))
    Approvals(state).approve(HASH, by="ann", now=1.0)
    Removals(state).add(Removal(uid=UID, name=WEB1, source="s", at=1.0))
    LastGood(state).keep(Kept(revision="r", source="s", files={"a.yaml": b"x"}, at=1.0))


GOLDEN: dict[str, dict[str, Json]] = {
    "durations.json": {"durations": [{"op": "restart", "path": "x", "seconds": [1.0]}]},
    "pauses.json": {"pauses": [{"ve": "web1", "reason": "", "since": 1.0, "until": None, "by": "", "by_stop": False}]},
    "approvals.json": {"consents": [{"hash": HASH, "at": 1.0, "expires": 86401.0, "by": "ann"}]},
    "removals.json": {"removals": [{"uid": UID, "name": "web1", "source": "s", "at": 1.0}]},
    "last-good.json": {"revision": "r", "source": "s", "at": 1.0, "files": {"a.yaml": "x"}},
}
"""Format 1 of every file: who changes one of them changes its number, and says what becomes of the old ones."""


def test_format_1_of_every_file_is_what_it_was(state: str) -> None:
    _fill(state)
    (journal,) = (path for path in Path(state).glob("*.json") if path.name not in GOLDEN)
    assert json.loads(journal.read_text()) == {
        "format": 1,
        "action": "web1:memory.limit",
        "ve": "web1",
        "uid": UID,
        "effects": ["SetLimit", "WriteRecord"],
        "revision": "dir:1",
        "at": 5.0,
    }
    for name, content in GOLDEN.items():
        assert json.loads((Path(state) / name).read_text()) == {"format": 1, **content}


READERS: dict[str, Callable[[str], object]] = {
    "journal": lambda state: Journal(state).unfinished(),
    "durations.json": lambda state: History(state).medians(),
    "pauses.json": lambda state: Pauses(state).in_force(1.0),
    "approvals.json": lambda state: Approvals(state).in_force(1.0),
    "removals.json": lambda state: Removals(state).recent(1.0),
    "last-good.json": lambda state: LastGood(state).read(),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut-off": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: b"\0" * len(data),
    "newer-format": lambda data: data.replace(b'"format": 1', b'"format": 2'),
    "other-shape": lambda data: b'{"format": 1}',
    "extra-field": lambda data: data.replace(b"{", b'{"unheard_of": 1,', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_told_with_a_remedy_and_never_read_as_empty(state: str, name: str, damage: str) -> None:
    _fill(state)
    (path,) = (
        [found for found in Path(state).glob("*.json") if len(found.stem) == 32]
        if name == "journal"
        else [Path(state) / name]
    )
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(StateError, match=f"read {path}.*; .*(mend|remove)"):
        READERS[name](state)


@pytest.mark.parametrize("name", [name for name in READERS if name != "journal"])
def test_a_file_that_cannot_be_read_is_an_error_and_not_nothing(state: str, name: str) -> None:
    (Path(state) / name).mkdir(parents=True)
    with pytest.raises(KernelError, match=f"read {state}/{name}"):
        READERS[name](state)


_KILLED_IN_RENAME = """
import os, signal, sys
from reconciler.state.approvals import Approvals
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Approvals(sys.argv[1]).approve("b" * 64, by="bob", now=2.0)
"""


def test_after_a_crash_in_mid_write_the_old_state_is_there_and_can_be_written(state: str) -> None:
    approvals = Approvals(state)
    before = approvals.approve(HASH, by="ann", now=1.0)
    done = subprocess.run([sys.executable, "-c", _KILLED_IN_RENAME, state], timeout=60, check=False)
    assert done.returncode == -9
    assert any(name.endswith(".tmp") for name in os.listdir(state))
    assert approvals.in_force(3.0) == (before,)
    after = approvals.approve(OTHER_HASH, by="bob", now=3.0)
    assert set(approvals.in_force(4.0)) == {before, after}


def test_old_temporary_files_are_swept_and_new_ones_stay(instance: Instance) -> None:
    layout.prepare(instance)
    directory = Path(layout.inventory_dir(instance))
    old, new, other = (directory / name for name in (".a.json.0123abcd.tmp", ".b.json.0123abcd.tmp", ".c.tmp"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    layout.sweep(instance, now=new.stat().st_mtime + 60)
    assert sorted(os.listdir(directory)) == [new.name, other.name]


def test_the_directories_are_made_once_and_only_root_enters(instance: Instance) -> None:
    layout.prepare(instance)
    layout.prepare(instance)
    for path in (instance.state_dir, layout.inventory_dir(instance), layout.conditions_dir(instance)):
        assert os.stat(path).st_mode & 0o777 == 0o700


def test_state_files_are_readable_by_their_owner_only(state: str) -> None:
    Approvals(state).approve(HASH, by="ann", now=1.0)
    assert (Path(state) / "approvals.json").stat().st_mode & 0o777 == 0o600


_HOLD = """
import sys
from reconciler.model.identity import HostName
from reconciler.model.instance import Instance
from reconciler.state.lock import instance_lock
instance = Instance(name="t", host=HostName("h"), state_dir=sys.argv[1], run_dir="/nowhere", cgroup="/t")
with instance_lock(instance):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_hold_an_instance_at_once(instance: Instance) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, instance.state_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"pid {holder.pid}"), instance_lock(instance):
            pytest.fail("the lock was given twice")
        holder.kill()
    with instance_lock(instance):
        pass


def test_the_lock_is_waited_for(instance: Instance) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, instance.state_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        holder.stdin.close()
        with instance_lock(instance, wait_s=60.0):
            pass


def test_changes_by_several_at_once_are_all_kept(state: str) -> None:
    def pause(number: int) -> None:
        for index in range(5):
            Pauses(state).put(Pause(ve=VeName(f"ve{number}-{index}"), reason="", since=1.0))

    threads = [threading.Thread(target=pause, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Pauses(state).in_force(2.0)) == 20
