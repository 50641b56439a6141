"""Fifty VEs from manifests to running, beside `runc run -d` alone for the same fifty, four at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import common
from reconciler.host.bundle import BundleSpec, build_config
from reconciler.kernel import busybox, cgroup, cgroup_layout

COUNT, WORKERS, ROUNDS = 50, 4, 3
BASE = 3 << 29
NAME = "bnrunc"


def main() -> None:
    """Alternate the two, and print each round's ratio and the median."""
    common.machine()
    ratios = []
    for number in range(ROUNDS):
        ours, floor = _vectl(), _runc()
        ratios.append(ours / floor)
        print(f"round {number + 1}: vectl {ours:.2f} s, runc run -d {floor:.2f} s, ratio {ours / floor:.2f}")
    middle = sorted(ratios)[len(ratios) // 2]
    common.report(
        f"{COUNT} VEs, manifests to running / runc run -d", f"{middle:.2f}x (median)", "<= 2x", met=middle <= 2
    )


def _vectl() -> float:
    with common.place("bncreate", ves=1) as place:
        made = place.vectl("apply", "--yes", str(place.manifests))  # the pool and the template are made beforehand
        assert made.returncode == 0, made.stderr
        for number in range(1, COUNT + 1):
            (place.manifests / f"ve{number:04d}.yaml").write_text(common.manifest(number))
        seconds = common.timed(lambda: _apply(place))
        listed = place.vectl("get", "-o", "json")
        states = [item["power"] for item in json.loads(listed.stdout)["items"]]
        assert states == ["running"] * (COUNT + 1), states
        return seconds


def _apply(place: common.Place) -> None:
    done = place.vectl("apply", "--yes", str(place.manifests))
    assert done.returncode == 0, done.stderr


def _runc() -> float:
    """Run the same template with the same namespaces, limits left out, and nothing else around it."""
    scratch = Path(tempfile.mkdtemp(prefix="vectl-bench-runc-", dir="/var/tmp"))
    try:
        rootfs = scratch / "rootfs"
        rootfs.mkdir()
        busybox.build_tree(str(rootfs))
        subprocess.run(["chown", "-R", "-h", f"{BASE}:{BASE}", str(rootfs)], check=True)
        scratch.chmod(0o755)
        bundles = [_bundle(scratch, rootfs, number) for number in range(COUNT)]
        try:
            return common.timed(lambda: _run_all(scratch, bundles))
        finally:
            for number in range(COUNT):
                _delete(scratch, number)
    finally:
        shutil.rmtree(scratch)


def _tree(number: int) -> cgroup.CgroupTree:
    return cgroup.CgroupTree(cgroup_layout.detect(), f"/{NAME}/v{number}")


def _bundle(scratch: Path, rootfs: Path, number: int) -> Path:
    bundle = scratch / f"b{number}"
    bundle.mkdir()
    _tree(number).create()
    spec = BundleSpec(hostname=f"v{number}", rootfs=str(rootfs), id_base=BASE, cgroup=f"/{NAME}/v{number}")
    (bundle / "config.json").write_text(json.dumps(build_config(spec)))
    return bundle


def _run_all(scratch: Path, bundles: list[Path]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda pair: _run(scratch, *pair), enumerate(bundles)))


def _run(scratch: Path, number: int, bundle: Path) -> None:
    argv = ["runc", "--root", str(scratch / "runc"), "run", "-d", "--bundle", str(bundle), f"{NAME}-{number}"]
    null = subprocess.DEVNULL
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null, timeout=60)


def _delete(scratch: Path, number: int) -> None:
    argv = ["runc", "--root", str(scratch / "runc"), "delete", "--force", f"{NAME}-{number}"]
    subprocess.run(argv, check=False, capture_output=True, timeout=60)
    _tree(number).remove()


if __name__ == "__main__":
    main()
