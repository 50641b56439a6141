"""Which revision is in force: only what settled and is valid, and only what stays away is removed."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import NoSpaceError
from reconciler.model.condition import ConditionType, Status
from reconciler.model.identity import VeName
from reconciler.sources.directory import DirectorySource
from reconciler.sources.revision import Revisions
from reconciler.sources.settle import Absences, Stillness
from reconciler.sources.snapshot import Snapshot, snapshot_of

WEB1, WEB2 = VeName("web1"), VeName("web2")
SETTLE, DELAY = 0.3, 30.0


def _ve(name: str, memory: str = "256Mi") -> bytes:
    return (
        f"apiVersion: ve/v1\nkind: VirtualEnvironment\nmetadata: {{name: {name}}}\n"
        f"spec: {{template: busybox, memory: {{limit: {memory}}}}}\n"
    ).encode()


def _snapshot(*names: str, **more: bytes) -> Snapshot:
    files = {f"{name}.yaml": _ve(name) for name in names} | {f"{name}.yaml": text for name, text in more.items()}
    return snapshot_of("dir", files)


BROKEN = _snapshot("web1", web2=b"kind: [")
VANISHED = Snapshot(reason="SourceVanished", problem="/srv/desired: no such directory")


class Source:
    """`Revisions` with a clock in its hand, that keeps what it is told to keep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kept: list[str] = []
        self.full = False
        self.revisions = Revisions(settle_s=SETTLE, prune_delay_s=DELAY, keep=self._keep)

    def _keep(self, snapshot: Snapshot) -> None:
        if self.full:
            raise NoSpaceError("write last-good.json: no space left on device")
        self.kept.append(snapshot.revision)

    def take(self, snapshot: Snapshot, *, after: float = 0.0, known: Collection[VeName] = (WEB1, WEB2)) -> bool:
        self.now += after
        return self.revisions.take(snapshot, known=known, now=self.now)

    def settle(self, snapshot: Snapshot) -> bool:
        self.take(snapshot)
        return self.take(snapshot, after=SETTLE)

    def in_force(self) -> set[str] | None:
        fleet = self.revisions.in_force
        return None if fleet is None else set(fleet.ves)

    def condition(self, kind: ConditionType) -> tuple[Status, str]:
        (found,) = [one for one in self.revisions.conditions() if one.type is kind]
        return found.status, found.reason

    def message(self, kind: ConditionType) -> str:
        (found,) = [one for one in self.revisions.conditions() if one.type is kind]
        return found.message


@pytest.fixture
def source() -> Source:
    return Source()


def test_a_change_is_in_force_once_it_has_been_still(source: Source) -> None:
    both = _snapshot("web1", "web2")
    assert not source.take(both)
    assert source.revisions.look_again_in(source.now) == pytest.approx(SETTLE)
    assert not source.take(both, after=SETTLE - 0.01)
    assert source.in_force() is None
    assert source.take(both, after=0.01)
    assert source.in_force() == {"web1", "web2"}
    assert source.revisions.look_again_in(source.now) is None
    assert source.kept == [both.revision]


def test_a_file_in_the_middle_of_its_writing_is_no_revision(source: Source) -> None:
    source.settle(_snapshot("web1"))
    whole = _ve("web1") + b"---\n" + _ve("web2", memory="1Gi")
    for end in range(len(_ve("web1")), len(whole), 7):
        assert not source.take(_snapshot(all=whole[:end]), after=SETTLE - 0.01)
    assert source.in_force() == {"web1"}
    assert source.revisions.findings == ()
    source.settle(_snapshot(all=whole))
    assert source.in_force() == {"web1", "web2"}
    assert source.revisions.in_force is not None
    assert source.revisions.in_force.ves[WEB2].compute.memory_limit == 1 << 30


def test_a_directory_replaced_by_one_with_the_same_files_settles_anew() -> None:
    first, second = Stillness().seen(("d", (1, 1), ""), 5.0), ("d", (1, 2), "")
    assert first.left(5.3, SETTLE) == 0.0
    assert first.seen(second, 6.0).left(6.0, SETTLE) == pytest.approx(SETTLE)


