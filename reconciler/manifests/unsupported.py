"""What this version of vectl accepts in a manifest but does not carry out yet. A VE that asks for it is refused.

To carry a field out is to remove its line here.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

_VE = (
    "interfaces[].firewall",
    "access",
    "security",
    "migration",
    "replicas",
)
_NETWORK: tuple[str, ...] = ()


def is_of_ve(path: str) -> bool:
    """Say whether a field of a VE, by its path in the schema, is accepted and not carried out, whatever it says."""
    patterns = (".".join(map(to_camel, pattern.split("."))) for pattern in _VE if "=" not in pattern)
    found = path.removeprefix("spec.")
    return any(found == pattern or found.startswith((f"{pattern}.", f"{pattern}[")) for pattern in patterns)


def ve_fields(body: BaseModel) -> tuple[str, ...]:
    """Give the paths of the fields of a VE that are set and not carried out."""
    return tuple(path for pattern in _VE for path in _found(body, pattern))


def network_fields(body: BaseModel) -> tuple[str, ...]:
    """Give the paths of the fields of a network that are set and not carried out."""
    return tuple(path for pattern in _NETWORK for path in _found(body, pattern))


def _found(section: BaseModel, pattern: str) -> Iterator[str]:
    """Give the paths below a section that match a pattern and differ from their default.

    Shape: attributes joined by dots; ``[]`` stands for every entry of a list; ``=word`` for this one value.
    """
    head, _, rest = pattern.partition(".")
    attribute, _, word = head.removesuffix("[]").partition("=")
    if attribute not in section.model_fields_set:
        return
    info = type(section).model_fields[attribute]
    name, value = info.alias or attribute, getattr(section, attribute)
    if head.endswith("[]"):
        for entry in value:
            yield from (f"{name}[{entry.name}].{path}" for path in _found(entry, rest))
    elif rest:
        yield from (f"{name}.{path}" for path in _found(value, rest))
    elif value == word if word else value != info.get_default(call_default_factory=True):
        yield name
