"""A stream of events, as its bytes come: however they were cut, each event once and whole."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from modelsplit_proxy.protocol.stream_end import json_object

# Far above any event; what is longer is none.
EVENT_MAX_BYTES: Final = 8 * 1024 * 1024


# Texts of events that say nothing.
_EMPTY: Final = frozenset({b"", b"{}"})


class TooLongError(Exception):
    """An event has no end."""


class BrokenAnswerError(Exception):
    """The answer has a hole, and cannot be whole any more; the text says which."""


class StreamEvent(NamedTuple):
    """One event. ``raw``: its lines as they came, to the blank one; ``data``: its object.

    ``data`` is empty where it is none; ``text`` is what stands for it then, as in ``[DONE]``.
    """

    raw: bytes
    data: dict[str, Any]
    text: bytes


def checked(event: StreamEvent) -> dict[str, Any]:
    """The object of an event that is to have one; BrokenAnswerError."""
    if event.data or event.text in _EMPTY:
        return event.data
    raise BrokenAnswerError("an event of it is no JSON object")


class EventReader:
    """Takes pieces, gives events."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._open = bytearray()
        self._size = 0

    def feed(self, piece: bytes) -> list[StreamEvent]:
        """The events that this piece ends; TooLongError."""
        self._open += piece
        self._size += len(piece)
        events: list[StreamEvent] = []
        if b"\n" in piece:
            *lines, rest = bytes(self._open).split(b"\n")
            self._open = bytearray(rest)
            for line in lines:
                self._lines.append(line)
                if line in {b"", b"\r"}:
                    events += self._event()
        if self._size > EVENT_MAX_BYTES:
            raise TooLongError
        return events

    def _event(self) -> list[StreamEvent]:
        lines, self._lines = self._lines, []
        self._size = len(self._open)
        texts = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if not texts:
            return []  # a comment, or a blank line too many
        text = b"\n".join(texts)
        return [StreamEvent(b"\n".join((*lines, b"")), json_object(text), text)]
