"""Install the project's Python packages in the guest, without a network there, and the tree that is under test."""

import dataclasses
import pathlib
import shlex
import subprocess
import sys
import tomllib

from tests.vm import cache, guest, image

REPOSITORY = pathlib.Path(__file__).parents[2]
TREE = "/root/vectl"
VENV = "/root/venv"
GUEST_PYTHON = "313"
NEWEST_GLIBC = 41
DOWNLOAD_SECONDS = 600
INSTALL_SECONDS = 900


def prepared_image() -> image.Image:
    """Give an image whose disk also holds a virtual environment of the locked packages.

    Raises: GuestError, subprocess.CalledProcessError, subprocess.TimeoutExpired.
    """
    built = image.build_image()
    lock = locked()
    folder = cache.built("venv", f"{built.disk}\n{lock}", lambda folder: install(built, lock, folder))
    return dataclasses.replace(built, disk=folder / "disk.qcow2")


def locked() -> str:
    """Give the packages that the driver's own environment was made of."""
    locks = sorted(REPOSITORY.glob("requirements*.txt"))
    if locks:
        return "\n".join(lock.read_text() for lock in locks)
    return run(sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--exclude", "setuptools")


def build_requirements() -> list[str]:
    """Give what builds the project itself, which no lock names."""
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]
    return [str(name) for name in build["requires"]]


def install(built: image.Image, lock: str, folder: pathlib.Path) -> None:
    """Boot a guest once, and keep its disk with the packages on it."""
    wheels = folder / "wheels"
    wheels.mkdir()
    (wheels / "lock.txt").write_text(lock)
    download(wheels)
    with guest.booted(built, folder / "disk.qcow2") as host:
        host.copy_in(wheels, "/root/wheels")
        host.check(f"python3 -m venv {VENV}", INSTALL_SECONDS)
        offline = f"{VENV}/bin/pip install -q --no-index --find-links /root/wheels --no-deps --no-compile"
        host.check(f"{offline} -r /root/wheels/lock.txt", INSTALL_SECONDS)
        host.check(f"{offline} {shlex.join(build_requirements())}; rm -r /root/wheels", INSTALL_SECONDS)
        host.power_off()
    cache.remove_tree(wheels)


def download(wheels: pathlib.Path) -> None:
    """Fetch the wheels that fit the guest's Python, which is not the driver's."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(5, NEWEST_GLIBC + 1)]
    abis = [f"--abi={abi}" for abi in (f"cp{GUEST_PYTHON}", "abi3", "none")]
    target = ["--only-binary=:all:", f"--python-version={GUEST_PYTHON}", "--implementation=cp", *abis, *platforms]
    fetch = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", *target, "-d", str(wheels)]
    run(*fetch, "-r", f"{wheels}/lock.txt")
    run(*fetch, *build_requirements())


def run(*command: str) -> str:
    """Run a command of the driver, and give what it prints."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=True, timeout=DOWNLOAD_SECONDS
    ).stdout


def copy_project(host: guest.Guest) -> None:
    """Copy the working tree as it is, changes included, and install the command."""
    names = run("git", "-C", str(REPOSITORY), "ls-files", "-coz", "--exclude-standard", "--deduplicate").split("\0")
    host.copy_in(REPOSITORY, TREE, [name for name in names if name and (REPOSITORY / name).exists()])
    host.check(f"cd {TREE} && {VENV}/bin/pip install -q --no-index --no-deps --no-build-isolation -e .", INSTALL_SECONDS)
    host.check(f"ln -sfn {VENV} {TREE}/.venv", INSTALL_SECONDS)
