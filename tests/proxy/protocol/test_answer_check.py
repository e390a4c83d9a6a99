"""What an upstream's answer, or the lack of one, amounts to for the client."""

from __future__ import annotations

import pytest

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.vocabulary import Dialect, Provider
from modelsplit_proxy.protocol import answer_check
from modelsplit_proxy.protocol.answer_check import Held
from modelsplit_proxy.protocol.stream_end import Usage
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
    assert answer_check.is_stream(told, "/api/chat") == stream
    # Ollama calls a transcription one, and gives it at once.
    assert not answer_check.is_stream(told, "/v1/audio/transcriptions")


# --- A held answer ----------------------------------------------------------------------------

CUT_OFF = b'{"model":"m","response":"no no no","done":false}'


@pytest.mark.parametrize("route", ["/api/generate", "/api/chat"])
def test_an_answer_that_says_it_is_not_done_is_a_failure(route: str) -> None:
    failure = answer_check.check_whole(Dialect.OLLAMA, route, Held(CUT_OFF), Provider.LOCAL)
    assert failure is not None
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_LOCAL, Reason.UNTERMINATED)


@pytest.mark.parametrize(
    "body", [b'{"choices":[{"text":"hi', b'{"a":1}{', b'{"x":"%b"' % (b"x" * 300_000)]
)
@pytest.mark.parametrize("dialect", Dialect)
def test_half_an_answer_is_a_failure_in_every_dialect(dialect: Dialect, body: bytes) -> None:
    failure = answer_check.check_whole(dialect, "/v1/completions", Held(body), Provider.LOCAL)
    assert failure is not None
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_LOCAL, Reason.UNTERMINATED)


@pytest.mark.parametrize(
    ("dialect", "route", "body"),
    [
        (Dialect.OLLAMA, "/api/chat", b'{"message":{"content":"hi"},"done":true}'),
        (Dialect.OLLAMA, "/api/chat", b'{"message":{"content":"\\"done\\":false"},"done":true}'),
        (Dialect.OLLAMA, "/api/chat", b'{"options":{"done":false},"done":true}'),
        (Dialect.OLLAMA, "/api/chat", b'"done":false'),
        (Dialect.OLLAMA, "/api/embed", CUT_OFF),
        (Dialect.OPENAI, "/v1/completions", CUT_OFF),
    ],
)
def test_every_other_answer_is_whole(dialect: Dialect, route: str, body: bytes) -> None:
    assert answer_check.check_whole(dialect, route, Held(body), Provider.LOCAL) is None


@pytest.mark.parametrize(
    ("dialect", "route", "body", "usage"),
    [
        (
            Dialect.OLLAMA,
            "/api/chat",
            b'{"done":true,"done_reason":"stop","eval_count":8,"load_duration":1135499}',
            Usage(output_tokens=8, load_s=0.001135499, finish_reason="stop"),
        ),
        (
            Dialect.OPENAI,
            "/v1/chat/completions",
            b'{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":4}}',
            Usage(11, 4),
        ),
        (
            Dialect.OPENAI,
            "/v1/responses",
            b'{"object":"response","usage":{"input_tokens":11,"output_tokens":4}}',
            Usage(11, 4),
        ),
        (
            Dialect.ANTHROPIC,
            "/v1/messages",
            b'{"type":"message","usage":{"input_tokens":11,"output_tokens":6}}',
            Usage(11, 6),
        ),
        (Dialect.OLLAMA, "/api/embed", b'{"prompt_eval_count":3}', Usage()),
        (Dialect.OLLAMA, "/api/chat", b"no json", Usage()),
        (Dialect.OPENAI, "/v1/completions", b"[1]", Usage()),
    ],
)
def test_a_held_answer_tells_its_usage(
    dialect: Dialect, route: str, body: bytes, usage: Usage
) -> None:
    assert answer_check.usage_of(dialect, route, Held(body)) == usage


def test_a_very_large_answer_is_not_decoded_for_its_counts() -> None:
    body = b'{"eval_count":8,"response":"%b"}' % (b"x" * 300_000)
    assert answer_check.usage_of(Dialect.OLLAMA, "/api/generate", Held(body)) == Usage()
