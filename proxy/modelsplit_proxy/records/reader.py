"""Finished calls as they are read from the state file, by the proxy or without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.records import rows, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from modelsplit_proxy.records.query import Query

    # One query's rows; blocks on disk; raises StoreError.
    Read = Callable[[str, tuple[object, ...]], list[tuple[Any, ...]]]

_PAGE: Final = 1000
# As many more of an id as this must be given before the rest is guessed.
_PREFIX_MIN: Final = 4
# Above every character that a request id may have.
_ABOVE: Final = "\x7f"


def newest(calls: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The last of them to come, newest first, each once: of two that are one call the first."""
    once: dict[tuple[str, str], dict[str, Any]] = {}
    for call in calls:
        once.setdefault((call["request_id"], call["started_at"]), call)
    return sorted(once.values(), key=lambda call: str(call["started_at"]), reverse=True)[:limit]


class AmbiguousError(Exception):
    """Several calls begin with these letters. The text names some."""


class RecordReader:
    """Finds finished calls. Everything blocks on disk and may raise StoreError."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def find(self, request_id: str) -> dict[str, Any] | None:
        """The latest call with this id, or the one call whose id begins so, with its attempts.

        Raises AmbiguousError if several begin so.
        """
        row = self._newest(request_id) or self._begins(request_id)
        if row is None:
            return None
        return rows.call_fields(row) | {"attempts": self._attempts(row[0])}

    def latest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """The last calls to come, newest first."""
        where, values = query.where()
        text = (
            f"SELECT {rows.CALL} FROM calls WHERE {where} ORDER BY started_us DESC, id DESC LIMIT ?"
        )
        return [rows.call_fields(row) for row in self._read(text, (*values, limit))]

    def since_newest(self, count: int) -> int | None:
        """When the first of the last ``count`` calls came; None: there are fewer."""
        text = "SELECT started_us FROM calls ORDER BY started_us DESC LIMIT 1 OFFSET ?"
        found = self._read(text, (count - 1,))
        return found[0][0] if found else None

    def in_order(self, query: Query) -> Iterator[list[dict[str, Any]]]:
        """All calls in the order in which they came, as a trace, page by page."""
        where, values = query.where()
        text = (
            f"SELECT {rows.CALL} FROM calls WHERE {where} AND (started_us, id) > (?, ?) "
            "ORDER BY started_us, id LIMIT ?"
        )
        started_us, call_id = -(2**63), 0
        while page := self._read(text, (*values, started_us, call_id, _PAGE)):
            attempts = self._attempts_of(page)
            yield [trace.call(row, attempts.get(row[0], [])) for row in page]
            call_id, started_us = page[-1][:2]

    def _newest(self, request_id: str) -> rows.Row | None:
        text = f"SELECT {rows.CALL} FROM calls WHERE request_id = ? ORDER BY id DESC LIMIT 1"
        found_rows = self._read(text, (request_id,))
        return found_rows[0] if found_rows else None

    def _begins(self, letters: str) -> rows.Row | None:
        if len(letters) < _PREFIX_MIN:
            return None
        text = (
            "SELECT DISTINCT request_id FROM calls WHERE request_id > ? AND request_id < ? LIMIT 4"
        )
        ids = [name for (name,) in self._read(text, (letters, letters + _ABOVE))]
        if len(ids) > 1:
            raise AmbiguousError(f'several calls begin with "{letters}": {", ".join(ids)} …')
        return self._newest(ids[0]) if ids else None

    def _attempts(self, call_id: int) -> list[dict[str, Any]]:
        text = f"SELECT {rows.ATTEMPT} FROM attempts WHERE call_id = ? ORDER BY number"
        return [rows.attempt_fields(row) for row in self._read(text, (call_id,))]

    def _attempts_of(self, page: list[rows.Row]) -> dict[int, list[dict[str, Any]]]:
        ids = [row[0] for row in page]
        text = (
            f"SELECT call_id, {rows.ATTEMPT} FROM attempts "
            f"WHERE call_id IN ({', '.join('?' * len(ids))}) ORDER BY call_id, number"
        )
        out: dict[int, list[dict[str, Any]]] = {}
        for call_id, *row in self._read(text, tuple(ids)):
            out.setdefault(call_id, []).append(rows.attempt_fields(tuple(row)))
        return out
