"""The journal: which actions of several effects were begun and not ended, so that a start after a crash looks there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from reconciler.model.identity import Uid
from reconciler.state import layout
from reconciler.state.document import Document

_FORMAT = 1
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An action about to be carried out. ``action``: its id. ``effects``: their names, in order.

    ``uid`` is None for the host's own objects. Units: ``at`` seconds since the epoch.
    """

    action: str
    ve: str
    uid: Uid | None
    effects: tuple[str, ...]
    revision: str
    at: float


class Journal:
    """The open intents, one file each below ``directory``: it is bounded by what is under way, and needs no trimming.

    It tells nobody what to do: a VE with an unfinished intent is observed anew, like any other, and first.
    """

    __slots__ = ("_directory",)

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def begin(self, intent: Intent) -> None:
        """Write an intent, on disk when this returns; one of the same action is replaced.

        Raises: KernelError, NoSpaceError.
        """
        self._document(_name(intent.action)).write(
            {
                "action": intent.action,
                "ve": intent.ve,
                "uid": intent.uid,
                "effects": list(intent.effects),
                "revision": intent.revision,
                "at": intent.at,
            }
        )

    def done(self, action: str) -> None:
        """Close the intent of an action that ended, well or not; absent is success.

        One that comes back with a power cut has its VE looked at first, as any start does: the disk is not waited for.

        Raises: KernelError.
        """
        layout.drop_file(self._document(_name(action)).path)

    def unfinished(self) -> tuple[Intent, ...]:
        """Read the open intents, oldest first.

        Raises: StateError, KernelError.
        """
        names = layout.names_in(self._directory)
        intents = (self._read(name) for name in names if name.endswith(_SUFFIX))
        return tuple(sorted((intent for intent in intents if intent is not None), key=lambda intent: intent.at))

    def _document(self, name: str) -> Document:
        remedy = "remove it: its VE is looked at in any case"
        return Document(path=f"{self._directory}/{name}", format=_FORMAT, remedy=remedy)

    def _read(self, name: str) -> Intent | None:
        fields = self._document(name).read()
        if fields is None:
            return None
        uid = fields.optional_text("uid")
        intent = Intent(
            action=fields.text("action"),
            ve=fields.text("ve"),
            uid=None if uid is None else Uid(uid),
            effects=fields.texts("effects"),
            revision=fields.text("revision"),
            at=fields.number("at"),
        )
        fields.end()
        return intent


def _name(action: str) -> str:
    # An action's id holds slashes and may be longer than a file name.
    return hashlib.sha256(action.encode()).hexdigest()[:32] + _SUFFIX
