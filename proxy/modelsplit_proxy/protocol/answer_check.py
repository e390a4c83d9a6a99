"""Whether an upstream's answer is whole, and what it says it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider
from modelsplit_proxy.protocol import upstream_failures
from modelsplit_proxy.protocol.stream_end import Usage, json_object

if TYPE_CHECKING:
    from modelsplit_policy.vocabulary import Provider
    from modelsplit_proxy.http.upstream import UpstreamHead
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.protocol.held_answer import HeldAnswer

_STREAM_TYPES: Final = (b"application/x-ndjson", b"text/event-stream")
_CUT: Final = "Ollama's answer stopped in the middle, though it was framed as whole; ask again"
_CUT_OFF: Final = (
    "the model was cut off before it was done (Ollama stops a model that repeats itself)"
)


def is_stream(endpoint: Endpoint, head: UpstreamHead) -> bool:
    """By what the answer is, not by what the request asked: the upstream has the last word."""
    return not endpoint.is_held and head.get(b"content-type").lower().startswith(_STREAM_TYPES)


def check_whole(
    endpoint: Endpoint, head: UpstreamHead, held: HeldAnswer, provider: Provider
) -> Failure | None:
    """A held 200 that only looks like an answer: none, half of one, or Ollama gave up."""
    fields = None if held.is_large else held.fields
    if not fields and _is_cut(held):
        return _unterminated(_CUT, provider)
    keys = endpoint.answer_keys
    if keys and not (_spells(held, keys) if fields is None else keys & fields.keys()):
        # An encoded answer is nobody's to judge.
        return None if head.get(b"content-encoding") else _no_answer(endpoint, held, provider)
    text = None if endpoint.unfinished is None else endpoint.unfinished(held)
    return None if text is None else _unterminated(text, provider)


def _no_answer(endpoint: Endpoint, held: HeldAnswer, provider: Provider) -> Failure:
    keys = " or ".join(f'"{key}"' for key in sorted(endpoint.answer_keys))
    wanted = f"a JSON object with {keys}"
    return upstream_failures.no_answer(held.body, wanted, provider)


def _unterminated(text: str, provider: Provider) -> Failure:
    code = for_provider(ErrorCode.UPSTREAM_LOCAL, provider)
    return Failure(code, Reason.UNTERMINATED, text, "Answer Unterminated")


def _spells(held: HeldAnswer, keys: frozenset[str]) -> bool:
    """Whether a large object has one of the keys, as far as its bytes say without decoding."""
    is_object = held.body.lstrip()[:1] == b"{"
    return is_object and any(b'"%b"' % key.encode() in held.body for key in keys)


def _is_cut(held: HeldAnswer) -> bool:
    """True for a JSON object without its end; large ones are judged by their last byte."""
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


# Why a held answer is not the whole of one, in its dialect; None: it is.


def not_done(held: HeldAnswer) -> str | None:
    ends = held.body[:4096] + held.body[-4096:] if held.is_large else b""
    worth_decoding = not held.is_large or b'"done":false' in ends
    return _CUT_OFF if worth_decoding and held.fields.get("done") is False else None


def no_finish_reason(held: HeldAnswer) -> str | None:
    return _CUT_OFF if _lacks(_first_choice(held.fields), "finish_reason") else None


def no_stop_reason(held: HeldAnswer) -> str | None:
    return _CUT_OFF if _lacks(held.fields, "stop_reason") else None


def without_a_word(held: HeldAnswer) -> str | None:
    if held.body.strip():
        return None
    return "Ollama ended the transcription without a word; it does so when it fails midway"


def _lacks(fields: dict[str, Any], key: str) -> bool:
    """Ollama leaves the reason out, or null, where a model was cut off."""
    return bool(fields) and fields.get(key) is None


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return {}
    return choices[0]


def is_object(body: bytes) -> bool:
    """True if the body is one whole JSON object."""
    return bool(json_object(body))


def usage_of(endpoint: Endpoint, held: HeldAnswer) -> Usage:
    """Counts and durations of a held answer."""
    if held.is_large or not endpoint.counts:
        return Usage()
    return endpoint.wire.usage(held.fields)
