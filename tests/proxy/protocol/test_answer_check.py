"""What an upstream's answer, or the lack of one, amounts to for the client."""

from __future__ import annotations

import pytest

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.protocol import answer_check
from modelsplit_proxy.protocol.endpoint import Endpoint
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.held_answer import HeldAnswer
from modelsplit_proxy.protocol.stream_end import Usage
from support.endpoints import endpoint
from support.heads import head


@pytest.mark.parametrize(
    ("content_type", "stream"),
    [
        (b"application/x-ndjson", True),
        (b"text/event-stream; charset=utf-8", True),
        (b"Text/Event-Stream", True),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_an_answer_is_a_stream_by_its_type(content_type: bytes, *, stream: bool) -> None:
    told = head(200, (b"Content-Type", content_type))
    assert answer_check.is_stream(endpoint("/api/chat"), told) == stream
    # Ollama calls a transcription one, and gives it at once.
    assert not answer_check.is_stream(endpoint("/v1/audio/transcriptions"), told)


# --- A held answer ----------------------------------------------------------------------------

JSON = head(200, (b"Content-Type", b"application/json"))
CUT_OFF = b'{"model":"m","response":"no no no","done":false}'


@pytest.mark.parametrize("route", ["/api/generate", "/api/chat"])
def test_an_answer_that_says_it_is_not_done_is_a_failure(route: str) -> None:
    failure = answer_check.check_whole(endpoint(route), JSON, HeldAnswer(CUT_OFF), Provider.LOCAL)
    assert failure is not None
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_LOCAL, Reason.UNTERMINATED)


@pytest.mark.parametrize(
    "body", [b'{"choices":[{"text":"hi', b'{"a":1}{', b'{"x":"%b"' % (b"x" * 300_000)]
)
@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.label)
def test_half_an_answer_is_a_failure_on_every_route(row: Endpoint, body: bytes) -> None:
    failure = answer_check.check_whole(row, JSON, HeldAnswer(body), Provider.LOCAL)
    assert failure is not None
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_LOCAL, Reason.UNTERMINATED)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/chat", b'{"message":{"content":"hi"},"done":true}'),
        ("/api/chat", b'{"message":{"content":"\\"done\\":false"},"done":true}'),
        ("/api/chat", b'{"options":{"done":false},"done":true}'),
        ("/api/embed", b'{"embeddings":[],"done":false}'),
        ("/v1/completions", b'{"choices":[],"done":false}'),
        ("/v1/audio/transcriptions", b"hello"),
    ],
)
def test_every_other_answer_is_whole(route: str, body: bytes) -> None:
    assert answer_check.check_whole(endpoint(route), JSON, HeldAnswer(body), Provider.LOCAL) is None


OTHERS = (b"", b" ", b"null", b"[]", b'"done":false', b"<html>", b'{"status":"success"}')


@pytest.mark.parametrize("body", [*OTHERS, b'{"other":"%b"}' % (b"x" * 300_000)])
@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.label)
def test_a_body_without_the_keys_of_its_route_is_no_answer(row: Endpoint, body: bytes) -> None:
    failure = answer_check.check_whole(row, JSON, HeldAnswer(body), Provider.CLOUD)
    if row.answer_keys:
        assert failure is not None
        assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_CLOUD, Reason.NO_ANSWER)
    packed = head(200, (b"Content-Encoding", b"br"))
    assert answer_check.check_whole(row, packed, HeldAnswer(b"\xff"), Provider.CLOUD) is None


@pytest.mark.parametrize(
    ("route", "body", "usage"),
    [
        (
            "/api/chat",
            b'{"done":true,"done_reason":"stop","eval_count":8,"load_duration":1135499}',
            Usage(output_tokens=8, load_s=0.001135499, finish_reason="stop"),
        ),
        (
            "/v1/chat/completions",
            b'{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":4}}',
            Usage(11, 4),
        ),
        (
            "/v1/responses",
            b'{"object":"response","usage":{"input_tokens":11,"output_tokens":4}}',
            Usage(11, 4),
        ),
        (
            "/v1/messages",
            b'{"type":"message","usage":{"input_tokens":11,"output_tokens":6}}',
            Usage(11, 6),
        ),
        ("/api/embed", b'{"prompt_eval_count":3}', Usage()),
        ("/api/chat", b"no json", Usage()),
        ("/v1/completions", b"[1]", Usage()),
    ],
)
def test_a_held_answer_tells_its_usage(route: str, body: bytes, usage: Usage) -> None:
    assert answer_check.usage_of(endpoint(route), HeldAnswer(body)) == usage


def test_a_very_large_answer_is_not_decoded_for_its_counts() -> None:
    body = b'{"eval_count":8,"response":"%b"}' % (b"x" * 300_000)
    assert answer_check.usage_of(endpoint("/api/generate"), HeldAnswer(body)) == Usage()
