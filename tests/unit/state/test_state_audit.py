"""The audit log is only ever added to, and says so when somebody did otherwise."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from reconciler.errors import NoSpaceError, StateError
from reconciler.model import audit as model
from reconciler.model.audit import AuditEntry
from reconciler.state import audit
from reconciler.state.audit import Audit, expect_whole


def entry(number: int) -> AuditEntry:
    return AuditEntry(at=float(number), who="alice", ve=f"ve{number}", outcome="done")


def filled(path: Path, count: int = 5) -> Path:
    log = Audit(str(path))
    for number in range(count):
        log.append(entry(number))
    log.sync()
    return path / "audit.jsonl"


def problems(path: Path) -> list[str]:
    return [finding.message for finding in Audit(str(path)).verify()[1] if not finding.harmless]


def test_what_was_added_is_read_in_order_and_whole(tmp_path: Path) -> None:
    filled(tmp_path)
    assert [link.entry["ve"] for link in Audit(str(tmp_path)).read()] == [f"ve{number}" for number in range(5)]
    assert expect_whole(Audit(str(tmp_path))) == (5, ())


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    assert expect_whole(Audit(str(tmp_path / "nothing"))) == (0, ())


def test_two_processes_make_one_chain(tmp_path: Path) -> None:
    agent, command = Audit(str(tmp_path)), Audit(str(tmp_path))
    for number in range(6):
        (agent if number % 2 else command).append(entry(number))
    assert expect_whole(Audit(str(tmp_path)))[0] == 6


def test_an_edited_entry_shows(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_text(path.read_text().replace('"ve2"', '"ve9"'))
    assert problems(tmp_path) == ["entry 3 was changed after it was written"]
    with pytest.raises(StateError, match=r"audit\.jsonl:3: entry 3 was changed .* compare with a copy"):
        expect_whole(Audit(str(tmp_path)))


def test_an_edited_entry_with_a_new_hash_shows_at_the_next(tmp_path: Path) -> None:
    path = filled(tmp_path)
    lines = path.read_text().splitlines()
    third = json.loads(lines[2])
    forged = model.linked(model.Link(seq=2, prev="", hash=third["prev"], entry={}), entry(9)).to_json()
    lines[2] = json.dumps({"format": 1, **forged})
    path.write_text("\n".join(lines) + "\n")
    assert problems(tmp_path) == ["entry 4 does not follow from the one before it"]


@pytest.mark.parametrize("gone", [0, 2])
def test_a_removed_entry_shows(tmp_path: Path, gone: int) -> None:
    path = filled(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:gone] + lines[gone + 1 :]) + "\n")
    assert len(problems(tmp_path)) == 1


def test_entries_cut_off_at_the_end_show(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:3]))
    assert problems(tmp_path) == ["2 entries are missing at the end"]


def test_what_was_not_yet_flushed_may_be_missing_after_a_power_cut(tmp_path: Path) -> None:
    path = filled(tmp_path)
    before = path.read_bytes()
    Audit(str(tmp_path)).append(entry(6))
    path.write_bytes(before)
    assert expect_whole(Audit(str(tmp_path))) == (5, ())


def test_a_torn_line_is_left_out_and_the_chain_goes_on_behind_it(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"format": 1, "who": "al')
    Audit(str(tmp_path)).append(entry(6))
    count, notes = expect_whole(Audit(str(tmp_path)))
    assert (count, [note.harmless for note in notes]) == (6, [True])


def test_files_are_put_aside_and_the_chain_goes_through_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SIZE_MAX", 2000)
    filled(tmp_path, count=100)
    kept = sorted(path.name for path in tmp_path.glob("audit.jsonl*") if not path.name.endswith(".lock"))
    assert len(kept) == audit.FILES_MAX
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 3000
    count, notes = expect_whole(Audit(str(tmp_path)))
    assert notes == ()
    assert list(Audit(str(tmp_path)).read())[-1].seq == 100
    assert count < 100
    (tmp_path / "audit.jsonl.4").unlink()
    assert [message for message in problems(tmp_path) if "does not follow" in message] == problems(tmp_path)
    assert len(problems(tmp_path)) == 1


def test_a_crash_while_a_file_is_put_aside_does_not_break_the_chain(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.rename(tmp_path / "audit.jsonl.1")
    Audit(str(tmp_path)).append(entry(6))
    assert expect_whole(Audit(str(tmp_path)))[0] == 6


def test_a_full_disk_leaves_no_half_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path)
    before, log = path.read_bytes(), Audit(str(tmp_path))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(NoSpaceError):
            log.append(entry(6))
    assert path.read_bytes() == before
    log.append(entry(6))
    assert expect_whole(Audit(str(tmp_path))) == (6, ())


def test_long_texts_and_values_do_not_fill_the_log() -> None:
    made = AuditEntry(at=0.0, who="a" * 10_000, ve="b", outcome="done", error="c" * 100_000).to_json()
    assert len(json.dumps(made)) < 3 * model.TEXT_MAX
    assert model.shortened("x" * model.VALUE_MAX * 2) == {
        "sha256": hashlib.sha256(json.dumps("x" * model.VALUE_MAX * 2).encode()).hexdigest(),
        "bytes": model.VALUE_MAX * 2 + 2,
    }
    assert model.shortened({"a": [1]}) == {"a": [1]}
