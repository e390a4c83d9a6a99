"""A provider's answer in the form of the Messages API: read as it comes, or whole.

What it says goes to a ``Writer`` of the client's dialect, which gives the bytes to pass on.
Events and blocks of unknown kinds are passed over. Values in, values out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from modelsplit_policy.quantity import count
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.providers.question import ANSWER_TOOL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What cached tokens cost, in tokens of a prompt that are not: read; written for five minutes;
# written for an hour.
_READ: Final = 0.1
_WRITTEN: Final = 1.25
_WRITTEN_LONG: Final = 2.0
# Bytes of an answer in one token, where nobody has counted: few, so that many are reckoned with.
_BYTES_PER_TOKEN: Final = 3
_CALLS_A_TOOL: Final = "tool_use"
# The index of a block that has none.
_NOWHERE: Final = -1


class Counts(NamedTuple):
    """Tokens, as the provider counts them; None: it has not said.

    ``fresh``: of the prompt, neither read from the cache nor written to it.
    """

    fresh: int | None = None
    cache_read: int = 0
    cache_written: int = 0
    cache_written_long: int = 0
    output: int | None = None

    @property
    def prompt(self) -> int | None:
        """All tokens of the prompt."""
        if self.fresh is None:
            return None
        return self.fresh + self.cache_read + self.cache_written + self.cache_written_long

    @property
    def billed(self) -> float | None:
        """The same, each weighed by what it costs beside one that is not cached."""
        if self.fresh is None:
            return None
        cached = _WRITTEN * self.cache_written + _WRITTEN_LONG * self.cache_written_long
        return self.fresh + _READ * self.cache_read + cached


@dataclass(slots=True)
class ToolCall:
    """A call of a tool. ``arguments``: JSON text."""

    id: str
    name: str
    arguments: str = ""

    @property
    def values(self) -> Any:
        """The arguments as values; as they stand, if they are no JSON."""
        try:
            return orjson.loads(self.arguments or "{}")
        except orjson.JSONDecodeError:
            return {"arguments": self.arguments}


@dataclass(slots=True)
class Answer:
    """What has been said. ``stop_reason``: None, it goes on.

    ``text`` and ``thinking`` are those of an answer that came whole; of a stream nobody keeps them.
    """

    id: str = ""
    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    stop_reason: str | None = None
    counts: Counts = field(default=Counts())


class Writer(Protocol):
    """Writes an answer in a client's dialect; each call gives bytes to pass on, or none."""

    def began(self, answer: Answer) -> bytes: ...
    def text(self, text: str) -> bytes: ...
    def thinking(self, text: str) -> bytes: ...
    def call_began(self, index: int, call: ToolCall) -> bytes: ...
    def call_arguments(self, index: int, text: str) -> bytes: ...
    def call_ended(self, index: int, call: ToolCall) -> bytes: ...
    def ended(self, answer: Answer) -> bytes: ...
    def whole(self, answer: Answer) -> bytes: ...


