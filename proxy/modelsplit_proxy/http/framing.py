"""Where the body of a request ends among the bytes that come.

The parser judges the bytes; this finds the boundary, so that the parser is fed one request
at a time: what follows a request waits as bytes until that request is answered. And it
bounds what the parser does not: chunk extensions, trailers, the overhead of tiny chunks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_ZERO: Final = ord("0")
# A chunk may cost this much framing, and a body so much more altogether (Go's net/http).
_CHUNK_ALLOWANCE: Final = 16
MAX_FRAMING_BYTES: Final = 16 * 1024
MAX_TRAILER_BYTES: Final = 16 * 1024

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_CRLF: Final = b"\r\n"
# A whole chunk of less than 16 bytes, with zeros before its size and extensions behind it as far
# as they are within its allowance. What the parser would refuse is none.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9a-z-]++"
_EXTENSIONS: Final = rb"(?:;%b(?:=%b)?+)*+" % (_TOKEN, _TOKEN)
_TINY: Final = rb"(?:(?=[^\r\n]{1,14}\r\n)0{0,12}+(?:%b)\r\n)" % b"|".join(
    rb"%x%b\r\n[\x00-\xff]{%d}" % (size, _EXTENSIONS, size) for size in range(1, 16)
)
_TINY_CHUNK: Final = re.compile(_TINY, re.IGNORECASE)
_TINY_CHUNKS: Final = re.compile(_TINY + b"*+", re.IGNORECASE)
# What follows the one digit of a size.
_BEHIND_DIGIT: Final = (b"\r", b";")
# Fewer bytes of tiny chunks are as well left as they are.
_LONG_RUN_BYTES: Final = 256


class FramingError(Exception):
    """The body is not framed as HTTP asks, or its framing is out of bounds. The text says how."""


class Framing(Protocol):
    """``take`` says how many of these bytes belong to the body; fewer than all: it has ended.

    ``runs``: where many tiny chunks follow each other in what was taken last.
    """

    ended: bool

    @property
    def runs(self) -> Sequence[tuple[int, int]]: ...
    def take(self, data: bytes) -> int: ...


class Length:
    """A body of a known number of bytes."""

    __slots__ = ("_left", "ended")
    runs: Final = ()

    def __init__(self, size: int) -> None:
        self._left = size
        self.ended = size == 0

    def take(self, data: bytes) -> int:
        taken = min(len(data), self._left)
        self._left -= taken
        self.ended = self._left == 0
        return taken


class Chunks:
    """A chunked body, trailers included."""

    __slots__ = ("_excess", "_in_trailers", "_left", "_line", "_trailer_bytes", "ended", "runs")

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # of the chunk's data and the CRLF behind it
        self._line = b""  # an unfinished size line or trailer line
        self._excess = 0
        self._in_trailers = False
        self._trailer_bytes = 0
        self.runs: list[tuple[int, int]] = []

    def take(self, data: bytes) -> int:
        """FramingError where the bytes are no chunks, or their framing is too much."""
        at, size = 0, len(data)
        if self.runs:
            self.runs = []
        while at < size and not self.ended:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                at = self._line_from(data, at)
        return at

    def _line_from(self, data: bytes, at: int) -> int:
        """Read a size line or a trailer line, or what there is of it; the place behind it."""
        if not self._line and not self._in_trailers:
            # One digit that is no zero, or more than one and the first is.
            if (data[at] == _ZERO) is not (data[at + 1 : at + 2] in _BEHIND_DIGIT):
                behind = self._tiny_from(data, at)
                if behind > at:
                    return behind
            match = _SIZE.match(data, at)
            if match is not None:  # as nearly always: a whole line
                self._begin_chunk(match)
                return match.end()
        # The CRLF itself may be split between two reads.
        end = at if self._line[-1:] == b"\r" and data[at : at + 1] == b"\n" else None
        if end is None:
            crlf = data.find(_CRLF, at)
            if crlf < 0:
                self._line += data[at:]
                self._bound(len(self._line))
                return len(data)
            end = crlf + 1
        line = self._line + data[at : end + 1]
        self._line = b""
        if self._in_trailers:
            self._bound(len(line))
            self._trailer_bytes += len(line)
            self.ended = line == _CRLF
        else:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise FramingError("a chunk does not begin with its size")
            self._begin_chunk(match)
        return end + 1

    def _tiny_from(self, data: bytes, at: int) -> int:
        """Read all tiny chunks that follow each other; the place behind them.

        None has more framing than it may; what it could have more of makes up for no other.
        """
        match = _TINY_CHUNKS.match(data, at)
        end = at if match is None else match.end()
        if end - at >= _LONG_RUN_BYTES:
            self.runs.append((at, end))
        return end

    def _begin_chunk(self, line: re.Match[bytes]) -> None:
        size = int(line[1], 16)
        framing = line.end() - line.start() + 2
        self._excess = max(0, self._excess + framing - _CHUNK_ALLOWANCE - 2 * size)
        self._bound(0)
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True

    def _bound(self, line_bytes: int) -> None:
        """FramingError if a line of so many bytes is more than may come."""
        if self._in_trailers:
            if self._trailer_bytes + line_bytes > MAX_TRAILER_BYTES:
                raise FramingError(f"its trailers are longer than {MAX_TRAILER_BYTES >> 10} KiB")
        elif self._excess + line_bytes > MAX_FRAMING_BYTES:
            raise FramingError("its chunks consist of framing: extensions, or tiny chunks")


def merged(data: bytes, runs: Sequence[tuple[int, int]]) -> bytes:
    """The same part of a body with one chunk for each of ``runs``.

    To whoever reads the body each chunk is an object, and costs far more than its bytes.
    """
    pieces: list[bytes] = []
    at = 0
    for start, end in runs:
        chunks = _TINY_CHUNK.findall(data, start, end)
        content = b"".join([chunk.partition(_CRLF)[2][:-2] for chunk in chunks])
        pieces += (data[at:start], b"%x\r\n%b\r\n" % (len(content), content))
        at = end
    return b"".join((*pieces, data[at:]))
