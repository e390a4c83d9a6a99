"""Answers out of bytes, whole or as they come; no I/O.

A stream that has no end marker is no answer, whatever its connection did: an answer that was cut
must not look like a short one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modelsplit_client import errors, structured, telemetry
from modelsplit_client.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_client.answers import Piece, Said
    from modelsplit_client.calls import Call
    from modelsplit_client.dialect import Speaks
    from modelsplit_client.telemetry import Telemetry


class Lines:
    """Bytes as they come, cut at line feeds and nowhere else.

    ``str.splitlines``, and so most readers of lines, also cut at characters that JSON may contain.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that ``data`` ends."""
        *ended, rest = data.split(b"\n")
        for line in ended:
            self._parts.append(line)
            yield b"".join(self._parts)
            self._parts.clear()
        if rest:
            self._parts.append(rest)

    def rest(self) -> bytes:
        """What no line feed ended."""
        return b"".join(self._parts)


def whole(speaks: Speaks, call: Call, headers: Mapping[str, str], body: bytes) -> Answer[Any]:
    """An answer in one piece. ``headers``: names in lower case. Raises CallError."""
    sent = _json(body)
    said = None if not isinstance(sent, dict) else speaks.whole(sent)
    if said is None:
        message = f"what answered {speaks.path(call)} with success gave no answer of that route"
        raise errors.broken(message, "no_answer", headers, "", code="E_UPSTREAM")
    return _answer(call, said, headers, sent)


class Reader:
    """One stream, from its first byte to its last."""

    def __init__(self, speaks: Speaks, call: Call, headers: Mapping[str, str]) -> None:
        """``headers``: of the response, names in lower case."""
        self._speaks = speaks
        self._call = call
        self._headers = headers
        self._lines = Lines()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._telling: list[Mapping[str, Any]] = []
        self._last: Mapping[str, Any] = {}
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the end marker came."""
        return self._ended

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._texts)

    @property
    def telemetry(self) -> Telemetry:
        """What the head told, before anybody knew how the stream would end."""
        return telemetry.read(self._headers, {}, (None, None))

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces in ``data``. Raises CallError where an error stands in the stream."""
        for line in self._lines.feed(data):
            yield from self._line(line)

    def end(self) -> Answer[Any]:
        """The whole answer, at the end of the body. Raises CallError where it is not whole."""
        for _ in self._line(self._lines.rest()):
            pass
        if not self._ended:
            raise self.broken("the answer ended before its end marker", "unterminated")
        said = self._speaks.collected(self._telling, self.text, "".join(self._thoughts))
        return _answer(self._call, said, self._headers, self._last)

    def broken(self, message: str, reason: str) -> errors.CallError:
        """The error of a stream that can go no further."""
        return errors.broken(message, reason, self._headers, self.text)

    def _line(self, line: bytes) -> Iterator[Piece]:
        payload = self._speaks.payload(line)
        if not payload or self._ended:
            return
        sent = _json(payload)
        if self._speaks.ends(payload, sent if isinstance(sent, dict) else {}):
            self._ended = True
        if not isinstance(sent, dict):
            if not self._ended:
                raise self.broken("a line of the answer is no JSON object", "protocol")
            return
        if sent.get("error"):
            raise errors.of_object(sent, self._headers, text=self.text)
        yield from self._taken(sent)

    def _taken(self, sent: Mapping[str, Any]) -> Iterator[Piece]:
        self._last = sent if "llm" in sent or "llm" not in self._last else self._last
        if self._speaks.tells_more(sent):
            self._telling.append(sent)
        piece = self._speaks.piece(sent)
        if piece is not None:
            self._texts.append(piece.text)
            self._thoughts.append(piece.thinking)
            yield piece


def _answer(
    call: Call, said: Said, headers: Mapping[str, str], sent: Mapping[str, Any]
) -> Answer[Any]:
    try:
        parsed = None if said.tool_calls else structured.parse(call.schema, said.text)
    except structured.UnfitError as error:
        reason = "cut" if said.finish == "length" else "schema"
        raise errors.unfit(str(error), reason, headers, said.text) from error
    return Answer(
        text=said.text,
        parsed=parsed,
        telemetry=telemetry.read(headers, sent, said.tokens),
        thinking=said.thinking,
        tool_calls=said.tool_calls,
        finish=said.finish,
        message=said.message,
        raw=sent,
    )


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