class AnswerError(Exception):
    """The provider says inside its answer that it failed. ``kind``: its word for how."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class AnswerStream:
    """Reads the events of one answer. ``is_whole``: its last event has come."""

    def __init__(self, writer: Writer, *, answers_by_tool: bool) -> None:
        self._writer = writer
        self._by_tool = answers_by_tool
        # Open calls by the index of their block: which call it is; None: it is the answer.
        self._open: dict[int, int | None] = {}
        self._given: dict[int, str] = {}
        self._bytes = 0
        self.answer = Answer()
        self.is_whole = False

    def feed(self, event: Mapping[str, Any]) -> bytes:
        """What one event says, in the client's dialect; AnswerError."""
        index = event.get("index")
        at = index if type(index) is int else _NOWHERE
        match event.get("type"):
            case "message_start":
                return self._start(_object(event.get("message")))
            case "content_block_start":
                return self._block(at, _object(event.get("content_block")))
            case "content_block_delta":
                return self._delta(at, _object(event.get("delta")))
            case "content_block_stop":
                return self._block_end(at)
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                self.is_whole = True
                return self._writer.ended(self.answer)
            case "error":
                raise error_of(event)
            case _:
                pass
        return b""

    @property
    def usage(self) -> Usage:
        """What the answer has used so far; what it did not say is reckoned, and marked so."""
        answer = self.answer
        usage = usage_of(answer)
        if self.is_whole or answer.counts.fresh is None:
            return usage
        reckoned = -(-self._bytes // _BYTES_PER_TOKEN)
        reported = answer.counts.output or 0
        return usage._replace(output_tokens=max(reported, reckoned), estimated=True)

    def _start(self, message: Mapping[str, Any]) -> bytes:
        self.answer.id = _text(message.get("id"))
        self.answer.counts = counts_of(message.get("usage"), self.answer.counts)
        return self._writer.began(self.answer)

    def _block(self, index: int, block: Mapping[str, Any]) -> bytes:
        match block.get("type"):
            case "text":
                return self._say(_text(block.get("text")))
            case "thinking":
                return self._think(_text(block.get("thinking")))
            case "tool_use":
                if block.get("input"):  # given at once, as the API does not
                    self._given[index] = orjson.dumps(block["input"]).decode()
                return self._call(index, block)
            case _:
                return b""

    def _call(self, index: int, block: Mapping[str, Any]) -> bytes:
        name = _text(block.get("name"))
        if self._by_tool and name == ANSWER_TOOL:
            self._open[index] = None
            return b""
        call = ToolCall(_text(block.get("id")), name)
        self._open[index] = number = len(self.answer.calls)
        self.answer.calls.append(call)
        return self._writer.call_began(number, call)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> bytes:
        match delta.get("type"):
            case "text_delta":
                return self._say(_text(delta.get("text")))
            case "thinking_delta":
                return self._think(_text(delta.get("thinking")))
            case "input_json_delta":
                return self._arguments(index, _text(delta.get("partial_json")))
            case _:
                return b""

    def _arguments(self, index: int, text: str) -> bytes:
        if index not in self._open or not text:
            return b""
        self._given.pop(index, None)
        number = self._open[index]
        if number is None:
            return self._say(text)
        self._bytes += len(text)
        self.answer.calls[number].arguments += text
        return self._writer.call_arguments(number, text)

    def _block_end(self, index: int) -> bytes:
        if index not in self._open:
            return b""
        pieces = self._arguments(index, self._given.get(index, ""))
        number = self._open.pop(index)
        if number is None:
            return pieces
        return pieces + self._writer.call_ended(number, self.answer.calls[number])

    def _say(self, text: str) -> bytes:
        self._bytes += len(text.encode("utf-8", "surrogatepass"))
        return self._writer.text(text) if text else b""

    def _think(self, text: str) -> bytes:
        self._bytes += len(text.encode("utf-8", "surrogatepass"))
        return self._writer.thinking(text) if text else b""

    def _message_delta(self, event: Mapping[str, Any]) -> None:
        reason = _object(event.get("delta")).get("stop_reason")
        if isinstance(reason, str):
            self.answer.stop_reason = _reason(reason, self.answer)
        self.answer.counts = counts_of(event.get("usage"), self.answer.counts)


def whole(message: Mapping[str, Any], *, answers_by_tool: bool) -> Answer:
    """An answer that came at once; AnswerError if it is none."""
    if message.get("type") == "error":
        raise error_of(message)
    answer = Answer(id=_text(message.get("id")), counts=counts_of(message.get("usage"), Counts()))
    for block in _blocks(message.get("content")):
        match block.get("type"):
            case "text":
                answer.text += _text(block.get("text"))
            case "thinking":
                answer.thinking += _text(block.get("thinking"))
            case "tool_use":
                arguments = orjson.dumps(_object(block.get("input"))).decode()
                name = _text(block.get("name"))
                if answers_by_tool and name == ANSWER_TOOL:
                    answer.text += arguments
                else:
                    answer.calls.append(ToolCall(_text(block.get("id")), name, arguments))
            case _:
                pass
    reason = message.get("stop_reason")
    answer.stop_reason = _reason(reason, answer) if isinstance(reason, str) else None
    return answer


def usage_of(answer: Answer) -> Usage:
    """What an answer says of its tokens and its end."""
    counts = answer.counts
    return Usage(
        prompt_tokens=counts.prompt,
        output_tokens=counts.output,
        finish_reason=answer.stop_reason,
        billed_prompt_tokens=counts.billed,
    )


def counts_of(usage: object, before: Counts) -> Counts:
    """What ``usage`` counts; where it is silent, what was counted ``before``."""
    given = _object(usage)
    written = count(given.get("cache_creation_input_tokens"))
    long = count(_object(given.get("cache_creation")).get("ephemeral_1h_input_tokens")) or 0
    fresh, read = count(given.get("input_tokens")), count(given.get("cache_read_input_tokens"))
    output = count(given.get("output_tokens"))
    counts = before
    if written is not None:
        long = min(long, written)
        counts = counts._replace(cache_written=written - long, cache_written_long=long)
    return counts._replace(
        fresh=before.fresh if fresh is None else fresh,
        cache_read=before.cache_read if read is None else read,
        output=before.output if output is None else output,
    )


def error_of(event: Mapping[str, Any]) -> AnswerError:
    error = _object(event.get("error"))
    return AnswerError(_text(error.get("type")) or "error", _text(error.get("message")))


def _reason(reason: str, answer: Answer) -> str:
    """Where the answer came by a tool, calling it is no call of a tool to the client."""
    return "end_turn" if reason == _CALLS_A_TOOL and not answer.calls else reason


def _blocks(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (block for block in value if isinstance(block, dict))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