def test_a_broken_file_leaves_the_last_good_revision_in_force(source: Source) -> None:
    good = _snapshot("web1", "web2")
    source.settle(good)
    assert not source.settle(BROKEN)
    assert source.in_force() == {"web1", "web2"}
    assert [finding.place.file for finding in source.revisions.findings] == ["web2.yaml"]
    assert source.condition(ConditionType.FETCHED) == (Status.TRUE, "Read")
    assert source.condition(ConditionType.VALID) == (Status.FALSE, "Invalid")
    message = source.message(ConditionType.VALID)
    assert "web2.yaml:1:8: expected YAML" in message
    assert f"revision {good.revision} stays in force" in message
    assert source.kept == [good.revision]


def test_going_back_to_the_good_content_clears_the_findings_and_is_no_change(source: Source) -> None:
    good = _snapshot("web1")
    source.settle(good)
    source.settle(BROKEN)
    assert not source.settle(good)
    assert source.revisions.findings == ()
    assert source.condition(ConditionType.VALID) == (Status.TRUE, "Valid")


def test_a_vanished_source_leaves_the_last_good_revision_in_force(source: Source) -> None:
    source.settle(_snapshot("web1"))
    assert not source.settle(VANISHED)
    assert source.in_force() == {"web1"}
    assert source.condition(ConditionType.FETCHED) == (Status.FALSE, "SourceVanished")
    assert source.condition(ConditionType.VALID) == (Status.UNKNOWN, "NotRead")


def test_after_a_restart_what_was_kept_is_in_force_whatever_the_source_is(source: Source) -> None:
    kept = _snapshot("web1", "web2")
    source.revisions.restore(kept.revision, kept.files)
    assert source.in_force() == {"web1", "web2"}
    source.settle(VANISHED)
    source.settle(BROKEN)
    assert source.in_force() == {"web1", "web2"}
    assert source.kept == []


def test_after_a_restart_the_same_content_is_no_change(source: Source) -> None:
    kept = _snapshot("web1")
    source.revisions.restore(kept.revision, kept.files)
    assert not source.settle(kept)
    assert source.condition(ConditionType.VALID) == (Status.TRUE, "Valid")


def test_what_was_kept_and_is_no_longer_valid_is_not_in_force(source: Source) -> None:
    source.revisions.restore(BROKEN.revision, BROKEN.files)
    assert source.in_force() is None
    assert source.revisions.removed() == frozenset()


def test_before_the_first_look_nothing_is_known(source: Source) -> None:
    assert source.condition(ConditionType.FETCHED) == (Status.UNKNOWN, "SourceNotRead")
    assert source.condition(ConditionType.VALID) == (Status.UNKNOWN, "NotRead")
    assert source.revisions.removed() == frozenset()


def test_a_removal_counts_only_if_it_still_holds_after_the_delay(source: Source) -> None:
    source.settle(_snapshot("web1", "web2"))
    one = _snapshot("web1")
    source.settle(one)
    assert source.revisions.look_again_in(source.now) == pytest.approx(DELAY)
    source.take(one, after=DELAY - 0.1)
    assert source.revisions.removed() == frozenset()
    source.take(one, after=0.2)
    assert source.revisions.removed() == {WEB2}
    assert source.revisions.look_again_in(source.now) is None


def test_time_alone_removes_nothing_without_a_look(source: Source) -> None:
    source.settle(_snapshot("web1"))
    source.now += 10 * DELAY
    assert source.revisions.removed() == frozenset()
    assert source.revisions.look_again_in(source.now) == 0.0


def test_a_ve_that_comes_back_in_time_is_missing_from_the_start_again(source: Source) -> None:
    one, both = _snapshot("web1"), _snapshot("web1", "web2")
    source.settle(one)
    source.settle(both)
    source.settle(one)
    source.take(one, after=DELAY - 1)
    assert source.revisions.removed() == frozenset()


