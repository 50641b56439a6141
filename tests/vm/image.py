"""Build the guest's disk and kernel, and the QEMU that runs it."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile

from tests.vm import cache

SUITE = "trixie"
DISK_BYTES = 32 << 30
BUILD_SECONDS = 900
CONTROL = pathlib.Path(__file__).with_name("control.py")

QEMU_PACKAGES = ("qemu-system-x86", "qemu-utils")
HOST_PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "linux-image-cloud-amd64", "procps", "uidmap"),
    *("runc", "crun", "criu", "lxcfs", "skopeo", "umoci", "mmdebstrap", "debian-archive-keyring", "ca-certificates"),
    *("btrfs-progs", "e2fsprogs", "xfsprogs", "erofs-utils", "quota", "zstd", "xz-utils", "bzip2"),
    *("squashfs-tools-ng", "attr", "acl"),
    *("iproute2", "iputils-ping", "iputils-arping", "nftables", "iptables", "openssl", "openssh-client"),
    "dropbear-bin",
    *("python3", "python3-venv", "busybox-static", "fdisk", "fuse3", "groff-base"),
    *("make", "git", "gpg", "gpg-agent", "tar", "gcc", "libc6-dev"),
)
APT_OPTIONS = (
    "--aptopt=APT::Install-Recommends false",
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "locale")),
)

CONTROL_UNIT = """\
[Unit]
Description=Run the commands of the tests' driver
BindsTo=dev-virtio\\x2dports-vectl.device
After=dev-virtio\\x2dports-vectl.device
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/vectl-control.py
Environment=HOME=/root LANG=C.UTF-8
Restart=always
RestartSec=1
KillMode=process
[Install]
WantedBy=multi-user.target
"""
AUTOLOGIN = """\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - vt220
"""
INIT = """\
#!/busybox sh
/busybox mount -t devtmpfs dev /dev
/busybox insmod /virtio_blk.ko
until [ -b /dev/vda ]; do /busybox sleep 0.05; done
/busybox mount -t ext4 /dev/vda /root
/busybox umount /dev
exec /busybox switch_root /root /sbin/init
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """An unpacked QEMU, run by its own loader, so that the driver's packages stay as they are."""

    tree: pathlib.Path

    def tool(self, name: str) -> list[str]:
        """Give the command that runs one of its programs."""
        libraries = self.tree / "usr/lib/x86_64-linux-gnu"
        program = self.tree / "usr/bin" / name
        return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(program)]

    def machine(self) -> list[str]:
        """Give the start of a command that runs a machine."""
        folders = (str(self.tree / "usr/share" / name) for name in ("qemu", "seabios"))
        return [*self.tool("qemu-system-x86_64"), *(word for folder in folders for word in ("-L", folder))]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a guest boots from; it is only read."""

    kernel: pathlib.Path
    initrd: pathlib.Path
    disk: pathlib.Path
    qemu: Qemu


def build_image(get: cache.Get = cache.built) -> Image:
    """Build what the cache does not hold yet.

    Raises: NotCachedError, subprocess.CalledProcessError, subprocess.TimeoutExpired.
    """
    qemu = get("qemu", f"{SUITE} {QEMU_PACKAGES}", build_qemu)
    host = get("host", pathlib.Path(__file__).read_text() + CONTROL.read_text(), build_host)
    return Image(kernel=host / "vmlinuz", initrd=host / "initrd", disk=host / "disk.raw", qemu=Qemu(tree=qemu / "root"))


def build_qemu(folder: pathlib.Path) -> None:
    """Unpack QEMU; Debian 12's own 7.2 crashes this guest's kernel."""
    debootstrap(folder / "root", "--variant=extract", f"--include={','.join(QEMU_PACKAGES)}")


def build_host(folder: pathlib.Path) -> None:
    """Install a host, and make a disk of it."""
    root = folder / "root"
    debootstrap(root, "--variant=minbase", f"--include={','.join(HOST_PACKAGES)}")
    configure(root)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, folder / "vmlinuz")
    unpack_modules(root)
    make_initrd(root, folder / "initrd")
    make_disk(root, folder / "disk.raw")
    cache.remove_tree(root)


def debootstrap(root: pathlib.Path, *options: str) -> None:
    """Install packages of the suite into a folder."""
    call("mmdebstrap", "--mode=root", "--format=directory", *APT_OPTIONS, *options, SUITE, str(root), mirror())


def mirror() -> str:
    """Read from the driver's own apt configuration where it gets Debian's main archive."""
    fields = "$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)"
    lines = call("apt-get", "indextargets", "--format", fields, "Identifier: Packages").splitlines()
    found = [line.split()[0] for line in lines if line.split()[1:] == ["Debian", "Debian", "main"]]
    if not found:
        raise LookupError("find a Debian mirror: apt's configuration names none; run apt-get update once")
    return found[0]


def configure(root: pathlib.Path) -> None:
    """Make a host of the tree that answers the driver, and leave the rest as Debian ships it."""
    written = {
        "etc/hostname": "vectl-vm\n",
        "etc/hosts": "127.0.0.1 localhost vectl-vm\n::1 localhost\n",
        "etc/machine-id": "",
        "etc/fstab": "",
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/systemd/system/vectl-control.service": CONTROL_UNIT,
        "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf": AUTOLOGIN,
        "usr/local/lib/vectl-control.py": CONTROL.read_text(),
    }
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    call("systemctl", f"--root={root}", "enable", "vectl-control.service")
    # Software emulation is slow: what Debian rebuilds at a first boot is already built.
    for folder in ("etc", "var"):
        (root / folder / ".updated").touch()


def unpack_modules(root: pathlib.Path) -> None:
    """Store the kernel's modules as they are loaded: to unpack them takes an emulated processor seconds each."""
    (modules,) = (root / "usr/lib/modules").iterdir()
    call("find", str(modules), "-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+")
    call("depmod", "-b", str(root), modules.name)


def make_initrd(root: pathlib.Path, initrd: pathlib.Path) -> None:
    """Pack what mounts the disk, whose driver is a module; of Debian's initrd of 20 MB nothing else is needed."""
    (driver,) = (root / "usr/lib/modules").glob("*/kernel/drivers/block/virtio_blk.ko")
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder)
        for name in ("dev", "root"):
            (tree / name).mkdir()
        shutil.copy(driver, tree)
        shutil.copy(root / "usr/bin/busybox", tree)
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        call("sh", "-c", f"cd {tree} && find . | ./busybox cpio -o -H newc -F {initrd} 2>&1")


def make_disk(root: pathlib.Path, disk: pathlib.Path) -> None:
    """Write a tree as an ext4 file system, without mounting one."""
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    # Debian 12's e2fsprogs knows fewer features than the guest's kernel, and no less than these.
    call("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard", "-d", str(root), str(disk))


def call(*command: str) -> str:
    """Run a command of the build, and give what it prints."""
    env = os.environ | {"LC_ALL": "C.UTF-8", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(
        ["nice", *command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        check=True, timeout=BUILD_SECONDS, env=env,
    )  # fmt: skip
    return done.stdout
