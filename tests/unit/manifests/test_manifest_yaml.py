"""The front door: what of YAML comes in, and what is kept out, whatever it looks like."""

from __future__ import annotations

import math

import pytest
from ruamel.yaml import YAML

from reconciler.manifests import scalars, yaml_reader
from reconciler.manifests.yaml_builder import DEPTH_MAX, ENTRIES_MAX, NODES_MAX, Builder
from reconciler.manifests.yaml_reader import BYTES_MAX
from reconciler.model.facts import Json
from tests.unit.manifests.cases import BAD, GOOD, Case


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("0", 0),
        ("-7", -7),
        ("+12", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-11-23", "2026-11-23"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1e", "1e"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        (".", "."),
        ("-", "-"),
        ("512Mi", "512Mi"),
        ("10.20.0.1", "10.20.0.1"),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: Json) -> None:
    found = scalars.resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    found = scalars.resolve(".NaN")
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize("text", ["010", "-01", "00", "1" * 33, "0x" + "f" * 40])
def test_numbers_that_readers_take_differently_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        scalars.resolve(text)


HOSTILE = {
    "alias bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "alias to itself": b"a: &x {b: *x}\n",
    "deep flow": b"[" * 100_000,
    "deep maps": b"{a: " * 100_000,
    "deep blocks": b"- " * 10_000,
    "many entries": b"[" + b"1," * (ENTRIES_MAX + 1) + b"]",
    "many values": b"{" + b"".join(b"k%d: 1," % number for number in range(NODES_MAX // 2)) + b"}",
    "many documents": b"--- 1\n" * (NODES_MAX + 1),
    "large file": b" " * (BYTES_MAX + 1),
    "tag that runs code": b"!!python/object/apply:os.system [id]\n",
    "binary tag": b"!!binary aGk=\n",
    "set tag": b"!!set {a, b}\n",
    "own tag": b"!x 1\n",
    "verbatim tag": b"!<tag:yaml.org,2002:str> x\n",
    "non-specific tag": b"! 12\n",
    "directive": b"%YAML 1.1\n---\na: yes\n",
    "tag directive": b"%TAG ! tag:example.org,2000:\n---\na: 1\n",
    "merge key": b"a: {<<: {b: c}}\n",
    "duplicate keys": b"a: 1\nb: 2\na: 3\n",
    "duplicate keys, one of them quoted": b'a: 1\n"a": 2\n',
    "key that is null": b"? \n: a\n",
    "key that is a list": b"? [a, b]\n: c\n",
    "key that is an alias": b"a: &a x\n*a : c\n",
    "NUL": b"a: \0\n",
    "escape sequence": b"a: \x1b[2J\n",
    "escaped NUL": b'a: "\\0"\n',
    "escaped bidi": b'a: "\\u202e"\n',
    "bidi override": "a: \u202etxt\n".encode(),
    "isolate": "a: \u2066x\u2069\n".encode(),
    "line separator": "a: x\u2028b: y\n".encode(),
    "next line": "a: x\u0085b: y\n".encode(),
    "byte order mark inside": "a: \ufeffx\n".encode(),
    "tag characters": "a: x\U000e0041\n".encode(),
    "invalid UTF-8": b"a: \xff\n",
    "surrogates in UTF-8": b"a: \xed\xa0\x80\n",
    "UTF-16": "a: 1\n".encode("utf-16"),
    "huge integer": b"a: " + b"9" * 100_000 + b"\n",
    "huge exponent": b"a: 1e999999999999999999999999999999\n",
    "open quote": b'a: "' + b"x" * 100_000,
    "only quotes": b"'" * 100_001,
    "only ampersands": b"&" * 100_000,
    "unknown escape": b'a: "\\q"\n',
    "tab": b"a:\n\tb: 1\n",
    "control at the end": b"a: 1\n\x7f",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_becomes_a_problem_with_a_place(name: str) -> None:
    raw = yaml_reader.read(HOSTILE[name])
    problems = [*raw.problems, *(problem for document in raw.documents for problem in document.problems)]
    assert problems
    for problem in problems:
        assert problem.mark is not None
        assert min(problem.mark) >= 1
        assert problem.message.isprintable()


def test_depth_and_number_of_values_are_allowed_up_to_their_limits() -> None:
    deep = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    long = b"[" + b"1," * ENTRIES_MAX + b"]"
    many = b"{" + b"".join(b"k%d: 1," % number for number in range(NODES_MAX // 2 - 1)) + b"}"
    assert not yaml_reader.read(deep).problems
    assert not yaml_reader.read(long).problems
    assert not yaml_reader.read(many).problems
    assert yaml_reader.read(b"[" + deep + b"]").problems


def test_a_byte_order_mark_at_the_beginning_is_no_content() -> None:
    raw = yaml_reader.read(b"\xef\xbb\xbfa: 1\n")
    assert [document.value for document in raw.documents] == [{"a": 1}]
    assert raw.documents[0].mark(("a",)) == (1, 4)


def test_positions_are_those_of_keys_and_values() -> None:
    (document,) = yaml_reader.read("# \u00e4\na:\n  b: [x, {c: 1}]\n  d:\n".encode()).documents
    assert document.mark(("a",), at_key=True) == (2, 1)
    assert document.mark(("a", "b"), at_key=True) == (3, 3)
    assert document.mark(("a", "b")) == (3, 6)
    assert document.mark(("a", "b", 1, "c")) == (3, 14)
    assert document.mark(("a", "b", 1, "nowhere")) == (3, 10)
    assert document.mark(("a", "d")) == (4, 3)


def test_positions_count_characters_and_not_bytes() -> None:
    (document,) = yaml_reader.read("{\u00e4\u00f6: x, b: y}\n".encode()).documents
    assert document.mark(("b",)) == (1, 12)


def test_documents_before_a_mistake_are_kept_and_the_mistake_is_told() -> None:
    raw = yaml_reader.read(b"a: 1\n---\nb: 2\n---\nc: 3\nc: 4\nd: [\n")
    assert [document.value for document in raw.documents] == [{"a": 1}, {"b": 2}]
    assert [problem.mark for problem in raw.problems] == [(6, 1), (8, 1)]


@pytest.mark.parametrize("text", ["{to: web1:80}", "[::1]", "{a: fd00::}", "[a, ::1]", "{mac: 02:00:00:00:00:01}"])
def test_colons_in_flow_collections_are_text_as_in_yaml_1_2(text: str) -> None:
    raw = yaml_reader.read(text.encode())
    assert not raw.problems
    (document,) = raw.documents
    assert [document.value] == list(YAML(typ="safe", pure=True).load_all(text))


def test_a_large_file_needs_quotes_around_colons_and_says_so() -> None:
    (problem,) = yaml_reader.read(b"# " + b"x" * (128 << 10) + b"\n{to: web1:80}\n").problems
    assert problem.hint == "quote text that holds ':'"
    assert problem.mark == (2, 10)


READABLE = [case for case in GOOD + BAD if not yaml_reader.read(case.data).problems]


@pytest.mark.parametrize("case", READABLE, ids=lambda case: case.file)
def test_both_parsers_see_the_same_values_at_the_same_places(case: Case) -> None:
    raw = yaml_reader.read(case.data)
    builder = Builder()
    builder.consume(YAML(typ="safe", pure=True).parse(case.data.decode()))
    for slow, fast in zip(builder.documents, raw.documents, strict=True):
        assert repr(slow.value) == repr(fast.value)
        assert (slow.values, slow.keys) == (fast.values, fast.keys)
