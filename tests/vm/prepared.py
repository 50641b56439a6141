"""Install the project in the guest as `make setup` does, without a network there, and the tree that is under test."""

import collections.abc
import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys

from tests.vm import cache, guest, image

REPOSITORY = pathlib.Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")
SETUP = ".ci/setup"
TREE = "/root/vectl"
WHEELS = "/root/wheels"
PROGRAMS = pathlib.Path(os.environ.get("VECTL_LIB", "/usr/lib/vectl"))
# Software emulation is ten to thirty times slower.
ENTER = f"cd {TREE} && export PATH=$PWD/.venv/bin:$PATH VECTL_TEST_PATIENCE=10"
OFFLINE = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} PIP_NO_COMPILE=1"
GUEST_PYTHON = "313"
NEWEST_GLIBC = 41
DOWNLOAD_SECONDS = 600
INSTALL_SECONDS = 900


def prepared_image(get: cache.Get = cache.built) -> image.Image:
    """Give an image whose disk also holds the virtual environment of the locks.

    Raises: GuestError, NotCachedError, subprocess.CalledProcessError, subprocess.TimeoutExpired.
    """
    built = image.build_image(get)
    key = "\n".join([cache.identity(built.disk.parent), *((REPOSITORY / name).read_text() for name in (*LOCKS, SETUP))])
    folder = get("setup", key, lambda folder: install(built, folder))
    return dataclasses.replace(built, disk=folder / "disk.qcow2")


def install(built: image.Image, folder: pathlib.Path) -> None:
    """Boot a guest once, set the project up there, and keep its disk."""
    wheels = folder / "wheels"
    wheels.mkdir()
    download(wheels)
    with guest.booted(built, folder / "disk.qcow2") as host:
        host.copy_in(wheels, WHEELS)
        copy_project(host)
        host.check(f"rm -r {WHEELS}", INSTALL_SECONDS)
        host.power_off()
    cache.remove_tree(wheels)


def download(wheels: pathlib.Path) -> None:
    """Fetch the wheels that fit the guest's Python, which is not the driver's."""
    locks = [word for lock in LOCKS for word in ("--requirement", str(REPOSITORY / lock))]
    abis = [f"--abi={abi}" for abi in (f"cp{GUEST_PYTHON}", "abi3", "none")]
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(5, NEWEST_GLIBC + 1)]
    target = [f"--python-version={GUEST_PYTHON}", "--implementation=cp", *abis, *platforms]
    # Without -qq, pip warns of each local index that the driver's own configuration may name.
    download = [sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    call(*download, *target, "--dest", str(wheels), *locks)


def copy_project(host: guest.Guest) -> None:
    """Copy the working tree as it is, changes included, and set it up."""
    # Files that were deleted since the disk was made would still be tested.
    host.check(
        f"mkdir -p {TREE}; find {TREE} -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -r {{}} +", INSTALL_SECONDS
    )
    host.copy_in(REPOSITORY, TREE, sorted(fingerprints()))
    host.check(f"cd {TREE} && {OFFLINE} {SETUP} dev", INSTALL_SECONDS)


def update_project(host: guest.Guest, there: collections.abc.Mapping[str, str]) -> None:
    """Bring the tree of a guest that has been set up to the working tree; what is the same keeps its bytecode."""
    here = fingerprints()
    if gone := b"\0".join(os.fsencode(name) for name in there.keys() - here.keys()):
        host.check(f"cd {TREE} && xargs -0 rm -f --", INSTALL_SECONDS, stdin=gone)
    if changed := sorted(name for name, print in here.items() if there.get(name) != print):
        host.copy_in(REPOSITORY, TREE, changed)
    copy_criu(host)


def copy_criu(host: guest.Guest) -> None:
    """Copy what set-up has put into the driver's own directory of programs: it brings all its libraries along.

    Not etcd: its time limits are too short for software emulation.
    """
    if (PROGRAMS / "bin" / "criu").exists():
        names = [path.relative_to(PROGRAMS) for folder in (PROGRAMS, PROGRAMS / "bin") for path in folder.iterdir()]
        host.copy_in(PROGRAMS, str(PROGRAMS), [str(name) for name in names if name.name not in ("bin", "etcd")])


def fingerprints() -> dict[str, str]:
    """Tell the files of the working tree, and of each a value that changes when it does."""
    listed = call("git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = {name: REPOSITORY / name for name in listed.split("\0") if name}
    return {name: fingerprint(path) for name, path in paths.items() if os.path.lexists(path)}


def fingerprint(path: pathlib.Path) -> str:
    """Tell one version of a file, or of a symbolic link, from all others."""
    content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    return f"{path.lstat().st_mode:o} {hashlib.sha256(content).hexdigest()}"


def call(*command: str) -> str:
    """Run a command of the driver, and give what it prints."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=True, timeout=DOWNLOAD_SECONDS
    ).stdout
