"""Claims about `vectl import`: what it writes is valid, and is never written over unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import outputs
from tests.support.importing import CASES
from tests.support.patience import PATIENCE

VSWAP = CASES / "openvz-vswap" / "in"
COMMAND_S = 60 * PATIENCE


def vectl(*words: str, code: int = 0, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "reconciler.cli.entry", *words]
    done = subprocess.run(
        argv, input=input, capture_output=True, timeout=COMMAND_S, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def test_what_is_imported_is_valid_and_told_by_line(tmp_path: Path) -> None:
    done = vectl("import", "openvz", f"{VSWAP}/conf", "--to", f"{tmp_path}/fleet")
    vectl("validate", f"{tmp_path}/fleet")
    text = done.stdout.decode()
    assert f"dropped: {VSWAP}/conf/102.conf:14: KMEMSIZE=" in text
    assert f"dropped: {VSWAP}/conf/101.mount: script" in text
    assert f"{VSWAP}/vz.conf:18: NAMESERVER=inherit" in text  # found beside the directory
    assert sorted(path.name for path in (tmp_path / "fleet/ves").iterdir()) == ["web-server.yaml", "web1.yaml"]


def test_the_account_has_the_published_form(tmp_path: Path) -> None:
    done = vectl("import", "openvz", f"{VSWAP}/conf", "--to", f"{tmp_path}/fleet", "-o", "json")
    report = json.loads(done.stdout)
    assert outputs.misfits("import", report) == []
    assert report["summary"]["dropped"] == sum(entry["outcome"] == "dropped" for entry in report["entries"])


def test_no_file_is_written_over_unasked(tmp_path: Path) -> None:
    command = ("import", "openvz", f"{VSWAP}/conf/101.conf", "--to", f"{tmp_path}")
    vectl(*command)
    file = tmp_path / "ves/web-server.yaml"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.yaml")}
    file.write_bytes(before[file] + b"# mine\n")
    assert "--force" in vectl(*command, code=4).stderr.decode()
    assert file.read_bytes().endswith(b"# mine\n")
    vectl(*command, "--force")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.yaml")} == before


def test_a_second_host_goes_into_the_same_directory(tmp_path: Path) -> None:
    for number in (1, 2):
        conf = tmp_path / f"{number}.conf"
        conf.write_text(f'HOSTNAME="web{number}"\nIP_ADDRESS="192.0.2.{number}"\n')
        vectl("import", "openvz", str(conf), "--to", f"{tmp_path}/fleet")
    vectl("validate", f"{tmp_path}/fleet")
    assert len(list((tmp_path / "fleet").rglob("*.yaml"))) == 3


def test_containers_of_proxmox_are_imported_from_their_directory(tmp_path: Path) -> None:
    vectl("import", "proxmox", f"{CASES}/proxmox-all/in", "--to", f"{tmp_path}/fleet")
    vectl("validate", f"{tmp_path}/fleet")
    assert len(list((tmp_path / "fleet/ves").iterdir())) == 2


def test_instances_of_incus_are_imported_from_standard_input(tmp_path: Path) -> None:
    dump = (CASES / "incus-dump/in/dump.yaml").read_bytes()
    done = vectl("import", "incus", "-", "--to", f"{tmp_path}/fleet", "-o", "json", input=dump)
    assert outputs.misfits("import", json.loads(done.stdout)) == []
    vectl("validate", f"{tmp_path}/fleet")


def test_what_is_no_yaml_is_an_error_with_its_line(tmp_path: Path) -> None:
    done = vectl("import", "incus", "-", "--to", f"{tmp_path}/fleet", input=b"a: 1\nb: [\n", code=1)
    assert b"dropped: -:" in done.stdout


@pytest.mark.parametrize("make", ["fifo", "large", "absent"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, make: str) -> None:
    file = tmp_path / "1.conf"
    if make == "fifo":
        os.mkfifo(file)
    elif make == "large":
        file.write_bytes(b"#" * ((1 << 20) + 1))
    done = vectl("import", "openvz", str(file), "--to", f"{tmp_path}/out", code=1 if make == "absent" else 64)
    assert b"1.conf" in done.stderr
    assert not (tmp_path / "out").exists()
