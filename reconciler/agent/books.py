"""What each target was told, kept over restarts: nobody wants to hear of everything again because an agent started."""

from __future__ import annotations

from reconciler.agent.notices import Book, StatusTold, Told
from reconciler.agent.standing import Phase
from reconciler.model.decode import Fields
from reconciler.model.facts import Json
from reconciler.state.document import Document, Durability

_FORMAT = 1


class Books:
    """The books by the key of their target, one file each."""

    def __init__(self, state_dir: str) -> None:
        self._directory = f"{state_dir}/notices"

    def read(self, key: str) -> Book:
        """Read what a target was told; an empty book, if nothing yet.

        Raises: StateError, KernelError.
        """
        fields = self._document(key).read()
        return Book() if fields is None else _decoded(fields)

    def write(self, key: str, book: Book) -> None:
        """Keep what a target was told.

        Raises: KernelError, NoSpaceError.
        """
        told: list[Json] = [
            {"subject": subject, "reason": reason, "at": one.at, "message": one.message}
            for (subject, reason), one in book.told.items()
        ]
        statuses: list[Json] = [
            {"revision": revision, "phase": one.phase.value, "summary": one.summary, "at": one.at, "count": one.count}
            for revision, one in book.statuses.items()
        ]
        self._document(key).write(
            {"told": told, "open": dict(book.open), "applied": book.applied, "statuses": statuses}
        )

    def _document(self, key: str) -> Document:
        remedy = "remove it: then what stands is told once more"
        path = f"{self._directory}/{key}.json"
        return Document(path=path, format=_FORMAT, remedy=remedy, durability=Durability.WHOLE)


def _decoded(fields: Fields) -> Book:
    told = {}
    for item in fields.objects("told"):
        told[item.text("subject"), item.text("reason")] = Told(at=item.number("at"), message=item.text("message"))
        item.end()
    statuses = {}
    for item in fields.objects("statuses"):
        statuses[item.text("revision")] = StatusTold(
            phase=item.word("phase", Phase),
            summary=item.text("summary"),
            at=item.number("at"),
            count=item.integer("count"),
        )
        item.end()
    book = Book(told=told, open=fields.strings("open"), applied=fields.text("applied"), statuses=statuses)
    fields.end()
    return book
