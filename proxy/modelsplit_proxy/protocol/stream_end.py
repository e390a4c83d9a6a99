"""Did the stream say that it was whole? Sans-io: bytes in, a verdict at the end.

HTTP framing cannot tell: Ollama ends a stream cleanly after a crash, and when a model
repeats itself. Only the dialect's own end marker counts: ``"done":true`` in the last NDJSON
line, ``data: [DONE]``, a ``message_stop`` or a ``response.completed`` event. While a stream
runs, a piece costs one append; lines are looked at once, when it ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from modelsplit_policy.quantity import count, quantities

if TYPE_CHECKING:
    from collections.abc import Mapping

# The end of an Anthropic stream is two events of three lines each; twice that, should each
# line arrive on its own.
_KEPT_PIECES: Final = 12
# Far above any last line; what is longer is not one, and is not kept.
_LINE_MAX_BYTES: Final = 4 * 1024 * 1024
# Stands for the beginning of such a line: no JSON, in either kind of stream.
_TOO_LONG: Final = b"data: ..."
# Usage and errors stand in one of the last events; so many are kept however bytes were cut.
_JUDGED_EVENTS: Final = 3

_NUMBERS: Final = (
    "prompt_eval_count",
    "eval_count",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
    "total_duration",
)
# Without a prompt a model is only loaded or unloaded: known to be no tokens.
_NO_TOKENS: Final = {"prompt_eval_count": 0, "eval_count": 0}
_NO_PROMPT: Final = frozenset({"load", "unload"})

DONE: Final = b"[DONE]"
# The one with the reason for stopping, and [DONE].
_WITHOUT_TOKENS: Final = 2
# Of a response that goes no further.
_ENDED: Final = ("completed", "incomplete", "failed", "cancelled")
_FINAL_RESPONSE_EVENTS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed"}
)


class LineKind(Enum):
    """Which line of a stream one is, for whoever wants to add to the last object."""

    OTHER = auto()
    LAST = auto()  # its object is the last
    PERHAPS = auto()  # its object is the last if the next data line is [DONE]
    DONE = auto()  # [DONE]
    SILENT = auto()  # between two data lines


class Usage(NamedTuple):
    """What a finished answer says of itself. Tokens; seconds.

    None where it is silent, or says what is no quantity (``modelsplit_policy.quantity``).
    ``estimated``: it did not say how many tokens it has, and what came of it was counted.
    ``billed_prompt_tokens``: those of the prompt, each weighed by what it costs beside one that
    no cache knows; None: as many as there are.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_s: float | None = None
    prompt_eval_s: float | None = None
    eval_s: float | None = None
    total_s: float | None = None
    finish_reason: str | None = None
    estimated: bool = False
    billed_prompt_tokens: float | None = None

    @property
    def upstream_wait_s(self) -> float | None:
        """Inside the upstream, neither loading nor reading the prompt nor answering.

        None: it did not say enough, as on the OpenAI and Anthropic routes.
        """
        _, _, load_s, prompt_s, eval_s, total_s, _, _, _ = self
        if total_s is None or prompt_s is None or eval_s is None:
            return None
        return max(0.0, total_s - (load_s or 0.0) - prompt_s - eval_s)


@dataclass(frozen=True, slots=True)
class StreamVerdict:
    """``complete``: the end marker was there. ``error``: the text of an in-band error.

    ``mid_line``: the bytes stop inside a line or an event, so nothing can be added after them.
    ``ending``: what has to be added first, where the last line or event is whole but not ended.
    """

    complete: bool
    error: str | None
    mid_line: bool
    usage: Usage
    ending: bytes = b""


class Tail:
    """Keeps the last lines of a stream, however its bytes were cut.

    ``pieces``: how many ended a line. Ollama sends each token in a piece of its own.
    """

    __slots__ = ("_open", "_whole", "pieces")

    def __init__(self) -> None:
        self.pieces = 0
        self._whole: deque[bytes] = deque(maxlen=_KEPT_PIECES)
        self._open = bytearray()

    def feed(self, piece: bytes) -> None:
        if not self._open and piece.endswith(b"\n"):
            self._whole.append(piece)
            self.pieces += 1
        else:
            self._feed_partial(piece)

    def _feed_partial(self, piece: bytes) -> None:
        cut = piece.rfind(b"\n") + 1
        if cut:
            self._open += piece[:cut]
            self._whole.append(bytes(self._open))
            self._open.clear()
            self.pieces += 1
        self._open += piece[cut:]
        if len(self._open) > _LINE_MAX_BYTES:
            self._open = bytearray(_TOO_LONG)

    def open_line(self) -> bytes:
        """What has come of a line that was not ended."""
        return bytes(self._open)

    def open_event(self) -> list[bytes]:
        """The lines of an SSE event that no blank line has ended; the last may not be whole."""
        lines = self._text().splitlines()
        begins = next((at for at in range(len(lines), 0, -1) if not lines[at - 1]), 0)
        return lines[begins:]

    def lines(self) -> list[bytes]:
        """The last non-blank lines, oldest first, an unfinished one included."""
        return [line for line in self._text().splitlines() if line.strip()]

    def _text(self) -> bytes:
        return b"".join((*self._whole, self._open))


def judge_ndjson(tail: Tail) -> StreamVerdict:
    """An Ollama stream: the last line decides."""
    lines = tail.lines()
    last = json_object(lines[-1]) if lines else {}
    error = last.get("error")
    begun = tail.open_line().strip()
    return StreamVerdict(
        complete=last.get("done") is True and error is None,
        error=None if error is None else str(error),
        mid_line=bool(begun) and not last,
        usage=ollama_usage(last),
        ending=b"\n" if begun else b"",
    )


