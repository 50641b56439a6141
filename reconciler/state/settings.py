"""A small strict reader of YAML: scalars as text with their places, and every mistake at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from reconciler.errors import ConfigError
from reconciler.model.fleet import Finding, Place

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

_T = TypeVar("_T")

_SIZE_MAX = 64 << 10
"""More than any configuration needs, and little enough for a parser written in Python. Units: bytes."""

Content: TypeAlias = "str | Sequence[Setting] | Mapping[str, Setting] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A node of the file. ``content`` None: written as null, or as nothing, which both mean "not set"."""

    content: Content
    place: Place


class Section:
    """A mapping whose keys are taken one by one; what is wrong is put into ``findings``, and the default is given."""

    __slots__ = ("_findings", "_known", "_path", "_place", "_settings")

    def __init__(self, setting: Setting, findings: list[Finding], *, path: str = "") -> None:
        self._path = path
        self._place = setting.place
        self._findings = findings
        self._known: set[str] = set()
        self._settings: Mapping[str, Setting] = {}
        if isinstance(setting.content, Mapping):
            self._settings = setting.content
        elif setting.content is not None:
            self._report(setting.place, path, "expected keys with values")

    def setting(self, key: str) -> Setting | None:
        """Take a key of any type; None, if it is not set."""
        self._known.add(key)
        found = self._settings.get(key)
        return None if found is None or found.content is None else found

    def value(self, key: str, parse: Callable[[str], _T]) -> _T | None:
        """Take a scalar; ``parse`` raises ValueError with the words for what it expected."""
        found = self.setting(key)
        if found is None:
            return None
        if not isinstance(found.content, str):
            self._report(found.place, self._of(key), "expected a single value")
            return None
        try:
            return parse(found.content)
        except ValueError as err:
            self._report(found.place, self._of(key), str(err))
            return None

    def values(self, key: str, parse: Callable[[str], _T]) -> tuple[_T, ...] | None:
        """Take a list of scalars."""
        found = self.setting(key)
        if found is None:
            return None
        if isinstance(found.content, str | Mapping) or found.content is None:
            self._report(found.place, self._of(key), "expected a list")
            return None
        inner = {str(index): one for index, one in enumerate(found.content)}
        items = Section(Setting(content=inner, place=found.place), self._findings, path=self._of(key))
        return tuple(item for item in (items.value(index, parse) for index in inner) if item is not None)

    def section(self, key: str) -> Section:
        """Take a mapping; one of nothing, if it is not set."""
        found = self.setting(key) or Setting(content=None, place=self._place)
        return Section(found, self._findings, path=self._of(key))

    def sections(self, key: str) -> tuple[Section, ...] | None:
        """Take a list of mappings."""
        found = self.setting(key)
        if found is None:
            return None
        if isinstance(found.content, str | Mapping) or found.content is None:
            self._report(found.place, self._of(key), "expected a list")
            return None
        path = self._of(key)
        return tuple(Section(one, self._findings, path=f"{path}[{n}]") for n, one in enumerate(found.content))

    def require(self, key: str) -> None:
        """Report a key that has to be set and is not."""
        if self.setting(key) is None:
            self._report(self._place, self._of(key), "has to be set")

    def refuse(self, key: str, message: str) -> None:
        """Report what is wrong with a key beside its own value."""
        self._report(self._settings[key].place, self._of(key), message)

    def end(self) -> None:
        """Report the keys that nobody took."""
        for key, setting in self._settings.items():
            if key not in self._known:
                import difflib  # only mistakes need it

                close = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(self._known))}"
                self._report(setting.place, self._of(key), "no such setting", hint)

    def _of(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _report(self, place: Place, path: str, message: str, hint: str = "") -> None:
        self._findings.append(Finding(place=place, path=path, message=message, hint=hint))


def parse_settings(data: bytes, *, file: str) -> Setting:
    """Parse a file of settings; an empty one is a mapping of nothing.

    Raises: ConfigError, with file, line and column.
    """
    if len(data) > _SIZE_MAX:
        raise ConfigError(f"read {file}: expected {_SIZE_MAX} bytes at most, got {len(data)}")
    node = _compose(data, file)
    start = Place(file=file, line=1)
    return Setting(content=None, place=start) if node is None else _convert(node, file)


def refuse(findings: Sequence[Finding]) -> None:
    """Raise what was found, all of it, in the order of the file.

    Raises: ConfigError, unless there is nothing.
    """
    if findings:
        ordered = sorted(findings, key=lambda finding: (finding.place.line, finding.place.column))
        raise ConfigError("\n".join(_line(finding) for finding in ordered))


def _line(finding: Finding) -> str:
    where = f"{finding.place.file}:{finding.place.line}:{finding.place.column}"
    subject = f"{finding.path}: " if finding.path else ""
    return f"read {where}: {subject}{finding.message}" + (f"; {finding.hint}" if finding.hint else "")


def _compose(data: bytes, file: str) -> Node | None:
    # Takes 30 ms to import, and most commands run without a configuration file.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        # The parser in C does not report anchors.
        node: Node | None = YAML(typ="safe", pure=True).compose(data.decode())
    except MarkedYAMLError as err:
        mark = err.problem_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise ConfigError(f"read {where}: {err.problem or 'expected YAML'}") from err
    except (YAMLError, ValueError, RecursionError, TypeError, AttributeError, OverflowError) as err:
        raise ConfigError(f"read {file}: expected YAML in UTF-8") from err
    return node


def _convert(node: Node, file: str) -> Setting:
    from ruamel.yaml.nodes import MappingNode, ScalarNode

    place = Place(file=file, line=node.start_mark.line + 1, column=node.start_mark.column + 1)
    tag = str(node.tag)
    if node.anchor or not tag.startswith("tag:yaml.org,2002:"):
        raise ConfigError(f"read {_at(place)}: expected plain YAML, got an anchor, an alias or a tag")
    if isinstance(node, MappingNode):
        return Setting(content=_convert_pairs(node.value, file), place=place)
    if isinstance(node, ScalarNode):
        return Setting(content=None if tag.endswith(":null") else str(node.value), place=place)
    return Setting(content=tuple(_convert(item, file) for item in node.value), place=place)


def _convert_pairs(pairs: Sequence[tuple[Node, Node]], file: str) -> Mapping[str, Setting]:
    settings: dict[str, Setting] = {}
    for key_node, value_node in pairs:
        key = _convert(key_node, file)
        if not isinstance(key.content, str) or key.content in settings:
            problem = "expected a name as key" if not isinstance(key.content, str) else f"{key.content!r} is set twice"
            raise ConfigError(f"read {_at(key.place)}: {problem}")
        value = _convert(value_node, file)
        # The key's place is the one to show: a value may stand lines below, or be nothing at all.
        settings[key.content] = Setting(content=value.content, place=key.place)
    return settings


def _at(place: Place) -> str:
    return f"{place.file}:{place.line}:{place.column}"
