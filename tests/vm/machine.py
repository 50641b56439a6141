"""Start the QEMU process of a guest, and end it."""

import collections.abc
import contextlib
import dataclasses
import os
import pathlib
import subprocess
import time

from tests.vm import cache, image

MEMORY_MIB = 3072
CPUS = 2
LAN_PORTS = 2
STOP_SECONDS = 20
KEPT_LOGS = 60
COMMAND_LINE = "console=ttyS0 root=/dev/vda rw net.ifnames=0 panic=-1 systemd.show_status=0 loglevel=4"
EMULATED = "mitigations=off nokaslr no5lvl nowatchdog rcupdate.rcu_cpu_stall_timeout=300 tsc=reliable"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine with one disk, a console and a control port; network cards are plugged in while it runs."""

    image: image.Image
    disk: pathlib.Path
    folder: pathlib.Path
    """Where its sockets are made: `control.sock`, `console.sock` and `qmp.sock`."""
    log: pathlib.Path
    memory: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    """A command that runs QEMU, such as one that enters a network namespace."""

    @property
    def console(self) -> pathlib.Path:
        """Where what the guest writes on its console is kept."""
        return self.log.with_suffix(".console")

    def command(self) -> list[str]:
        """Write the command line."""
        console = f"path={self.folder}/console.sock,server=on,wait=off,logfile={self.console}"
        return [
            # A guest does not outlive its driver, and gives way to whatever else runs here.
            *("setpriv", "--pdeathsig", "KILL", "nice", *self.prefix),
            *self.image.qemu.machine(),
            *hardware(self.image),
            *self.memory,
            *("-drive", f"file={self.disk},format=qcow2,if=none,id=root,cache=unsafe,discard=unmap"),
            *("-device", "virtio-blk-pci,drive=root,serial=root"),
            *("-chardev", f"socket,id=console,{console}"),
            *("-serial", "chardev:console"),
            *("-chardev", f"socket,id=control,path={self.folder}/control.sock,server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=vectl"),
            *("-qmp", f"unix:{self.folder}/qmp.sock,server=on,wait=off"),
        ]


def hardware(built: image.Image) -> list[str]:
    """Write what of a command line decides whether one machine's saved state fits another."""
    accelerator, kernel_options = acceleration()
    ports = [f"pcie-root-port,id=port{number},chassis={number},slot={number}" for number in range(1, LAN_PORTS + 1)]
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"),
        *accelerator,
        *("-smp", str(CPUS), "-m", str(MEMORY_MIB)),
        *("-kernel", str(built.kernel), "-initrd", str(built.initrd)),
        *("-append", f"{COMMAND_LINE} {kernel_options}"),
        # A new identity in every process: the kernel of a restored guest then stirs its random numbers anew.
        *("-device", "vmgenid,guid=auto"),
        *(word for port in ports for word in ("-device", port)),
    ]


def memory_in(file: pathlib.Path, *, kept: bool) -> tuple[str, ...]:
    """Let memory be a file: one that is written, or one of which the machine has a copy of its own, page by page."""
    share = "on" if kept else "off"
    return (
        *("-object", f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={file},share={share}"),
        *("-machine", "memory-backend=ram"),
    )


@contextlib.contextmanager
def running(machine: Machine) -> collections.abc.Iterator[None]:
    """Run a machine."""
    with (
        machine.log.open("wb") as words,
        subprocess.Popen(machine.command(), stdin=subprocess.DEVNULL, stdout=words, stderr=words) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def acceleration() -> tuple[list[str], str]:
    """Choose the processor: KVM where the hardware has it, else software.

    A /dev/kvm without the processor's flag interprets a kernel that is not made for it: slower than QEMU's
    translation, and stopped by the first instruction it does not know.
    """
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    if {"vmx", "svm"}.intersection(flags) and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"], ""
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"], EMULATED


def overlay(built: image.Image, disk: pathlib.Path) -> None:
    """Make a disk that holds only what differs from the image's, which stays as it is."""
    kind = "raw" if built.disk.suffix == ".raw" else "qcow2"
    command = ("create", "-q", "-f", "qcow2", "-b", str(built.disk), "-F", kind, str(disk))
    image.call(*built.qemu.tool("qemu-img"), *command)


def new_log() -> pathlib.Path:
    """Name a file for what QEMU says, beside which all else of that guest goes, and forget all but the latest few."""
    cache.LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(cache.LOGS.iterdir())[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    return cache.LOGS / f"{time.time_ns()}.qemu"
