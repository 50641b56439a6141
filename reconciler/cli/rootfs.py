"""``vectl import --rootfs``: the files of a container of another system as a template."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.cli import context, output
from reconciler.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from reconciler.importing.draft import Draft
    from reconciler.importing.result import Import
    from reconciler.kernel.pack import Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for. ``image``: the archive that is written, where one is; empty for the usual place."""

    rootfs: str
    name: str
    id_base: int = 0
    image: str = ""
    force: bool = False


def draft_template(wanted: Wanted) -> Import:
    """Make an archive that a template can be built from, and draft that template.

    Raises: UsageError; TemplateError; KernelError; NoSpaceError; TimeLimitError; MissingToolError.
    """
    from reconciler.importing.result import Import
    from reconciler.kernel.hashing import sha256_of

    context.need_root()
    run = Import(system="rootfs")
    draft = run.add("Template", wanted.name, by=wanted.name)
    if draft.name != wanted.name:
        raise UsageError(f"import --name {wanted.name}: expected lower-case letters, digits and '-', as {draft.name}")
    path, packed = _archived(wanted)
    draft.head.append(f"Imported from {os.path.abspath(wanted.rootfs)}; its archive is on this host alone.")
    draft.spec["source"] = {"tarball": {"path": path, "sha256": sha256_of(path)}}
    if packed.init and packed.init not in ("/sbin/init", "/usr/sbin/init"):
        draft.spec["init"] = packed.init
    _account(run, draft, wanted, packed)
    return run


def _archived(wanted: Wanted) -> tuple[str, Packed]:
    """Give the path of an archive that a template can be built from: the one that there is, if it is fit."""
    from reconciler.kernel import pack, repack

    rootfs = os.path.abspath(wanted.rootfs)
    if os.path.isdir(rootfs):
        _expect_root(rootfs)
        target = _target(wanted)
        output.words(f"packing {rootfs} into {target}")
        return target, pack.pack_directory(rootfs, target, id_base=wanted.id_base)
    if not os.path.isfile(rootfs):
        raise UsageError(f"import --rootfs {wanted.rootfs}: expected a directory or a tar archive")
    found, is_fit = repack.inspect(rootfs, id_base=wanted.id_base)
    if is_fit and not wanted.image:
        return rootfs, found
    target = _target(wanted)
    output.words(f"packing {rootfs} anew into {target}")
    return target, repack.repack(rootfs, target, id_base=wanted.id_base, prefix=found.prefix)


def _expect_root(directory: str) -> None:
    names = set(os.listdir(directory))
    if "root.hdd" in names:
        remedy = "`vzctl mount CTID`, and give its VE_ROOT"
        raise UsageError(f"import --rootfs {directory}: expected files, it holds a disk image; {remedy}")
    if not {"etc", "usr", "bin", "sbin"} & names:
        below = next((name for name in ("fs", "rootfs") if name in names), "")
        remedy = f"; give {directory}/{below}" if below else ""
        raise UsageError(f"import --rootfs {directory}: expected a root file system, with etc and bin{remedy}")


def _target(wanted: Wanted) -> str:
    from reconciler.kernel.syscalls import file_errors

    target = os.path.abspath(wanted.image)
    if not wanted.image:
        directory = f"{context.load_config().instance.state_dir}/imported"
        with file_errors("make", directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        target = f"{directory}/{wanted.name}.tar"
    if os.path.lexists(target) and not wanted.force:
        raise RefusedError(f"write {target}: it is there already, and a template may need it; --force replaces it")
    return target


def _account(run: Import, draft: Draft, wanted: Wanted, packed: Packed) -> None:
    from reconciler.importing.report import Outcome, Setting

    def tell(key: str, outcome: Outcome, why: str, path: str = "") -> None:
        setting = Setting(file=wanted.rootfs, line=0, key=key)
        run.ledger.note(setting, outcome, why, of=draft.title, path=path)

    for name, why in packed.left_out:
        tell(name, Outcome.DROPPED, f"left out: {why}")
    if (more := packed.left_out_count - len(packed.left_out)) > 0:
        tell("", Outcome.DROPPED, f"left out: {more} more, of devices, sockets and what is mounted")
    if packed.strangers:
        why = f"{packed.strangers} entries belonged to none of the container's ids, and belong to nobody now"
        tell("owner", Outcome.CHANGED, f"{why}; check --id-base")
    if not packed.init:
        tell("init", Outcome.DROPPED, "no init was found in it: set init", "init")
    elif "init" in draft.spec:
        tell("init", Outcome.GUESSED, "its /sbin/init is another program, or none", "init")
    tell("files", Outcome.MAPPED, f"{packed.entries} entries, {packed.size >> 20} MiB", "source.tarball")
    why = "machine id, host keys of ssh and the like are each VE's own: they are taken out when the template is built"
    tell("identity", Outcome.CHANGED, why)
