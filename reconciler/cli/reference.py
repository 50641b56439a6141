"""The field reference of the README: what manifests can say, by the schema, with the impact that the planner declares.

`python -m reconciler.cli.reference README.md` writes it between its two marks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from reconciler.manifests import explain
from reconciler.manifests.explain import FieldDoc
from reconciler.plan.field import Field
from reconciler.plan.spec import FIELDS

BEGIN = "<!-- field reference: written by `make reference` -->"
END = "<!-- end of the field reference -->"


def render() -> str:
    """Render the table of every field of a VE that this version carries out, in the order of the schema."""
    rows = ["| field of `spec` | meaning | default | a change is |", "| --- | --- | --- | --- |"]
    rows += [_row(doc, declared) for doc, declared in _fields()]
    return "\n".join(rows)


def _fields() -> Iterator[tuple[FieldDoc, Field]]:
    declared = {field.path: field for field in FIELDS}
    for doc in explain.reference("VirtualEnvironment"):
        found = declared.get(_plain(doc.path))
        if found is not None:
            yield doc, found


def _plain(path: str) -> str:
    """Give a schema's path as the planner has it: without ``spec``, and a key where the schema has a list."""
    return path.removeprefix("spec.").replace("[]", ".*")


def _row(doc: FieldDoc, declared: Field) -> str:
    meaning = doc.description.replace("|", "\\|").replace("\n", " ")
    default = f"`{doc.default}`" if doc.default else ""
    return f"| `{doc.path.removeprefix('spec.')}` | {meaning} | {default} | {declared.impact.word} |"


def place(text: str) -> str:
    """Put the table between the marks of a text.

    Raises: ValueError, if a mark is missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected {BEGIN!r} and {END!r}")
    return f"{head}{BEGIN}\n{render()}\n{END}{tail}"


def main(path: str) -> None:
    """Rewrite the table in a file."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(place(text))


if __name__ == "__main__":
    main(sys.argv[1])
