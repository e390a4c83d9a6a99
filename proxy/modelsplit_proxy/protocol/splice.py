"""Adding one key to the last object of a stream while it passes. Sans-io: bytes in, bytes out.

Everything passes at once and unchanged, however it is cut, but for two things: a brace that
may close the last object waits for the byte behind it, and the chunk of an OpenAI stream
that says why it finished waits for the next one, which is ``[DONE]`` or the usage. No token
waits for anything. Only a piece with a mark of the end in it is looked at more closely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_proxy.protocol.stream_end import DONE, LineKind, Usage, json_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import AnswerSource
    from modelsplit_proxy.protocol.endpoint import WireFormat

# The longest mark of an end.
_MARK_MAX_BYTES: Final = 64
# What a stream says of itself that says nothing.
_UNKNOWN: Final = Usage()
# What is longer is no last line; nothing is copied any further.
_WAITING_MAX_BYTES: Final = 4 * 1024 * 1024


class Splice:
    """One stream. ``added`` makes the value of the key, from what the stream said of itself.

    Each byte is looked at once or twice, however many pieces a line comes in.
    """

    __slots__ = (
        "_added",
        "_brace",
        "_line",
        "_mark",
        "_marked",
        "_off",
        "_passed",
        "_pending",
        "_wire",
        "usage",
    )

    def __init__(self, wire: WireFormat, added: Callable[[Usage], bytes]) -> None:
        self._wire = wire
        self._added = added
        self._mark = wire.end_mark
        # The line under way: how much of it has been passed on, whether a mark is in it, and
        # where its last brace stands if nothing but blanks has followed.
        self._line = bytearray()
        self._passed = 0
        self._marked = False
        self._brace: int | None = None
        # A line that is perhaps the last, from its closing brace on, and what followed it.
        self._pending = bytearray()
        self._off = False
        self.usage = _UNKNOWN

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
        if self._pending or self._kind(bytes(self._line)) is not LineKind.LAST:
            return self._rest()
        return self._spliced(*self._taken())

    def _rest(self) -> bytes:
        return self._taken_pending() + self._taken()[1]

    def _taken(self) -> tuple[bytes, bytes]:
        """The line that was under way, and what of it has not been passed on."""
        line, passed = bytes(self._line), self._passed
        self._line.clear()
        self._passed, self._marked, self._brace = 0, False, None
        return line, line[passed:]

    def _taken_pending(self) -> bytes:
        pending = bytes(self._pending)
        self._pending.clear()
        return pending

    def _part(self, part: bytes) -> bytes:
        self._look_at(part)
        if part[-1:] == b"\n":
            return self._judged()
        if self._pending:
            return b""
        until = len(self._line)
        if self._marked and self._brace is not None:
            until = self._brace  # from here on it may be the end of the last object
        out = bytes(self._line[self._passed : until])
        self._passed = until
        return out

    def _look_at(self, part: bytes) -> None:
        """Add to the line under way."""
        line, size = self._line, len(self._line)
        line += part
        if not self._marked:
            # A mark may have begun in an earlier part.
            self._marked = self._mark.search(line, max(0, size - _MARK_MAX_BYTES)) is not None
        text = part.rstrip()
        if text:
            self._brace = size + len(text) - 1 if text[-1:] == b"}" else None

    def _judged(self) -> bytes:
        """What to pass on of a line that is whole."""
        kind = self._kind(bytes(self._line))
        line, unsent = self._taken()
        if kind is LineKind.SILENT and self._pending:
            self._pending += unsent
            return b""
        pending = self._taken_pending()
        if kind is LineKind.LAST:
            return pending + self._spliced(line, unsent)
        if kind is LineKind.DONE and pending:
            return self._key() + pending + unsent
        if kind is LineKind.PERHAPS:
            at = _brace(line, unsent)
            self._pending += unsent[at:]
            return pending + unsent[:at]
        return pending + unsent

    def _spliced(self, line: bytes, unsent: bytes) -> bytes:
        """The end of ``line`` with the key before its object's closing brace."""
        at = _brace(line, unsent)
        return unsent[:at] + self._key() + unsent[at:]

    def _key(self) -> bytes:
        return b',"llm":' + self._added(self.usage)

    def _kind(self, line: bytes) -> LineKind:
        data = self._wire.data(line)
        if data is None:
            return LineKind.SILENT
        if not self._marked:
            return LineKind.OTHER
        return LineKind.DONE if data == DONE else self._kind_of_object(data)

    def _kind_of_object(self, text: bytes) -> LineKind:
        row = json_object(text)
        usage = self._wire.usage(row)
        if usage.output_tokens is not None or self.usage == _UNKNOWN:
            self.usage = usage
        return self._wire.kind(row)


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

    def feed_from(self, source: AnswerSource | None) -> None:
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
