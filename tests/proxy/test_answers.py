"""What an upstream's answer, or the lack of one, amounts to for the client."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.admission import Refusal
from modelsplit_policy.facts import Dialect, Provider, Role
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.fallback import is_cause
from modelsplit_proxy import answers
from modelsplit_proxy.answers import Held
from modelsplit_proxy.tail import Usage
from modelsplit_proxy.upstream import Fault, UpstreamError, UpstreamHead

LONG = "m" * 5000


def head(status: int, *pairs: tuple[bytes, bytes]) -> UpstreamHead:
    return UpstreamHead(status, b"", list(pairs), None)


def of_status(
    status: int, body: bytes, model: str = "qwen3:4b", provider: Provider = Provider.LOCAL
) -> Failure:
    failure = answers.failure_of_status(head(status), body, model=model, provider=provider)
    assert failure is not None
    return failure


# --- A status ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 301, 304])
def test_an_answer_is_no_failure(status: int) -> None:
    body = b'{"error":"x"}'
    assert answers.failure_of_status(head(status), body, model="m", provider=Provider.LOCAL) is None


@pytest.mark.parametrize(
    ("status", "code", "reason", "fallback"),
    [
        (400, "E_BAD_REQUEST", "upstream_rejected", False),
        (401, "E_UNAUTHORIZED", "upstream_rejected", False),
        (403, "E_FORBIDDEN", "upstream_rejected", False),
        (404, "E_MODEL_NOT_FOUND", "not_installed", True),
        (413, "E_REQUEST_TOO_LARGE", "upstream_rejected", False),
        (418, "E_BAD_REQUEST", "upstream_rejected", False),
        (429, "E_RATE_LIMITED", "upstream_rejected", False),
        (500, "E_UPSTREAM_LOCAL", "status", True),
        (502, "E_UPSTREAM_LOCAL", "status", True),
        (503, "E_OVERLOAD_THROTTLED", "upstream_busy", True),
        (599, "E_UPSTREAM_LOCAL", "status", True),
    ],
)
def test_a_status_has_its_code_and_may_or_may_not_be_answered_for(
    status: int, code: str, reason: str, *, fallback: bool
) -> None:
    failure = of_status(status, b'{"error":"why"}')
    assert (failure.code, failure.reason, is_cause(failure)) == (code, reason, fallback)


def test_only_busy_says_when_to_come_back() -> None:
    told = {s: of_status(s, b"").retry_after_s for s in (400, 404, 500, 503)}
    assert told == {400: None, 404: None, 500: None, 503: 2}


def test_a_failure_of_the_cloud_has_the_clouds_code() -> None:
    assert of_status(500, b"", provider=Provider.CLOUD).code is ErrorCode.UPSTREAM_CLOUD


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"error":"model \\"x\\" not found,\\n try pulling it"}',
            'model "x" not found, try pulling it',
        ),
        (b'{"error":{"message":"bad","type":"api_error"}}', "bad"),
        (b'{"error":{}}', '{"error":{}}'),
        (b"404 page not found\n", "404 page not found"),
        (b"<html>\r\n<p>", "<html> <p>"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "no explanation"),
        (b" \n", "no explanation"),
    ],
)
def test_the_upstreams_own_words_are_passed_on_short(body: bytes, said: str) -> None:
    assert of_status(500, body).message == f"Ollama answered 500: {said}"


@given(body=st.binary(max_size=300), status=st.integers(400, 599))
def test_any_refusal_is_one_short_encodable_line(body: bytes, status: int) -> None:
    message = of_status(status, body, model=LONG).message
    assert len(message) <= 200
    assert "\n" not in message
    orjson.dumps(message)


@pytest.mark.parametrize(
    ("body", "does"),
    [
        (b'{"error":"x"}', True),
        (b'{"error":{"message":"x"}}\n', True),
        (b'{"error":""}', False),
        (b"{}", False),
        (b"", False),
        (b"404 page not found", False),
        (b'["error"]', False),
        (b'{"error":\n"x"}', False),
    ],
)
def test_a_body_explains_if_a_client_can_show_it(body: bytes, *, does: bool) -> None:
    assert answers.explains(body) == does


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
    assert answers.is_stream(told, "/api/chat") == stream
    # Ollama calls a transcription one, and gives it at once.
    assert not answers.is_stream(told, "/v1/audio/transcriptions")


# --- No answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", Fault)
def test_a_broken_exchange_is_told_before_and_after_the_first_byte(fault: Fault) -> None:
    error = UpstreamError(fault, "seen " + LONG)
    before = answers.failure_of_error(
        error, upstream="http://127.0.0.1:11434", provider=Provider.LOCAL
    )
    late = fault is Fault.CONNECT_TIMEOUT
    code = ErrorCode.TIMEOUT_LOCAL if late else ErrorCode.UNREACHABLE_LOCAL
    assert (before.code, before.reason) == (code, fault.value)
    assert before.status == (504 if late else 502)
    assert is_cause(before)
    assert len(before.message) <= 200
    if fault in {Fault.RESET, Fault.TRUNCATED, Fault.PROTOCOL}:
        after = answers.failure_of_break(error, provider=Provider.CLOUD)
        assert (after.code, after.reason) == (ErrorCode.STREAM_BROKEN_CLOUD, fault.value)
        assert len(after.message) <= 200


def test_an_ollama_that_is_not_there_is_told_with_what_to_do() -> None:
    error = UpstreamError(Fault.REFUSED, "connection refused")
    failure = answers.failure_of_error(error, upstream="http://h:1", provider=Provider.LOCAL)
    assert failure.message == (
        "Ollama at http://h:1 is not answering (connection refused); "
        "is it running? try `systemctl status ollama`"
    )


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.ROLE_TIMEOUT, "m was not done within the role's 1.5 s"),
        (Reason.STALL, "m fell silent for 1.5 s in the middle of its answer"),
        (Reason.FIRST_BYTE_TIMEOUT, "m did not answer within 1.5 s"),
    ],
)
def test_each_timeout_says_which_bound_it_was(reason: Reason, message: str) -> None:
    failure = answers.failure_of_timeout(reason, bound_s=1.5, model="m", provider=Provider.LOCAL)
    assert (failure.code, failure.status, failure.message) == ("E_TIMEOUT_LOCAL", 504, message)


def test_a_request_that_only_passes_through_has_a_first_byte_timeout() -> None:
    failure = answers.first_byte_timeout(30.0, "/api/tags")
    assert failure.reason is Reason.FIRST_BYTE_TIMEOUT
    assert failure.message == "Ollama did not answer /api/tags within 30 s"


def test_a_request_target_is_said_back_printable() -> None:
    answers.first_byte_timeout(1.0, "/x\udcff\n").message.encode()


@pytest.mark.parametrize(
    ("reason", "what", "phrase"),
    [
        (Reason.QUEUE_FULL, "its queue is full", "Queue Full"),
        (Reason.QUEUE_TIMEOUT, "no seat came free in 8.0 s", "Queue Timeout"),
    ],
)
def test_a_refusal_is_told_with_the_numbers(reason: Reason, what: str, phrase: str) -> None:
    refusal = Refusal(
        reason=reason,
        role=Role.PLANNER,
        running=2,
        seats=2,
        waiting=64,
        max_queue=64,
        retry_after_s=7,
    )
    failure = answers.failure_of_refusal(refusal, 8.01)
    assert failure.message == (
        f"role PLANNER is overloaded: {what} (2/2 running, 64/64 waiting); retry in 7 s"
    )
    assert (failure.status, failure.phrase, failure.retry_after_s) == (503, phrase, 7)


def test_draining_says_when_to_come_back() -> None:
    failure = answers.draining()
    assert (failure.status, failure.reason, failure.retry_after_s) == (503, "draining", 2)


# --- A held answer ----------------------------------------------------------------------------

CUT_OFF = b'{"model":"m","response":"no no no","done":false}'


@pytest.mark.parametrize("route", ["/api/generate", "/api/chat"])
def test_an_answer_that_says_it_is_not_done_is_a_failure(route: str) -> None:
    failure = answers.check_whole(Dialect.OLLAMA, route, Held(CUT_OFF), Provider.LOCAL)
    assert failure is not None
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_LOCAL, Reason.UNTERMINATED)


@pytest.mark.parametrize(
    "body", [b'{"choices":[{"text":"hi', b'{"a":1}{', b'{"x":"%b"' % (b"x" * 300_000)]
)
@pytest.mark.parametrize("dialect", Dialect)
def test_half_an_answer_is_a_failure_in_every_dialect(dialect: Dialect, body: bytes) -> None:
    failure = answers.check_whole(dialect, "/v1/completions", Held(body), Provider.LOCAL)
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
    assert answers.check_whole(dialect, route, Held(body), Provider.LOCAL) is None


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
    assert answers.usage_of(dialect, route, Held(body)) == usage


def test_a_very_large_answer_is_not_decoded_for_its_counts() -> None:
    body = b'{"eval_count":8,"response":"%b"}' % (b"x" * 300_000)
    assert answers.usage_of(Dialect.OLLAMA, "/api/generate", Held(body)) == Usage()
