"""Whether an upstream's answer is whole, and what it says it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol.routes import TRANSCRIPTIONS
from modelsplit_proxy.protocol.stream_end import Usage, ollama_usage, openai_usage

if TYPE_CHECKING:
    from modelsplit_policy.vocabulary import Provider
    from modelsplit_proxy.http.upstream import UpstreamHead

_STREAM_TYPES: Final = (b"application/x-ndjson", b"text/event-stream")
# Larger JSON answers are embeddings; their counts are not worth the loop's time.
_USAGE_LIMIT_BYTES: Final = 256 * 1024
_EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings"})


def is_stream(head: UpstreamHead, label: str) -> bool:
    """By what the answer is, not by what the request asked: the upstream has the last word.

    But for a transcription: Ollama runs it as a stream, says so in the head, and then gives
    the text at once.
    """
    if label == TRANSCRIPTIONS:
        return False
    return head.get(b"content-type").lower().startswith(_STREAM_TYPES)


class Held:
    """A held answer: its bytes, and what they decode to, at most once and only if asked.

    ``is_large``: too large to be worth decoding for what its ends say as well.
    """

    __slots__ = ("_fields", "body", "is_large")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.is_large = len(body) > _USAGE_LIMIT_BYTES
        self._fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object it is; empty if it is none."""
        if self._fields is None:
            self._fields = object_in(self.body)
        return self._fields


def check_whole(dialect: Dialect, label: str, held: Held, provider: Provider) -> Failure | None:
    """A held 200 that only looks like an answer: half of one, or Ollama gave up."""
    if label == TRANSCRIPTIONS and not held.body.strip():
        text = "Ollama ended the transcription without a word; it does so when it fails midway"
    elif _is_cut(held):
        text = "Ollama's answer stopped in the middle, though it was framed as whole"
    elif _gave_up(dialect, label, held):
        text = "the model was cut off before it was done (Ollama stops a model that repeats itself)"
    else:
        return None
    code = for_provider(ErrorCode.UPSTREAM_LOCAL, provider)
    return Failure(code, Reason.UNTERMINATED, text, "Answer Unterminated")


def _is_cut(held: Held) -> bool:
    """True for a JSON object without its end; large ones are judged by their last byte."""
    if not held.is_large and held.fields:
        return False
    text = held.body.strip()
    if not text.startswith(b"{"):
        return False
    return not text.endswith(b"}") if held.is_large else not _decodes(text)


def _decodes(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _gave_up(dialect: Dialect, label: str, held: Held) -> bool:
    """Whether an answer that is not a stream says, in its dialect, that it is not done."""
    match label:
        case "/api/generate" | "/api/chat":
            ends = held.body[:4096] + held.body[-4096:] if held.is_large else b""
            worth_decoding = not held.is_large or b'"done":false' in ends
            return worth_decoding and held.fields.get("done") is False
        case "/v1/chat/completions" | "/v1/completions" if dialect is Dialect.OPENAI:
            return _says_none(_first_choice(held.fields), "finish_reason")
        case "/v1/messages":
            return _says_none(held.fields, "stop_reason")
        case _:
            return False


def _says_none(fields: dict[str, Any], key: str) -> bool:
    """Ollama leaves the reason out, or null, where a model was cut off."""
    return bool(fields) and fields.get(key) is None


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return {}
    return choices[0]


def is_object(body: bytes) -> bool:
    """True if the body is one whole JSON object."""
    return bool(object_in(body))


def usage_of(dialect: Dialect, label: str, held: Held) -> Usage:
    """Counts and durations of a held answer."""
    if held.is_large or label in _EMBEDDINGS:
        return Usage()
    return ollama_usage(held.fields) if dialect is Dialect.OLLAMA else openai_usage(held.fields)


def object_in(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
