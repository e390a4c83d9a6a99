"""What an upstream's refusal, or the lack of an answer, amounts to for the client."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.failures import MESSAGE_MAX, ErrorCode, Failure, Reason
from modelsplit_policy.fallback import is_cause
from modelsplit_policy.hints import UNIT, OllamaSteps, ollama_steps, ollamas_steps
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.http.upstream import Fault, UpstreamError
from modelsplit_proxy.protocol import upstream_failures
from support.heads import head

LONG = "m" * 5000


def of_status(
    status: int, body: bytes, model: str = "qwen3:4b", provider: Provider = Provider.LOCAL
) -> Failure:
    failure = upstream_failures.failure_of_status(
        head(status), body, model=model, provider=provider, wall=0.0
    )
    assert failure is not None
    return failure


def test_a_model_that_the_policy_chose_is_told_with_its_role_and_how_to_install_it() -> None:
    failure = upstream_failures.not_installed(
        "qwen3:4b", role=Role.PLANNER, chosen_as="model", provider=Provider.LOCAL
    )
    assert (failure.status, failure.code, failure.reason) == (
        *(404, "E_MODEL_NOT_FOUND", "not_installed"),
    )
    assert failure.message == (
        "PLANNER's model qwen3:4b is not installed in Ollama; try `ollama pull qwen3:4b`"
    )
    cloud = upstream_failures.not_installed(
        "claude-3-opus", role=Role.CLOUD, chosen_as="model", provider=Provider.CLOUD
    )
    assert cloud.message == (
        "CLOUD's model claude-3-opus cannot be served: no cloud provider is configured and Ollama "
        "does not have it; name one of Ollama's cloud models in the policy"
    )
    long = upstream_failures.not_installed(
        LONG, role=Role.EXECUTOR, chosen_as="fallback", provider=Provider.LOCAL
    )
    assert len(long.message) <= 200


@pytest.mark.parametrize("status", [200, 201, 204, 301, 304])
def test_an_answer_is_no_failure(status: int) -> None:
    body = b'{"error":"x"}'
    failure = upstream_failures.failure_of_status(
        head(status), body, model="m", provider=Provider.LOCAL, wall=0.0
    )
    assert failure is None


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


@pytest.mark.parametrize("status", [400, 404, 405, 410, 501])
@pytest.mark.parametrize("body", [b"<html>", b" <!DOCTYPE html>", b'{"detail":"Not Found"}'])
def test_a_refusal_of_another_program_is_no_refusal_of_the_request(
    status: int, body: bytes
) -> None:
    """Its clients have done nothing wrong, and trying again may help."""
    failure = of_status(status, body)
    assert (failure.status, failure.code, failure.reason) == (502, "E_UPSTREAM_LOCAL", "no_answer")
    assert failure.message == (
        f'Ollama answered {status} with something else than a JSON object with "error"; is '
        "--upstream an Ollama?"
    )
    assert is_cause(failure)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"404 page not found", Reason.NO_ANSWER),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", Reason.NO_ANSWER),
        (405, b"", Reason.NO_ANSWER),
        (503, b"<html>no backend</html>", Reason.NO_ANSWER),
        # What explains itself as Ollama does is heard, and so is one that wants a key.
        (503, b'{"error":"busy"}', Reason.UPSTREAM_BUSY),
        (400, b'{"error":"no"}', Reason.UPSTREAM_REJECTED),
        (401, b"<html>", Reason.UPSTREAM_REJECTED),
    ],
)
def test_of_what_is_known_to_be_another_program_plain_text_is_no_refusal_either(
    status: int, body: bytes, reason: Reason
) -> None:
    failure = upstream_failures.failure_of_status(
        *(head(status), body), model="m", provider=Provider.LOCAL, wall=0.0, is_other=True
    )
    assert failure is not None
    assert failure.reason is reason


@pytest.mark.parametrize(
    ("status", "body", "provider"),
    [
        # Of a web server in front of an Ollama.
        (401, b"<html>", Provider.LOCAL),
        (403, b"<html>", Provider.LOCAL),
        (413, b"<html>", Provider.LOCAL),
        (429, b"<html>", Provider.LOCAL),
        # Of a route that an older one does not have.
        (404, b"404 page not found", Provider.LOCAL),
        (405, b"", Provider.LOCAL),
        (400, b"Client sent an HTTP request to an HTTPS server.", Provider.LOCAL),
        (400, b'{"error":{}}', Provider.LOCAL),
        # Of what Ollama asks in its cloud.
        (400, b"<html>", Provider.CLOUD),
    ],
)
def test_a_refusal_that_may_be_ollamas_is_one(status: int, body: bytes, provider: Provider) -> None:
    assert of_status(status, body, provider=provider).reason is Reason.UPSTREAM_REJECTED


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
    assert upstream_failures.explains(body) == does


@pytest.mark.parametrize("fault", Fault)
def test_a_broken_exchange_is_told_before_and_after_the_first_byte(fault: Fault) -> None:
    error = UpstreamError(fault, "seen " + LONG)
    before = upstream_failures.failure_of_error(
        error, upstream="http://127.0.0.1:11434", steps=UNIT, provider=Provider.LOCAL
    )
    late = fault is Fault.CONNECT_TIMEOUT
    code = ErrorCode.TIMEOUT_LOCAL if late else ErrorCode.UNREACHABLE_LOCAL
    assert (before.code, before.reason) == (code, fault.value)
    assert before.status == (504 if late else 502)
    # A dead server is not asked for another model.
    reached = fault in {Fault.RESET, Fault.TRUNCATED, Fault.PROTOCOL}
    assert is_cause(before) == reached
    assert len(before.message) <= 200
    if reached:
        after = upstream_failures.failure_of_break(error, steps=UNIT, provider=Provider.CLOUD)
        assert (after.code, after.reason) == (ErrorCode.STREAM_BROKEN_CLOUD, fault.value)
        assert len(after.message) <= 200


# Where it runs, and what is then told: nobody listens there, it broke off, it hangs.
ASK = "curl -m 5 http://127.0.0.1:9/api/version"
HERE = ollama_steps("127.0.0.1:9", is_here=True, has_unit=False)
AWAY = ollama_steps("gpu:11434", is_here=False, has_unit=False)


@pytest.mark.parametrize(
    ("steps", "step"),
    [
        (UNIT, "systemctl status ollama"),
        (HERE, "OLLAMA_HOST=127.0.0.1:9 ollama serve"),
        (AWAY, "curl -m 5 http://gpu:11434/api/version"),
        (ollamas_steps("127.0.0.1:2"), "modelsplit host list --admin 127.0.0.1:2"),
    ],
)
@pytest.mark.parametrize("long", ["", LONG])
def test_an_ollama_that_is_not_there_is_told_with_what_to_do(
    steps: OllamaSteps, step: str, long: str
) -> None:
    error = UpstreamError(Fault.REFUSED, "connection refused" + long)
    failure = upstream_failures.failure_of_error(
        error, upstream="http://h:1", steps=steps, provider=Provider.LOCAL
    )
    assert failure.message.startswith("Ollama at http://h:1 is not answering (connection refused")
    assert failure.message.endswith(f"; is it running? try `{step}`")
    assert len(failure.message) <= MESSAGE_MAX


@pytest.mark.parametrize(
    ("fault", "gone", "steps", "step"),
    [
        (Fault.RESET, False, UNIT, "was it stopped? try `systemctl status ollama`"),
        (Fault.TRUNCATED, False, UNIT, "was it stopped? try `systemctl status ollama`"),
        (Fault.TRUNCATED, False, HERE, f"was it stopped? try `{ASK}`"),
        (Fault.RESET, True, UNIT, "it has not answered since; try `systemctl status ollama`"),
        (Fault.RESET, True, HERE, f"it has not answered since; try `{HERE.start}`"),
        (Fault.PROTOCOL, False, UNIT, "is --upstream an Ollama?"),
    ],
)
def test_a_call_that_was_cut_is_told_what_to_do(
    fault: Fault, steps: OllamaSteps, step: str, *, gone: bool
) -> None:
    error = UpstreamError(fault, "it closed the connection unanswered" + LONG)
    before = upstream_failures.failure_of_error(
        error, upstream="http://127.0.0.1:11434", steps=steps, provider=Provider.LOCAL, gone=gone
    )
    after = upstream_failures.failure_of_break(
        error, steps=steps, provider=Provider.LOCAL, gone=gone
    )
    for failure in (before, after):
        assert failure.message.endswith(f"; {step}")
        assert "it closed the connection unanswered" in failure.message
        assert len(failure.message) <= MESSAGE_MAX


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault.RESET, "broke off before its answer: it closed the connection"),
        (Fault.TRUNCATED, "broke off its answer: it closed the connection"),
    ],
)
def test_where_in_its_answer_it_broke_off(fault: Fault, seen: str) -> None:
    failure = upstream_failures.failure_of_error(
        UpstreamError(fault, "it closed the connection"),
        upstream="http://h:1",
        steps=UNIT,
        provider=Provider.LOCAL,
    )
    assert failure.message.startswith(f"Ollama at http://h:1 {seen}; ")


def test_a_request_that_only_passes_through_has_a_first_byte_timeout() -> None:
    failure = upstream_failures.first_byte_timeout(30.0, "/api/tags")
    assert failure.reason is Reason.FIRST_BYTE_TIMEOUT
    assert failure.message == "Ollama did not answer /api/tags within 30 s"


def test_a_request_target_is_said_back_printable() -> None:
    upstream_failures.first_byte_timeout(1.0, "/x\udcff\n").message.encode()


# --- A success that is none -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Ollama answered 200 with nothing in it"),
        (b" \n", "Ollama answered 200 with nothing in it"),
        (b'{"error":"out of memory"}', "Ollama answered 200 and an error: out of memory"),
        (b'{"error":{"message":"no"}}', "Ollama answered 200 and an error: no"),
        (
            b"<html>",
            "Ollama answered 200 with something else than a song; is --upstream an Ollama?",
        ),
        (
            b'{"error":null}',
            "Ollama answered 200 with something else than a song; is --upstream an Ollama?",
        ),
        (
            b'{"error',
            "Ollama answered 200 with something else than a song; is --upstream an Ollama?",
        ),
    ],
)
def test_a_success_that_is_no_answer_says_what_came(body: bytes, said: str) -> None:
    failure = upstream_failures.no_answer(body, "a song", Provider.CLOUD)
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_CLOUD, Reason.NO_ANSWER)
    assert failure.message == said
    assert is_cause(failure)


def test_another_success_than_200_says_its_status() -> None:
    failure = upstream_failures.no_success(302, Provider.LOCAL)
    assert (failure.code, failure.reason) == (ErrorCode.UPSTREAM_LOCAL, Reason.NO_ANSWER)
    assert failure.message.startswith("Ollama answered 302 ")
    assert upstream_failures.no_byte(Provider.LOCAL).status == 502
