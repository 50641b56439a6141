"""Claims about VEs that are written to disk with their processes, and go on from there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import BusyError, CommandError, NotSuspendableError, StateError, TimeLimitError
from reconciler.host import compute, debris, preflight, resuming
from reconciler.host.host import RealHost
from reconciler.host.site import Site
from reconciler.kernel import btrfs, qgroup
from reconciler.model.identity import Uid
from reconciler.model.power import (
    DeleteRuntime,
    DiscardMemory,
    PowerState,
    StartRuntime,
    SuspendRuntime,
)
from reconciler.model.volume import SetVolumeSize
from tests.support.inside import Ve
from tests.support.patience import PATIENCE
from tests.support.real_host import on_real_host, perform
from tests.support.suspended import RESUME, RESUMED, power_of, shell, until
from tests.support.twins import A, launch, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SIZE = 1 << 26
_COUNT = "i=0; while :; do i=$((i+1)); echo $i >/tmp/next; mv /tmp/next /tmp/count; sleep 0.02; done"
COUNTER = f"setsid sh -c '{_COUNT}' >/dev/null 2>&1 </dev/null &"


async def counting(host: RealHost) -> None:
    """Start a VE with a process that counts."""
    await perform(host, *running(A))
    await shell(host, COUNTER)
    await until(host, "test $(cat /tmp/count) -gt 5")


def counted(host: RealHost) -> int:
    return int(Path(host.site.instance.volume(A), "upper/tmp/count").read_text())


async def goes_on(host: RealHost) -> None:
    """Wait until the counter counts on; had it begun anew, it would be lower."""
    await until(host, f"test $(cat /tmp/count) -gt {counted(host)}")


def images(host: RealHost) -> Path:
    return Path(host.site.instance.suspended_dir(A), "memory")


def nothing_left(host: RealHost) -> bool:
    """Say whether nothing of a dump or a restore is left but a log."""
    directory = Path(host.site.instance.ve_dir(A))
    work = Path(host.site.instance.ve_run_dir(A), "criu")
    hidden = [entry.name for entry in directory.iterdir() if entry.name.startswith(".")]
    return not hidden and not [entry.name for entry in work.iterdir() if not entry.name.endswith(".log")]


def test_a_suspended_ve_goes_on_where_it_was() -> None:
    async def story(host: RealHost) -> None:
        await counting(host)
        before = await power_of(host)
        await perform(host, SuspendRuntime(uid=A))
        asleep, count = await power_of(host), counted(host)
        assert asleep.state is PowerState.SUSPENDED
        assert asleep.launch == before.launch
        assert asleep.stop_requested
        assert not host.site.layout.of("freezer") or not compute.tree(host.site, A).processes()
        await perform(host, SuspendRuntime(uid=A), *RESUMED)
        after = await power_of(host)
        assert after.state is PowerState.RUNNING
        assert after.pid != before.pid
        assert counted(host) >= count
        await goes_on(host)
        assert not images(host).exists()
        assert nothing_left(host)

    on_real_host(story)


def test_a_ve_that_cannot_be_saved_is_not_tried_and_the_process_is_named() -> None:
    async def story(host: RealHost) -> None:
        await counting(host)
        await shell(host, "unshare -u sleep 600 >/dev/null 2>&1 </dev/null &")
        await until(host, "ps | grep -q '[s]leep 600'")
        with pytest.raises(NotSuspendableError, match=r"sleep \(pid \d+\) has a hostname namespace of its own; end it"):
            await perform(host, SuspendRuntime(uid=A))
        assert (await power_of(host)).state is PowerState.RUNNING
        assert not Path(host.site.instance.ve_run_dir(A), "criu").exists()

    on_real_host(story)


def test_a_ve_that_cannot_be_dumped_goes_on_and_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def overlook(site: Site, uid: Uid, *, doing: str) -> None:
        """Overlook every obstacle, as a look does that is a moment too early."""

    async def story(host: RealHost) -> None:
        await counting(host)
        await shell(host, "unshare -u sleep 600 >/dev/null 2>&1 </dev/null &")
        await until(host, "ps | grep -q '[s]leep 600'")
        with pytest.raises(CommandError, match=r"sleep.*uts"):
            await perform(host, SuspendRuntime(uid=A))
        seen = await power_of(host)
        assert seen.state is PowerState.RUNNING
        assert not compute.tree(host.site, A).is_frozen()
        await goes_on(host)
        assert "CRIU" not in Ve(host.site.instance, A).net("nft", "list", "ruleset")
        assert nothing_left(host)

    monkeypatch.setattr(preflight, "refuse_obstacles", overlook)
    on_real_host(story)


def truncate_pages(memory: Path) -> None:
    for pages in memory.glob("pages-*.img"):
        os.truncate(pages, 4096)


def lose_files(memory: Path) -> None:
    (memory / "files.img").unlink()


@pytest.mark.parametrize("damage", [truncate_pages, lose_files])
def test_a_damaged_memory_is_kept_and_goes_on_once_it_is_mended(
    damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "_RESTORE_S", 3.0 * PATIENCE)

    async def story(host: RealHost) -> None:
        await counting(host)
        await perform(host, SuspendRuntime(uid=A))
        whole = {path: path.read_bytes() for path in images(host).iterdir()}
        damage(images(host))
        with pytest.raises((CommandError, TimeLimitError), match=r"resume VE .*memory is kept"):
            await perform(host, *RESUMED)
        failed = await power_of(host)
        assert failed.state is PowerState.SUSPENDED
        assert not compute.tree(host.site, A).processes()
        for path, content in whole.items():
            path.write_bytes(content)
            path.chmod(0o644)
        await perform(host, *RESUMED)
        await goes_on(host)
        assert nothing_left(host)

    on_real_host(story)


def test_a_memory_is_discarded_only_while_nothing_comes_from_it() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A), SuspendRuntime(uid=A))
        with pytest.raises(StateError, match="suspended"):
            await perform(host, DeleteRuntime(uid=A), launch(A))
        await perform(host, RESUME)
        held = await power_of(host)
        assert held.state is PowerState.CREATED
        assert held.launch == launch(A).launch
        with pytest.raises(BusyError):
            await perform(host, DiscardMemory(uid=A))
        await perform(host, DeleteRuntime(uid=A))
        assert (await power_of(host)).state is PowerState.SUSPENDED
        await perform(host, DiscardMemory(uid=A))
        assert (await power_of(host)).state is PowerState.STOPPED
        with pytest.raises(StateError, match="not suspended"):
            await perform(host, RESUME)
        await perform(host, launch(A), StartRuntime(uid=A))

    on_real_host(story)


_DIRECTORIES = "i=0; while mkdir /srv/$i; do i=$((i+1)); done"
FILL = f"dd if=/dev/zero of=/srv/full bs=1M; dd if=/dev/zero of=/srv/rest bs=4k; sync; {_DIRECTORIES}"
MORE = "dd if=/dev/zero of=/srv/more bs=64k count=16 conv=fsync"


async def twice_held_back(host: RealHost) -> None:
    """Suspend a VE, and have a resume given up, so that the next one puts its data back."""
    await perform(host, SuspendRuntime(uid=A), DeleteRuntime(uid=A), RESUME, DeleteRuntime(uid=A))
    assert Path(host.site.instance.suspended_dir(A), "tried").exists()


def limit_of(host: RealHost) -> int | None:
    volume = host.site.instance.volume(A)
    return qgroup.read_qgroups(volume).groups[btrfs.subvolume_id(volume)].max_referenced


def test_a_ve_whose_disk_is_full_is_resumed_with_its_data_put_back_and_stays_limited() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A))
        await shell(host, f"({FILL}) 2>/dev/null; setsid sleep 1234 >/dev/null 2>&1 </dev/null &")
        await until(host, "ps | grep -q '[s]leep 1234'")
        await twice_held_back(host)
        before = btrfs.subvolume_id(host.site.instance.volume(A))
        await perform(host, RESUME)
        assert btrfs.subvolume_id(host.site.instance.volume(A)) != before
        assert limit_of(host) == SIZE
        await perform(host, DeleteRuntime(uid=A), *RESUMED)
        await until(host, f"ps | grep -q '[s]leep 1234' && ! {MORE}")
        assert nothing_left(host)

    on_real_host(story)


def test_a_disk_that_changed_under_a_memory_keeps_its_size_when_the_data_are_put_back() -> None:
    async def story(host: RealHost) -> None:
        await perform(host, *running(A))
        await twice_held_back(host)
        await perform(host, SetVolumeSize(uid=A, size=2 * SIZE), RESUME)
        assert limit_of(host) == 2 * SIZE
        await perform(host, DeleteRuntime(uid=A))

    on_real_host(story)


def test_what_a_crash_has_left_of_a_resume_is_swept() -> None:
    async def story(host: RealHost) -> list[str]:
        await perform(host, *running(A))
        left = Path(host.site.instance.ve_dir(A))
        for name in (".spent", ".back"):
            (left / name / "memory").mkdir(parents=True)
            (left / name / "memory" / "pages-1.img").write_bytes(b"x")
            btrfs.create_subvolume(f"{left}/{name}/volume")
        debris.sweep(host.site)
        return [entry.name for entry in left.iterdir() if entry.name.startswith(".")]

    assert on_real_host(story) == []
