"""Keep the state of a guest that is set up and warm, and give new guests from it in seconds."""

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import secrets
import tempfile
import time

from tests.vm import cache, guest, image, machine, prepared

IDENTITY_SECONDS = 60
WARM_SECONDS = 900
# What tests would wait for, and no test tells apart from a host that has used it before. A module that makes links
# or filters by being loaded (ifb, dummy, br_netfilter) is none of these.
MODULES = (
    *("virtio_net", "loop", "overlay", "erofs", "btrfs", "quota_v2", "tun", "veth", "bridge", "vxlan"),
    *("nf_tables", "nft_ct", "nft_nat", "nft_masq", "nft_chain_nat", "nft_fib_inet", "nft_limit", "nft_reject_inet"),
    *("sch_htb", "sch_tbf", "sch_ingress", "sch_fq_codel", "cls_u32", "cls_matchall", "act_mirred", "act_police"),
    *("bfq", "inet_diag", "unix_diag"),
)
WARM = (
    "vectl version && vectl --help && vectl validate desired/ && { vectl doctor || true; }"
    " && pytest --collect-only -q tests/kernel tests/e2e"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A state that is kept."""

    image: image.Image
    memory: pathlib.Path
    state: pathlib.Path
    tree: collections.abc.Mapping[str, str]
    """The files of the working tree that are in it, with their fingerprints."""


def saved_state(get: cache.Get = cache.built) -> Saved:
    """Give the state, made if it is missing.

    Raises: GuestError, NotCachedError, QmpError, subprocess.CalledProcessError, subprocess.TimeoutExpired.
    """
    built = prepared.prepared_image(get)
    key = [cache.identity(built.disk.parent), *machine.hardware(built), pathlib.Path(__file__).read_text()]
    folder = get("state", "\n".join(key), lambda folder: save(built, folder))
    return opened(built, folder)


def opened(built: image.Image, folder: pathlib.Path) -> Saved:
    """Name the parts of a state's folder."""
    return Saved(
        image=dataclasses.replace(built, disk=folder / "disk.qcow2"),
        memory=folder / "memory",
        state=folder / "state",
        tree=json.loads((folder / "tree.json").read_text()),
    )


def save(built: image.Image, folder: pathlib.Path) -> None:
    """Boot a guest, set it up and warm it, and keep its disk, memory and state."""
    disk = folder / "disk.qcow2"
    machine.overlay(built, disk)
    with tempfile.TemporaryDirectory(prefix="vectl-vm-") as name:
        kind = machine.Machine(
            image=built,
            disk=disk,
            folder=pathlib.Path(name),
            log=machine.new_log(),
            memory=machine.memory_in(folder / "memory", kept=True),
        )
        with guest.started(kind) as host:
            host.wait()
            (folder / "tree.json").write_text(json.dumps(prepared.fingerprints()))
            prepared.copy_project(host)
            host.check(f"modprobe -a {' '.join(MODULES)}", WARM_SECONDS)
            host.check(f"{prepared.ENTER}; {WARM}", WARM_SECONDS)
            host.check("systemctl is-system-running --wait; sync", WARM_SECONDS)
            host.qmp.save(folder / "state")
    image.call("fallocate", "--dig-holes", str(folder / "memory"))


@contextlib.contextmanager
def restored(
    saved: Saved, name: str = "vectl-vm", *, prefix: tuple[str, ...] = ()
) -> collections.abc.Iterator[guest.Guest]:
    """Run a guest from a state, with a name, an identity and a clock of its own, and the working tree as it is now.

    Raises: GuestError, QmpError.
    """
    with tempfile.TemporaryDirectory(prefix="vectl-vm-") as folder:
        kind = machine.Machine(
            image=saved.image,
            disk=pathlib.Path(folder) / "disk.qcow2",
            folder=pathlib.Path(folder),
            log=machine.new_log(),
            memory=(*machine.memory_in(saved.memory, kept=False), "-incoming", "defer"),
            prefix=prefix,
        )
        machine.overlay(saved.image, kind.disk)
        with guest.started(kind) as host:
            host.qmp.load(saved.state)
            identify(host, name)
            prepared.update_project(host, saved.tree)
            yield host


def identify(host: guest.Guest, name: str) -> None:
    """Give a guest the time and what no two hosts share; its boot's id stays that of the state."""
    host.check(
        f"date -s @{time.time():.3f} && hostname {name} && echo {name} > /etc/hostname"
        f" && echo 127.0.0.1 localhost {name} > /etc/hosts && echo {secrets.token_hex(16)} > /etc/machine-id",
        IDENTITY_SECONDS,
    )
