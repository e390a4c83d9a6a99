"""A provider's answer in the form of the Messages API: read as it comes, or whole.

What it says goes to a ``Writer`` of the client's dialect, which gives the bytes to pass on.
Events, blocks and fields of unknown kinds are passed over. What is of a known kind and cannot be
read leaves a hole, and an answer with one is not whole: BrokenAnswerError. Values in, values out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from modelsplit_policy.quantity import count
from modelsplit_proxy.protocol.stream_end import Usage, json_object
from modelsplit_proxy.providers import proven_thoughts
from modelsplit_proxy.providers.events import BrokenAnswerError
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
# Why an answer ended that may stop in the middle of anything.
AT_LIMIT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
# The index of a block that has none.
_NOWHERE: Final = -1
# Far above any answer: what is kept of one is bounded.
_ANSWER_BYTES: Final = 32 * 1024 * 1024
_BLOCKS: Final = 10_000
# What an answer is called whose provider does not say.
_UNNAMED: Final = "unnamed"


class Counts(NamedTuple):
    """Tokens, as the provider counts them; None: it has not said.

    ``fresh``: of the prompt, neither read from the cache nor written to it. ``cached_in_full``:
    of those, what was read from a cache and is charged in full. ``thought``: of the output, what
    nobody was told.
    """

    fresh: int | None = None
    cache_read: int = 0
    cache_written: int = 0
    cache_written_long: int = 0
    output: int | None = None
    cached_in_full: int = 0
    thought: int = 0

    @property
    def cached(self) -> int:
        """Of the prompt, what was read from a cache, whatever it costs."""
        return self.cache_read + self.cached_in_full

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
    def is_sound(self) -> bool:
        """Whether the arguments are an object."""
        return self.arguments.strip() in {"", "{}"} or bool(json_object(self.arguments.encode()))

    @property
    def values(self) -> dict[str, Any]:
        """The arguments as values; as they stand, if they were cut."""
        return (
            json_object(self.arguments.encode()) if self.is_sound else {"arguments": self.arguments}
        )


@dataclass(slots=True)
class Answer:
    """What has been said. ``stop_reason``: None, it goes on.

    ``text``, ``thinking`` and ``thoughts`` are those of an answer that came whole; of a stream
    nobody keeps them. ``thoughts``: each block of thoughts, and the seal that proves it.
    """

    id: str = ""
    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    stop_reason: str | None = None
    counts: Counts = field(default=Counts())
    thoughts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        """Whether it ended at a limit of its length."""
        return self.stop_reason in AT_LIMIT


class Writer(Protocol):
    """Writes an answer in a client's dialect; each call gives bytes to pass on, or none.

    ``sealed``: a block of thoughts has ended; what proves it to be the provider's own.
    """

    def began(self, answer: Answer) -> bytes: ...
    def text(self, text: str) -> bytes: ...
    def thinking(self, text: str) -> bytes: ...
    def sealed(self, seal: str) -> bytes: ...
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
        self._has_begun = False
        # Every block's kind by its index.
        self._kinds: dict[int, str] = {}
        # Open calls by the index of their block: which call it is; None: it is the answer.
        self._open: dict[int, int | None] = {}
        self._given: dict[int, str] = {}
        # Of each call, what has come of its arguments.
        self._pieces: dict[int, list[str]] = {}
        # Calls that have ended and whose arguments are no object: they may have been cut.
        self._doubtful: list[int] = []
        self._bytes = 0
        self.answer = Answer()
        self.is_whole = False

    def feed(self, event: Mapping[str, Any]) -> bytes:
        """What one event says, in the client's dialect; AnswerError, BrokenAnswerError."""
        return b"" if self.is_whole else self._read(event)

    def _read(self, event: Mapping[str, Any]) -> bytes:
        index = event.get("index")
        at = index if type(index) is int else _NOWHERE
        match event.get("type"):
            case "message_start":
                return self._start(_object(event.get("message")))
            case "content_block_start":
                return self._begun() + self._block(at, _object(event.get("content_block")))
            case "content_block_delta":
                return self._begun() + self._delta(at, _object(event.get("delta")))
            case "content_block_stop":
                return self._block_end(at)
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                return self._begun() + self._end()
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
        self.answer.counts = counts_of(message.get("usage"), self.answer.counts)
        self.answer.id = self.answer.id or _text(message.get("id"))
        return self._begun()

    def _begun(self) -> bytes:
        """What stands before all else, once."""
        if self._has_begun:
            return b""
        self._has_begun = True
        self.answer.id = self.answer.id or _UNNAMED
        return self._writer.began(self.answer)

    def _block(self, index: int, block: Mapping[str, Any]) -> bytes:
        kind = _text(block.get("type"))
        self._kinds[index] = kind
        if len(self._kinds) > _BLOCKS:
            raise BrokenAnswerError("it has more blocks than anybody can read")
        match kind:
            case "text":
                return self._say(_piece(block.get("text")))
            case "thinking":
                return self._think(_piece(block.get("thinking")))
            case "redacted_thinking":
                return self._writer.sealed(
                    proven_thoughts.seal_of_redacted(self._kept(block.get("data")))
                )
            case "tool_use":
                if block.get("input"):  # given at once, as the API does not
                    self._given[index] = self._kept(orjson.dumps(block["input"]).decode())
                return self._call(index, block)
            case _:
                return b""

    def _call(self, index: int, block: Mapping[str, Any]) -> bytes:
        name = _name_of(block)
        if self._by_tool and name == ANSWER_TOOL:
            self._open[index] = None
            return b""
        self._open[index] = number = len(self.answer.calls)
        call = ToolCall(_id_of(block, number), name)
        self.answer.calls.append(call)
        return self._writer.call_began(number, call)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> bytes:
        match delta.get("type"):
            case "text_delta":
                return self._say(_piece(delta.get("text")))
            case "thinking_delta":
                return self._think(_piece(delta.get("thinking")))
            case "signature_delta":
                signature = self._kept(delta.get("signature"))
                return self._writer.sealed(proven_thoughts.seal_of(signature))
            case "input_json_delta":
                return self._arguments(index, _piece(delta.get("partial_json")))
            case _:
                return b""

    def _arguments(self, index: int, text: str) -> bytes:
        if not text:
            return b""
        if index not in self._open:
            if self._kinds.get(index, _CALLS_A_TOOL) == _CALLS_A_TOOL:
                raise BrokenAnswerError("it has a part of a call that is not open")
            return b""  # of a tool of the provider's own
        self._given.pop(index, None)
        number = self._open[index]
        if number is None:
            return self._say(text)
        self._pieces.setdefault(number, []).append(self._kept(text))
        return self._writer.call_arguments(number, text)

    def _block_end(self, index: int) -> bytes:
        if index not in self._open:
            return b""
        pieces = self._arguments(index, self._given.get(index, ""))
        number = self._open.pop(index)
        if number is None:
            return pieces
        call = self.answer.calls[number]
        call.arguments = "".join(self._pieces.pop(number, ()))
        if not call.is_sound:
            self._doubtful.append(number)
            return pieces
        return pieces + self._writer.call_ended(number, call)

    def _end(self) -> bytes:
        """The last event: is everything there?"""
        pieces = [self._block_end(index) for index in list(self._open)]
        if self.answer.stop_reason is None:
            raise BrokenAnswerError("it ended without saying why")
        if self._doubtful and not self.answer.is_cut:
            raise BrokenAnswerError("the arguments of a call are no JSON object")
        pieces += [
            self._writer.call_ended(number, self.answer.calls[number]) for number in self._doubtful
        ]
        self.is_whole = True
        return b"".join((*pieces, self._writer.ended(self.answer)))

    def _say(self, text: str) -> bytes:
        return self._writer.text(self._kept(text)) if text else b""

    def _think(self, text: str) -> bytes:
        return self._writer.thinking(self._kept(text)) if text else b""

    def _kept(self, value: object) -> str:
        """A text, counted: writers keep much of it to the end."""
        text = _piece(value)
        self._bytes += len(text.encode("utf-8", "surrogatepass"))
        if self._bytes > _ANSWER_BYTES:
            raise BrokenAnswerError("it is longer than anybody can read")
        return text

    def _message_delta(self, event: Mapping[str, Any]) -> None:
        reason = _object(event.get("delta")).get("stop_reason")
        if isinstance(reason, str):
            self.answer.stop_reason = _reason(reason, self.answer)
        self.answer.counts = counts_of(event.get("usage"), self.answer.counts)


