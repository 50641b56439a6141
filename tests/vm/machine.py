"""Start the QEMU process of a guest, and end it."""

import collections.abc
import contextlib
import os
import pathlib
import subprocess
import time

from tests.vm import cache, image

MEMORY_MIB = 3072
CPUS = 2
STOP_SECONDS = 20
KEPT_LOGS = 10
COMMAND_LINE = "console=ttyS0 root=/dev/nvme0n1 rw net.ifnames=0 panic=-1 systemd.show_status=0 loglevel=4"
EMULATED = "mitigations=off nokaslr no5lvl nowatchdog rcupdate.rcu_cpu_stall_timeout=300 tsc=reliable"


@contextlib.contextmanager
def running(built: image.Image, disk: pathlib.Path, folder: pathlib.Path) -> collections.abc.Iterator[None]:
    """Run a machine; `control.sock` and `console.sock` in the folder lead into it."""
    # A guest does not outlive its driver, and gives way to whatever else the machine does.
    log = new_log()
    command = ["setpriv", "--pdeathsig", "KILL", "nice", *machine(built, disk, folder, log.with_suffix(".console"))]
    with (
        log.open("wb") as words,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def machine(built: image.Image, disk: pathlib.Path, folder: pathlib.Path, console: pathlib.Path) -> list[str]:
    """Write the command line of a machine with one disk, a console, a control port and no network card."""
    accelerator, kernel_options = acceleration()
    return [
        *built.qemu.machine(),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"),
        *accelerator,
        *("-smp", str(CPUS), "-m", str(MEMORY_MIB)),
        *("-kernel", str(built.kernel), "-append", f"{COMMAND_LINE} {kernel_options}"),
        # NVMe is in the kernel itself, where virtio's disk is a module: no initial RAM disk is needed.
        *("-drive", f"file={disk},format=qcow2,if=none,id=root,cache=unsafe,discard=unmap"),
        *("-device", "nvme,drive=root,serial=root"),
        *("-chardev", f"socket,id=console,path={folder}/console.sock,server=on,wait=off,logfile={console}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=control,path={folder}/control.sock,server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=vectl"),
    ]


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
    """Name a file for what QEMU says, beside which the console's goes, and forget all but the latest few."""
    cache.LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(cache.LOGS.iterdir())[: -2 * KEPT_LOGS]:
        old.unlink(missing_ok=True)
    return cache.LOGS / f"{time.time_ns()}.qemu"
