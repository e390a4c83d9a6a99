"""Adding one key to the last object of a stream while it passes. Sans-io: bytes in, bytes out.

Everything passes at once and unchanged, however it is cut, but for two things: a brace that
may close the last object waits for the byte behind it, and the chunk of an OpenAI stream
that says why it finished waits for the next one, which is ``[DONE]`` or the usage. No token
waits for anything. Only a piece with a mark of the end in it is looked at more closely.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol.stream_end import (
    FINAL_RESPONSE_EVENTS,
    Usage,
    json_object,
    ollama_usage,
    openai_usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_proxy.http.request import Source
    from modelsplit_proxy.http.server import Downstream

# What a last line holds and a token never does: inside a JSON string quotes are escaped.
_MARKS: Final = {
    Dialect.OLLAMA: re.compile(rb'"done"\s*:\s*true'),
    Dialect.OPENAI: re.compile(
        rb'\[DONE\]|"finish_reason"\s*:\s*"|"choices"\s*:\s*\[\s*\]'
        rb'|"response\.(?:completed|incomplete|failed)"'
    ),
    Dialect.ANTHROPIC: re.compile(rb'"message_(?:delta|stop)"'),
}
# What is longer is no last line; nothing is copied any further.
_WAITING_MAX_BYTES: Final = 4 * 1024 * 1024


class _Line(Enum):
    OTHER = auto()
    LAST = auto()  # its object gets the key
    PERHAPS = auto()  # its object gets the key if the next data line is [DONE]
    DONE = auto()  # [DONE]
    SILENT = auto()  # between two data lines


class Splice:
    """One stream. ``added`` makes the value of the key, from what the stream said of itself."""

    __slots__ = ("_added", "_dialect", "_line", "_mark", "_off", "_pending", "_unsent", "usage")

    def __init__(self, dialect: Dialect, added: Callable[[Usage], bytes]) -> None:
        self._dialect = dialect
        self._added = added
        self._mark = _MARKS[dialect]
        self._line = bytearray()
        # The end of the line under way that has not been passed on.
        self._unsent = bytearray()
        # A line that is perhaps the last, from its closing brace on, and what followed it.
        self._pending = b""
        self._off = False
        self.usage = Usage()

    def feed(self, piece: bytes) -> bytes:
        """What to pass on now that ``piece`` has come."""
        under_way = self._line or self._pending
        if self._off or not (under_way or self._mark.search(piece) or piece[-1:] != b"\n"):
            return piece
        out = b"".join([self._part(part) for part in piece.splitlines(keepends=True)])
        if len(self._line) + len(self._pending) > _WAITING_MAX_BYTES:
            self._off = True
            out += self._rest()
        return out

    def finish(self) -> bytes:
        """What is left to pass on when nothing more comes."""
        if self._pending or self._kind(bytes(self._line)) is not _Line.LAST:
            return self._rest()
        line, unsent = bytes(self._line), bytes(self._unsent)
        self._line.clear()
        self._unsent.clear()
        return self._spliced(line, unsent)

    def _rest(self) -> bytes:
        rest = self._pending + bytes(self._unsent)
        self._pending = b""
        self._line.clear()
        self._unsent.clear()
        return rest

    def _part(self, part: bytes) -> bytes:
        self._line += part
        self._unsent += part
        if part[-1:] == b"\n":
            line, unsent = bytes(self._line), bytes(self._unsent)
            self._line.clear()
            self._unsent.clear()
            return self._judged(line, unsent)
        if self._pending:
            return b""
        passing = len(self._unsent) - self._from_brace()
        out = bytes(self._unsent[:passing])
        del self._unsent[:passing]
        return out

    def _from_brace(self) -> int:
        """How many bytes at the end of the line under way may be the end of the last object."""
        if self._line.rstrip()[-1:] != b"}" or not self._mark.search(self._line):
            return 0
        return len(self._line) - self._line.rfind(b"}")

    def _judged(self, line: bytes, unsent: bytes) -> bytes:
        pending = self._pending
        kind = self._kind(line)
        if kind is _Line.SILENT and pending:
            self._pending = pending + unsent
            return b""
        self._pending = b""
        if kind is _Line.LAST:
            return pending + self._spliced(line, unsent)
        if kind is _Line.DONE and pending:
            return self._key() + pending + unsent
        if kind is _Line.PERHAPS:
            at = _brace(line, unsent)
            self._pending = unsent[at:]
            return pending + unsent[:at]
        return pending + unsent

    def _spliced(self, line: bytes, unsent: bytes) -> bytes:
        """The end of ``line`` with the key before its object's closing brace."""
        at = _brace(line, unsent)
        return unsent[:at] + self._key() + unsent[at:]

    def _key(self) -> bytes:
        return b',"llm":' + self._added(self.usage)

    def _kind(self, line: bytes) -> _Line:
        if self._dialect is Dialect.OLLAMA:
            return self._kind_of_object(line) if self._mark.search(line) else _Line.OTHER
        if not line.startswith(b"data:"):
            return _Line.SILENT
        if not self._mark.search(line):
            return _Line.OTHER
        data = line[5:].strip()
        return _Line.DONE if data == b"[DONE]" else self._kind_of_object(data)

    def _kind_of_object(self, text: bytes) -> _Line:
        said = json_object(text)
        usage = ollama_usage(said) if self._dialect is Dialect.OLLAMA else openai_usage(said)
        if self._dialect is Dialect.OLLAMA or usage.output_tokens is not None:
            self.usage = usage
        if self._dialect is Dialect.OLLAMA:
            return _Line.LAST if said.get("done") is True else _Line.OTHER
        if said.get("type") == "message_stop" or said.get("type") in FINAL_RESPONSE_EVENTS:
            return _Line.LAST
        return _Line.PERHAPS if "choices" in said else _Line.OTHER


def _brace(line: bytes, unsent: bytes) -> int:
    """Where in the end of a line its object closes."""
    return len(unsent) - (len(line) - line.rfind(b"}"))


class SplicedDown:
    """A client's end of the wire for ``Relay``, with a splice before it."""

    __slots__ = ("_down", "_splice")

    def __init__(self, down: Downstream, splice: Splice) -> None:
        self._down = down
        self._splice = splice

    @property
    def writing_paused(self) -> bool:
        return self._down.writing_paused

    def feed_from(self, source: Source | None) -> None:
        self._down.feed_from(source)

    def write(self, piece: bytes) -> None:
        out = self._splice.feed(piece)
        if out:
            self._down.write(out)

    def finish(self) -> None:
        """Nothing more comes: pass on what waited for it."""
        out = self._splice.finish()
        if out:
            self._down.write(out)


def spliced_whole(body: bytes, value: bytes) -> bytes:
    """A whole JSON object with the key at its end; anything else as it came."""
    text = body.rstrip()
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return body
    at = len(text) - 1
    comma = b"," if text[1:at].strip() else b""
    return b"".join((body[:at], comma, b'"llm":', value, body[at:]))
