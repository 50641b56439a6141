"""Templates, records, volumes and the trash of the twin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.errors import BusyError, NoSpaceError, StateError, TemplateError
from reconciler.model.compute import RemoveCgroup
from reconciler.model.effects import Effect
from reconciler.model.identity import Digest
from reconciler.model.power import DeleteRuntime, StopRuntime
from reconciler.model.volume import (
    BuildTemplate,
    CreateVolume,
    PurgeTrash,
    Record,
    RemoveTemplate,
    RestoreVe,
    SetVolumeSize,
    TrashVe,
    VolumeObservation,
    WriteRecord,
)
from reconciler.twin.host import TwinHost
from reconciler.twin.world import World
from tests.support.effect_choices import NO_TEMPLATE, TEMPLATE
from tests.support.twins import SETTING, A, created, data, look, perform, running, see, twin_after

BUILD = BuildTemplate(template=TEMPLATE)
RECORD = WriteRecord(record=SETTING.record(A), template_key=TEMPLATE.key)
TRASH = TrashVe(uid=A)


@pytest.mark.parametrize(
    ("before", "effect", "error"),
    [
        pytest.param((), BuildTemplate(template=NO_TEMPLATE), TemplateError, id="unknown-builtin"),
        pytest.param((), RECORD, TemplateError, id="record-of-a-template-not-built"),
        pytest.param(data(A), RemoveTemplate(key=TEMPLATE.key), BusyError, id="image-in-use"),
        pytest.param((*data(A), TRASH), RemoveTemplate(key=TEMPLATE.key), BusyError, id="image-used-from-the-trash"),
        pytest.param((), CreateVolume(uid=A, size=1), StateError, id="volume-without-record"),
        pytest.param((BUILD, RECORD), SetVolumeSize(uid=A, size=1), StateError, id="size-without-volume"),
        pytest.param(created(A), TRASH, BusyError, id="trash-with-live-init"),
        pytest.param(created(A)[:-1], TRASH, BusyError, id="trash-with-cgroup"),
        pytest.param((), RestoreVe(uid=A, trash_id=f"{A}.1"), StateError, id="restore-what-is-not-there"),
        pytest.param((), PurgeTrash(trash_id="../ves"), StateError, id="purge-by-path"),
        pytest.param((), PurgeTrash(trash_id=".."), StateError, id="purge-by-dots"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    before: tuple[Effect, ...], effect: Effect, error: type[Exception]
) -> None:
    twin = twin_after(*before)
    seen = look(twin)
    with pytest.raises(error):
        perform(twin, effect)
    assert look(twin) == seen


def test_removing_what_is_absent_is_success() -> None:
    perform(twin_after(), TRASH, PurgeTrash(trash_id=f"{A}.1"), RemoveTemplate(key=TEMPLATE.key))


def test_a_record_gets_the_digest_of_its_templates_image() -> None:
    twin = twin_after(BUILD, RECORD)
    record = see(twin, A).record
    assert isinstance(record, Record)
    assert record.template_digest == twin.machine.templates[TEMPLATE.key]


def test_rewriting_a_record_keeps_the_image_below_the_volume() -> None:
    twin = twin_after(BUILD, RECORD)
    digest = twin.machine.templates[TEMPLATE.key]
    twin.machine.templates[TEMPLATE.key] = Digest("rebuilt")
    perform(twin, RECORD)
    assert see(twin, A).record == replace(SETTING.record(A), template_digest=digest)


def test_creating_a_volume_that_is_there_only_makes_its_size_so() -> None:
    twin = twin_after(*data(A))
    World(twin).set_use(A, disk=4096)
    perform(twin, CreateVolume(uid=A, size=None))
    assert see(twin, A).volume == VolumeObservation(present=True, size=None)
    assert twin.machine.volumes[A].used == 4096


def test_a_ve_comes_back_from_the_trash_as_it_was_but_without_memory_of_its_end() -> None:
    twin = twin_after(*running(A))
    before = see(twin, A)
    perform(twin, StopRuntime(uid=A, timeout_s=1), DeleteRuntime(uid=A), RemoveCgroup(uid=A), TRASH)
    assert look(twin).ves == {}
    (entry,) = twin.machine.trash
    perform(twin, RestoreVe(uid=A, trash_id=entry), RestoreVe(uid=A, trash_id=entry))
    after = see(twin, A)
    assert (after.record, after.volume) == (before.record, before.volume)
    assert not twin.machine.endings
    assert look(twin).trash == ()


def test_two_removals_within_a_second_get_two_ids() -> None:
    twin = twin_after(*data(A), TRASH, *data(A), TRASH)
    trash = look(twin).trash
    assert isinstance(trash, tuple)
    assert len({entry.id for entry in trash}) == 2
    assert all(entry.id == f"{A}.{entry.trashed_at:.0f}" for entry in trash)


def test_what_was_removed_last_stands_last_in_the_trash() -> None:
    twin = twin_after(*data(A), TRASH, *data(A), TRASH)
    first = look_at_trash(twin)[0]
    perform(twin, PurgeTrash(trash_id=first), *data(A), TRASH)
    assert first not in look_at_trash(twin)
    assert look_at_trash(twin) == sorted(look_at_trash(twin))


def look_at_trash(twin: TwinHost) -> list[str]:
    trash = look(twin).trash
    assert isinstance(trash, tuple)
    return [entry.id for entry in trash]


@pytest.mark.parametrize("index", range(3), ids=["template", "record", "volume"])
def test_nothing_is_made_on_a_full_pool(index: int) -> None:
    effects = data(A)
    twin = twin_after(*effects[:index])
    World(twin).fill_pool()
    with pytest.raises(NoSpaceError):
        perform(twin, effects[index])
    World(twin).free_pool()
    perform(twin, *effects[index:])


def test_what_is_there_already_needs_no_space() -> None:
    twin = twin_after(*data(A))
    World(twin).fill_pool()
    perform(twin, BUILD, CreateVolume(uid=A, size=1 << 20), TRASH)