def judge_sse(tail: Tail) -> StreamVerdict:
    """An OpenAI, responses-API or Anthropic stream: the last data lines decide."""
    lines = (sse_data(line) for line in tail.lines())
    data = [line for line in lines if line is not None][-_JUDGED_EVENTS:]
    events = [json_object(line) for line in data]
    error = next((_error_text(event) for event in reversed(events) if "error" in event), None)
    begun = tail.open_event()
    if error is not None and _is_final_response(events[-1]):
        error = None  # a finished response object carries "error": null or its own
    return StreamVerdict(
        complete=bool(data) and error is None and _is_sse_end(data[-1], events[-1]),
        error=error,
        mid_line=bool(begun) and not _is_whole(begun),
        usage=_sse_usage(events),
        ending=_event_ending(tail) if begun else b"",
    )


def ndjson_data(line: bytes) -> bytes | None:
    """The JSON text in a line of an NDJSON stream."""
    return line


def sse_data(line: bytes) -> bytes | None:
    """The text of a data line; None for any other."""
    return line[5:].strip() if line.startswith(b"data:") else None


def ollama_kind(line: Mapping[str, Any]) -> LineKind:
    """Which line of an Ollama stream this object is."""
    return LineKind.LAST if line.get("done") is True else LineKind.OTHER


def event_kind(event: Mapping[str, Any]) -> LineKind:
    """Which event of an OpenAI, responses-API or Anthropic stream this object is."""
    if event.get("type") == "message_stop" or _is_final_response(event):
        return LineKind.LAST
    return LineKind.PERHAPS if "choices" in event else LineKind.OTHER


def as_ndjson_line(body: bytes) -> bytes:
    """A whole answer as one line of a stream."""
    return body.rstrip() + b"\n"


def ollama_usage(last: Mapping[str, Any]) -> Usage:
    """The counts of a final Ollama object; durations come in nanoseconds."""
    reason = _str(last.get("done_reason"))
    if reason in _NO_PROMPT:
        last = {**_NO_TOKENS, **last}
    prompt, output, load, prompt_eval, eval_, total = quantities(map(last.get, _NUMBERS))
    return Usage(
        prompt if type(prompt) is int else None,
        output if type(output) is int else None,
        # Whole nanoseconds: a rate over less than one would be no number any more.
        None if load is None else load // 1 / 1e9,
        None if prompt_eval is None else prompt_eval // 1 / 1e9,
        None if eval_ is None else eval_ // 1 / 1e9,
        None if total is None else total // 1 / 1e9,
        reason,
    )


def openai_usage(answer: Mapping[str, Any]) -> Usage:
    """``usage`` of an OpenAI, responses-API or Anthropic object, wherever it sits."""
    holder = answer.get("response") if "response" in answer else answer
    if not isinstance(holder, dict):
        return Usage()
    usage = holder.get("usage")
    if not isinstance(usage, dict):
        return Usage(finish_reason=_finish_reason(holder))
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    output = usage.get("completion_tokens", usage.get("output_tokens"))
    return Usage(
        prompt_tokens=count(prompt),
        output_tokens=count(output),
        finish_reason=_finish_reason(holder),
    )


def _finish_reason(answer: Mapping[str, Any]) -> str | None:
    """Why the model stopped, of an answer, a chunk or an event: in the upstream's own word."""
    choices = answer.get("choices")
    if isinstance(choices, list) and choices:
        return _str(_dict(choices[0]).get("finish_reason"))
    status = answer.get("status")
    if status in _ENDED:
        return _str(_dict(answer.get("incomplete_details")).get("reason")) or _str(status)
    holder = _dict(answer.get("delta")) if answer.get("type") == "message_delta" else answer
    return _str(holder.get("stop_reason"))


def _sse_usage(events: list[dict[str, Any]]) -> Usage:
    """The last that counts tokens, with the last reason for stopping."""
    usages = [openai_usage(event) for event in reversed(events)]
    counted = next((usage for usage in usages if usage.output_tokens is not None), Usage())
    reason = next((usage.finish_reason for usage in usages if usage.finish_reason), None)
    return counted._replace(finish_reason=reason)


def counted(usage: Usage, pieces: int, *, complete: bool) -> Usage:
    """``usage`` with the tokens that were seen, where it does not say how many there are.

    ``pieces``: those of its stream. The last two of one that is complete have no token.
    """
    seen = pieces - (_WITHOUT_TOKENS if complete else 0)
    if usage.output_tokens is not None or seen <= 0:
        return usage
    return usage._replace(output_tokens=seen, estimated=True)


def _is_whole(event: list[bytes]) -> bool:
    """Whether the data in these lines is an object."""
    data = [text for text in map(sse_data, event) if text is not None]
    return bool(json_object(b"\n".join(data)))


def _event_ending(tail: Tail) -> bytes:
    """What ends the event under way: its line, if that is open too, and a blank one."""
    return b"\n\n" if tail.open_line() else b"\n"


def _is_sse_end(data: bytes, event: dict[str, Any]) -> bool:
    return data == DONE or event.get("type") == "message_stop" or _is_final_response(event)


def _is_final_response(event: Mapping[str, Any]) -> bool:
    return event.get("type") in _FINAL_RESPONSE_EVENTS


def _error_text(event: dict[str, Any]) -> str | None:
    error = event.get("error")
    if error is None:
        return None
    if isinstance(error, dict):
        return str(error.get("message", error))
    return str(error)


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object in these bytes; empty for anything else."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _str(value: object) -> str | None:
    return value if isinstance(value, str) else None
