"""What all kinds of manifests have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reconciler.manifests.fields import LabelKey, LabelValue, Name

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A map of a manifest; every key is declared. A validator is built for what is validated by itself, when it is."""

    model_config = ConfigDict(
        strict=True,
        defer_build=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )


def shared(section: type[S]) -> Callable[[], S]:
    """Let all objects that leave out a section have the same one, which is frozen and has nothing but defaults.

    A VE has some thirty sections; most of them are left out, and each would cost time and memory. Not even the
    section's own validator is built for it: that of the whole manifest has all that is needed.
    """
    return functools.cache(lambda: cast("S", section.model_construct()))


class Metadata(Section):
    """Who the object is."""

    name: Name = Field(description="Name, unique among the objects of its kind in the fleet. An RFC 1123 label.")
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Words to select by, as in `vectl get -l tier=web`."
    )


class Manifest(Section):
    """One document."""

    api_version: Literal["ve/v1"] = Field(description="Version of the manifests' format.")
    kind: str = Field(description="The kind.")
    metadata: Metadata = Field(description="Who the object is.")
