"""Paths of fields: parts joined by dots, in which the key of a keyed list is one part."""

from __future__ import annotations


def key_in_path(key: str) -> str:
    """Give the key of a keyed list as a part of a path: paths of files may hold dots."""
    return key.replace("%", "%25").replace(".", "%2E")


def key_of(part: str) -> str:
    """Give back the key that `key_in_path` made a part of a path of."""
    return part.replace("%2E", ".").replace("%25", "%")