def whole(message: Mapping[str, Any], *, answers_by_tool: bool) -> Answer:
    """An answer that came at once; AnswerError if it is none, BrokenAnswerError if half of one."""
    if message.get("type") == "error":
        raise error_of(message)
    answer = Answer(id=_text(message.get("id")) or _UNNAMED)
    answer.counts = counts_of(message.get("usage"), answer.counts)
    reason = message.get("stop_reason")
    if not isinstance(reason, str):
        raise BrokenAnswerError("it ended without saying why")
    answer.stop_reason = reason
    for block in _blocks(message.get("content")):
        match block.get("type"):
            case "text":
                answer.text += _piece(block.get("text"))
            case "thinking" | "redacted_thinking":
                _keep_thoughts(answer, block)
            case "tool_use":
                _keep_call(answer, block, answers_by_tool=answers_by_tool)
            case _:
                pass
    answer.stop_reason = _reason(reason, answer)
    return answer


def _keep_thoughts(answer: Answer, block: Mapping[str, Any]) -> None:
    text, signature = _piece(block.get("thinking")), _text(block.get("signature"))
    seal = proven_thoughts.seal_of(signature) if signature else ""
    if block["type"] == "redacted_thinking":
        seal = proven_thoughts.seal_of_redacted(_text(block.get("data")))
    answer.thinking += text
    answer.thoughts.append((text, seal))


