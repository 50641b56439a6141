"""Claims about changes to a file: one value is another, and every other character is what it was."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.errors import ManifestError, UsageError
from reconciler.manifests import assignment, changed, edit, splice, yaml_layout, yaml_reader
from reconciler.manifests.problem import Path
from reconciler.manifests.yaml_layout import Node
from reconciler.model.facts import Json
from tests.support.handwritten import Hand, value

FILE = """\
# yaml-language-server: $schema=x
apiVersion: ve/v1
kind: VirtualEnvironment
metadata: {name: web1, labels: {tier: web}}
spec:
  profile: small
  description: "shop"   # why
  memory:   # all of it
    limit: 512Mi  # half
    swap: 0
  interfaces:
  - name: eth0   # first
    network: lan
    addresses:   # all
      - 10.20.0.11/24  # a
      # b
      - "fd00::1/64"
  - {name: eth1, network: dmz}
  disk:
  # at the end
---
apiVersion: ve/v1
kind: Profile
metadata: {name: small}
spec: {processes: 10, memory: {barrier: 400Mi}}
"""


def after(*assignments: str, text: str = FILE) -> str:
    """Give a file after fields were set."""
    wanted = [assignment.parse(one) for one in assignments]
    return edit.set_fields({"a.yaml": text.encode()}, "web1", wanted).after.decode()


def swapped(old: str, new: str) -> str:
    """Give the file with one of its places written differently."""
    assert FILE.count(old) == 1
    return FILE.replace(old, new)


@pytest.mark.parametrize(
    ("wanted", "old", "new"),
    [
        ("memory.limit=1Gi", "limit: 512Mi  # half", "limit: 1Gi  # half"),
        ("spec.memory.limit=1Gi", "limit: 512Mi  # half", "limit: 1Gi  # half"),
        ("memory.limit=", "    limit: 512Mi  # half\n", ""),
        ("description=it's: 4 # you", '"shop"', '"it\'s: 4 # you"'),
        ("cpu.weight=200", "  disk:\n", "  disk:\n  cpu:\n    weight: 200\n"),
        ("cpu.limit=1.50", "  disk:\n", "  disk:\n  cpu:\n    limit: 1.50\n"),
        ("cpu={weight: 200}", "  disk:\n", "  disk:\n  cpu: {weight: 200}\n"),
        ("disk.size=4Gi", "  disk:\n", "  disk:\n    size: 4Gi\n"),
        ("disk.users.1000.hard=1Gi", "  disk:\n", "  disk:\n    users:\n    - id: 1000\n      hard: 1Gi\n"),
        ("interfaces.eth0.network=dmz", "network: lan", "network: dmz"),
        ("interfaces[eth1].mtu=9000", "network: dmz}", "network: dmz, mtu: 9000}"),
        ("interfaces.eth0.addresses[0]=10.20.0.9/24", "- 10.20.0.11/24", "- 10.20.0.9/24"),
        (
            "interfaces.eth0.addresses=[10.20.0.9/24]",
            '- 10.20.0.11/24  # a\n      # b\n      - "fd00::1/64"',
            "- 10.20.0.9/24",
        ),
        ("interfaces.eth1=", "  - {name: eth1, network: dmz}\n", ""),
        ("interfaces.eth2.network=lan", "dmz}\n", "dmz}\n  - name: eth2\n    network: lan\n"),
        ("labels.example.org/a=1", "labels: {tier: web}", 'labels: {tier: web, example.org/a: "1"}'),
        ("labels.tier=", ", labels: {tier: web}", ""),
        ("mounts[/srv/a.b].source=/x", "  disk:\n", "  disk:\n  mounts:\n  - target: /srv/a.b\n    source: /x\n"),
        ("sysctls.net.ipv4.ip_forward=1", "  disk:\n", '  disk:\n  sysctls:\n    net.ipv4.ip_forward: "1"\n'),
        ("memory={}", "memory:   # all of it\n    limit: 512Mi  # half\n    swap: 0\n", "memory: {}   # all of it\n"),
        ("memory.limit=null", "limit: 512Mi  # half", "limit: null  # half"),
        ("interfaces.eth0.name=", "  - name: eth0   # first\n    network: lan\n", "  - network: lan\n"),
        ("hostname=on", "  disk:\n", '  disk:\n  hostname: "on"\n'),
        ("profile=[small, big]", "profile: small", "profile: [small, big]"),
    ],
)
@pytest.mark.parametrize(("newline", "bom"), [("\n", ""), ("\r\n", "\ufeff")], ids=["unix", "windows"])
def test_only_what_was_asked_for_is_written_differently(
    wanted: str, old: str, new: str, newline: str, bom: str
) -> None:
    text = bom + FILE.replace("\n", newline)
    assert after(wanted, text=text) == bom + swapped(old, new).replace("\n", newline)


def test_a_text_of_many_lines_keeps_the_blank_lines_behind_it() -> None:
    text = FILE.replace('description: "shop"   # why', "description: |\n    one\n\n    two\n\n")
    assert after("description=three", text=text) == text.replace("|\n    one\n\n    two", "three")
    short = "kind: VirtualEnvironment\nmetadata: {name: web1}\nspec:\n  description: |\n    one\n\n\n# end\n"
    assert after("processes=1", text=short) == short.replace("one\n", "one\n  processes: 1\n")
    kept = short.replace("|", "|+")
    assert after("processes=1", text=kept) == kept.replace("\n\n\n", "\n\n\n  processes: 1\n")


def test_several_fields_are_set_at_once() -> None:
    text = after("interfaces.eth2.network=lan", "interfaces.eth2.mtu=9000", "memory.limit=", "memory.swap=")
    assert "  - name: eth2\n    network: lan\n    mtu: 9000\n" in text
    assert "memory" not in text.partition("---")[0]


def test_a_file_of_json_stays_one() -> None:
    text = (
        '{"apiVersion": "ve/v1", "kind": "VirtualEnvironment", "metadata": {"name": "web1"}, "spec": {"processes": 1}}'
    )
    expected = text.replace('"processes": 1', '"processes": "unlimited", "cpu": {"weight": 5}')
    assert after("processes=unlimited", "cpu.weight=5", text=text) == expected


def test_what_a_profile_gives_is_told() -> None:
    wanted = [assignment.parse(one) for one in ("memory.barrier=300Mi", "processes=", "memory.limit=1Gi")]
    found = edit.set_fields({"a.yaml": FILE.encode()}, "web1", wanted)
    assert [(one.before, one.after, one.profile) for one in found.changes] == [
        (None, "300Mi", "small"),
        (None, None, "small"),
        ("512Mi", "1Gi", ""),
    ]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("memory.limt=1Gi", "did you mean 'limit'"),
        ("memory.limit", "expected path=value"),
        ("memory=", ""),
        ("=5", "expected the path of a field"),
        ("a[=5", "expected path=value"),
        ("spec=5", "expected the path of a field"),
        ("memory.limit=[", "quote what is text"),
        ("memory.limit=a\n---\nb", "expected one value"),
        ("memory.limit=&a 5", "expected no anchor"),
        ("interfaces.eth0.addresses[7]=10.0.0.1/24", "from 0 on, got '7'"),
        ("interfaces.eth0.addresses.first=10.0.0.1/24", "expected the position"),
    ],
)
def test_what_makes_no_sense_is_a_mistake_of_the_command_line(wanted: str, said: str) -> None:
    if not said:
        after(wanted)
        return
    with pytest.raises(UsageError) as caught:
        after(wanted)
    assert said in str(caught.value)


def test_a_ve_has_to_be_written_exactly_once() -> None:
    with pytest.raises(ManifestError, match="no manifest of that name"):
        edit.set_fields({"a.yaml": FILE.encode()}, "web2", [])
    with pytest.raises(ManifestError, match=r"a\.yaml:2, b\.yaml:2"):
        edit.set_fields({"a.yaml": FILE.encode(), "b.yaml": FILE.encode()}, "web1", [])


@pytest.mark.parametrize(
    "text",
    [
        "kind: VirtualEnvironment\nmetadata: {name: web1}\nspec: {memory: &a {limit: 1Gi}}\n",
        "kind: VirtualEnvironment\nmetadata: {name: web1}\nspec: {cpu: 1}\nspec: {cpu: 2}\n",
        "kind: VirtualEnvironment\nmetadata: {name: web1}\n--- {\n",
    ],
)
def test_a_file_that_cannot_be_read_rightly_is_not_edited(text: str) -> None:
    with pytest.raises(ManifestError, match="mend the file by hand first"):
        after("memory.limit=2Gi", text=text)


@pytest.mark.parametrize(
    "text",
    [
        "kind: VirtualEnvironment\rmetadata: {name: web1}\rspec: {memory: {swap: 0}}\r",
        "kind: VirtualEnvironment\nmetadata: {name: web1}\nspec:\n  ? memory\n  : limit: 1Gi\n    swap: 0\n",
    ],
)
@pytest.mark.parametrize("wanted", ["memory.limit=2Gi", "memory.swap=", "processes=1"])
def test_what_nobody_writes_is_left_to_hands(text: str, wanted: str) -> None:
    with pytest.raises(ManifestError, match="change it by hand"):
        after(wanted, text=text)


# Whatever was written, by whatever hand

SEEDS = st.integers(min_value=0, max_value=1 << 32)
OFTEN = settings(
    deadline=None, derandomize=True, database=None, max_examples=200, suppress_health_check=list(HealthCheck)
)


def paths(document: Json, above: Path = ()) -> list[Path]:
    """Give the paths of all values."""
    found = [above] if above else []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for part, item in items:
        found += paths(item, (*above, part))
    return found


def documents(chance: Random) -> list[dict[str, Json]]:
    made = [
        {"first": value(chance), "second": value(chance), "last": value(chance)} for _ in range(chance.choice([1, 2]))
    ]
    return [dict(one) for one in made]


def read(data: bytes) -> list[Json]:
    found = yaml_reader.read(data)
    assert found.problems == (), data.decode()
    return [document.value for document in found.documents]


def written(chance: Random) -> tuple[bytes, int, list[Json]]:
    """Give a file, the number of one of its documents, and what the documents are."""
    made = documents(chance)
    data = Hand(chance=chance, newline=chance.choice(["\n", "\r\n"])).file(made)
    assert read(data) == made
    return data, chance.randrange(len(made)), [*made]


def holder(data: bytes, index: int, path: Path) -> Node:
    return yaml_layout.at(yaml_reader.lay_out(data.decode().removeprefix("\ufeff"))[index], path[:-1])


def changed_lines(before: bytes, after: bytes) -> tuple[int, int]:
    """Give the first and the last character of a text that another one does not share with it."""
    old, new = (text.decode().removeprefix("\ufeff") for text in (before, after))
    first = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    room = min(len(old), len(new)) - first
    shared = next((at for at in range(room) if old[-1 - at] != new[-1 - at]), room)
    return first, len(old) - shared


@OFTEN
@given(seed=SEEDS)
def test_a_value_is_replaced_within_its_own_lines(seed: int) -> None:
    chance = Random(seed)
    data, index, made = written(chance)
    path, new = chance.choice(paths(made[index])), value(chance)
    result = splice.put(data, index, path, (), new)
    made[index] = changed.with_value(made[index], path, (), new)
    assert read(result) == made
    entry = yaml_layout.entry(holder(data, index, path), path[-1])
    first, end = changed_lines(data, result)
    assert first >= entry.begin
    assert end <= max(entry.end, first)


@OFTEN
@given(seed=SEEDS)
def test_a_new_key_leaves_every_character_that_was_there(seed: int) -> None:
    chance = Random(seed)
    data, index, made = written(chance)
    maps = [(), *(path for path in paths(made[index]) if isinstance(changed.value_at(made[index], path), dict | None))]
    path = chance.choice(maps)
    below: changed.Missing = chance.choice(
        [("new",), ("new", "below"), ("new", changed.NewEntry(field="name", key="eth0"), "mtu")]
    )
    new = value(chance)
    result = splice.put(data, index, path, below, new)
    gap = changed.value_at(made[index], path) in ({}, None)
    made[index] = changed.with_value(made[index], path, below, new)
    assert read(result) == made
    rest = iter(result.decode())
    assert gap or all(char in rest for char in data.decode())


@OFTEN
@given(seed=SEEDS)
def test_a_removed_entry_takes_nothing_but_itself_along(seed: int) -> None:
    chance = Random(seed)
    data, index, made = written(chance)
    choices = [path for path in paths(made[index]) if len(changed.value_at(made[index], path[:-1]) or ()) > 1]  # type: ignore[arg-type]  # a collection
    path = chance.choice(choices)
    result = splice.remove(data, index, path)
    made[index] = changed.without(made[index], path)
    assert read(result) == made
    of, entry = holder(data, index, path), yaml_layout.entry(holder(data, index, path), path[-1])
    assert of.entries is not None
    number = of.entries.index(entry)
    text = data.decode().removeprefix("\ufeff")
    gone = text[slice(*changed_lines(data, result))]
    others = [one for at, one in enumerate(of.entries) if at != number]
    assert len(gone) <= len(text[of.start : of.end]) + 80
    assert all(text[one.begin : one.end] in result.decode() for one in others)