@pytest.mark.parametrize("blind", [VANISHED, BROKEN], ids=["vanished", "broken"])
def test_a_look_that_cannot_tell_begins_the_delay_anew(source: Source, blind: Snapshot) -> None:
    one = _snapshot("web1")
    source.settle(one)
    source.take(one, after=DELAY + 1)
    assert source.revisions.removed() == {WEB2}
    source.settle(blind)
    assert source.revisions.removed() == frozenset()
    source.settle(one)
    assert source.revisions.removed() == frozenset()
    source.take(one, after=DELAY)
    assert source.revisions.removed() == {WEB2}


def test_nothing_is_removed_while_a_newer_change_settles(source: Source) -> None:
    one = _snapshot("web1")
    source.settle(one)
    source.take(one, after=DELAY)
    assert source.revisions.removed() == {WEB2}
    source.take(_snapshot("web1", "web2"), after=1.0)
    assert source.revisions.removed() == frozenset()


def test_what_is_not_on_the_host_is_not_removed(source: Source) -> None:
    one = _snapshot("web1")
    for after in (0.0, SETTLE, DELAY):
        source.take(one, after=after, known=(WEB1,))
    assert source.revisions.removed() == frozenset()


def test_a_revision_that_could_not_be_kept_is_in_force_and_kept_later(source: Source) -> None:
    one = _snapshot("web1")
    source.full = True
    assert source.settle(one)
    assert source.in_force() == {"web1"}
    assert "no space left" in source.message(ConditionType.VALID)
    source.full = False
    assert not source.take(one, after=5.0)
    assert source.kept == [one.revision]
    assert source.message(ConditionType.VALID) == ""


def test_a_git_source_needs_no_delay() -> None:
    revisions = Revisions(settle_s=0.0, prune_delay_s=0.0, keep=lambda snapshot: None)
    one = _snapshot("web1")
    assert revisions.take(one, known=(WEB1, WEB2), now=1.0)
    assert revisions.removed() == {WEB2}


def test_what_is_not_followed_is_told(source: Source) -> None:
    look = Snapshot(
        **{name: getattr(_snapshot("web1"), name) for name in ("files", "revision", "digest")}, skipped=("x",)
    )
    source.settle(look)
    assert source.condition(ConditionType.FETCHED) == (Status.TRUE, "Read")
    assert source.message(ConditionType.FETCHED) == "not followed: x"


class SystemClock:
    """The time of day."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def test_an_emptied_directory_removes_nothing_however_long_it_stays(tmp_path: Path, source: Source) -> None:
    (tmp_path / "web1.yaml").write_bytes(_ve("web1"))
    (tmp_path / "web2.yaml").write_bytes(_ve("web2"))
    directory = DirectorySource(str(tmp_path), clock=SystemClock())
    source.settle(directory.look())
    for name in ("web1.yaml", "web2.yaml"):
        (tmp_path / name).unlink()
    for _ in range(5):
        source.take(directory.look(), after=DELAY)
    assert source.in_force() == {"web1", "web2"}
    assert source.revisions.removed() == frozenset()
    assert source.condition(ConditionType.FETCHED) == (Status.FALSE, "SourceEmpty")


_names = st.sampled_from([VeName("a"), VeName("b"), VeName("c")])
_looks = st.lists(st.tuples(st.none() | st.frozensets(_names), st.floats(0.0, 20.0)), max_size=30)


@settings(deadline=None)
@given(_looks)
def test_what_is_removed_was_missing_in_every_look_of_a_whole_delay(
    looks: list[tuple[frozenset[VeName] | None, float]],
) -> None:
    known, now, absences = frozenset({VeName("a"), VeName("b"), VeName("c")}), 0.0, Absences()
    past: list[tuple[float, frozenset[VeName] | None]] = []
    for present, step in looks:
        now += step
        past.append((now, present))
        absences = absences.blind() if present is None else absences.looked(present, known, now)
        for name in known:
            start = next((at for at, seen in _streak(past, name)), now)
            assert (name in absences.removed(DELAY)) is (present is not None and now - start >= DELAY)


def _streak(past: list[tuple[float, frozenset[VeName] | None]], name: VeName) -> list[tuple[float, object]]:
    streak: list[tuple[float, object]] = []
    for at, seen in reversed(past):
        if seen is None or name in seen:
            break
        streak.insert(0, (at, seen))
    return streak