def _keep_call(answer: Answer, block: Mapping[str, Any], *, answers_by_tool: bool) -> None:
    values, name = block.get("input", {}), _name_of(block)
    if isinstance(values, dict):
        arguments = orjson.dumps(values).decode()
    elif isinstance(values, str) and answer.is_cut:
        arguments = values  # as far as they came
    else:
        raise BrokenAnswerError("the arguments of a call are no JSON object")
    if answers_by_tool and name == ANSWER_TOOL:
        answer.text += arguments
    else:
        call = ToolCall(_id_of(block, len(answer.calls)), name, arguments)
        answer.calls.append(call)


def bare_id(answer: Answer) -> str:
    """Its id, without what a provider's dialect puts before it."""
    return answer.id.removeprefix("msg_").removeprefix("chatcmpl-")


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
    in_full = count(given.get("cached_in_full"))
    thought = count(_object(given.get("output_tokens_details")).get("thinking_tokens"))
    counts = before
    if written is not None:
        long = min(long, written)
        counts = counts._replace(cache_written=written - long, cache_written_long=long)
    return counts._replace(
        fresh=before.fresh if fresh is None else fresh,
        cache_read=before.cache_read if read is None else read,
        output=before.output if output is None else output,
        cached_in_full=before.cached_in_full if in_full is None else in_full,
        thought=before.thought if thought is None else thought,
    )


def error_of(event: Mapping[str, Any]) -> AnswerError:
    error = _object(event.get("error"))
    return AnswerError(_text(error.get("type")) or "error", _text(error.get("message")))


def _reason(reason: str, answer: Answer) -> str:
    """Where the answer came by a tool, calling it is no call of a tool to the client."""
    return "end_turn" if reason == _CALLS_A_TOOL and not answer.calls else reason


def _blocks(value: object) -> Iterator[dict[str, Any]]:
    if not isinstance(value, list):
        raise BrokenAnswerError("it has no content")
    yield from (block for block in value if isinstance(block, dict))


def _name_of(block: Mapping[str, Any]) -> str:
    name = block.get("name")
    if not isinstance(name, str) or not name:
        raise BrokenAnswerError("a call does not say of which tool")
    return name


def _id_of(block: Mapping[str, Any], number: int) -> str:
    """What a result will be told by; some servers give none."""
    return _text(block.get("id")) or f"call_{number}"


def _piece(value: object) -> str:
    """A text that is part of the answer; none is an empty one."""
    if value is None or isinstance(value, str):
        return value or ""
    raise BrokenAnswerError("a piece of it is not a text")


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
