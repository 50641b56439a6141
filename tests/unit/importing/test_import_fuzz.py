"""Whatever a configuration holds, the result is valid or the import is refused, and every line of it stays bounded."""

from __future__ import annotations

import json
import random

import pytest

from reconciler.errors import ManifestError
from reconciler.manifests.load import load_fleet
from tests.support.importing import CASES, files_of, imported

ROUNDS = 40
SYSTEMS = {
    "openvz": ("openvz-vswap", "openvz-ubc", "openvz-slm", "openvz-vz7", "openvz-every-key"),
    "proxmox": ("proxmox-all",),
    "incus": ("incus-dump", "incus-shown"),
}
TOKENS = (
    *b"\x00 \xff \" ' \\ \n \r = : , ; # $(x) `x` [ ] { } - \t &a *a !!x % ~".split(b" "),
    *b"unlimited -1 0 1e400 0x10 1.5G ../../etc/passwd :: /0 true null [pve:pending]".split(),
    *("\u202e".encode(), b"9" * 24, b"a" * 5000, b"  "),
)


def mutated(data: bytes, luck: random.Random) -> bytes:
    """Damage a file in a few places: bytes, tokens, and lines that go, come twice, or change places."""
    for _ in range(luck.randint(1, 8)):
        at = luck.randrange(len(data) + 1)
        lines = data.split(b"\n")
        match luck.randrange(6):
            case 0:
                data = data[:at] + luck.choice(TOKENS) + data[at:]
            case 1:
                data = data[:at] + luck.choice(TOKENS) + data[at + luck.randint(1, 12) :]
            case 2:
                data = data[:at] + data[at + luck.randint(1, 40) :]
            case 3:
                data = data[:at] + bytes([luck.randrange(256)]) + data[at + 1 :]
            case 4:
                lines.insert(luck.randrange(len(lines) + 1), luck.choice(lines))
                data = b"\n".join(lines)
            case _:
                luck.shuffle(lines)
                data = b"\n".join(lines)
    return data


@pytest.mark.parametrize("system", SYSTEMS)
def test_damaged_configurations_give_valid_manifests_or_are_refused(system: str) -> None:
    luck = random.Random(f"import {system}")
    for _ in range(ROUNDS):
        files = files_of(CASES / luck.choice(SYSTEMS[system]) / "in")
        damaged = {name: mutated(data, luck) for name, data in files.items()}
        try:
            result = imported(system, damaged)
        except ManifestError:
            continue
        assert load_fleet(result.files, revision="").findings == ()
        report = json.dumps(result.to_json())
        assert len(report) < 1 << 20
        assert sum(map(len, result.files.values())) < 1 << 18
