"""Hosts under maintenance, found without making anything of the other documents."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.facts import Json


def under_maintenance(files: Mapping[str, bytes]) -> frozenset[str]:
    """Name the hosts that are under maintenance, by manifests that are valid."""
    candidates = [data for data in files.values() if b"maintenance" in data]
    if not candidates:
        return frozenset()
    from reconciler.manifests import yaml_reader

    documents = (document.value for data in candidates for document in yaml_reader.read(data).documents)
    return frozenset(str(_at(one, "metadata", "name")) for one in documents if _is_shut(one))


def _is_shut(document: Json) -> bool:
    return _at(document, "kind") == "Host" and _at(document, "spec", "maintenance") is True


def _at(value: Json, *keys: str) -> Json:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
