"""Failures as each kind of client sees them: one line, all the fields, words that help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_policy.failures import ERRORS, ErrorCode
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records.values import log_fields
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import DIALECTS, ERROR_FIELDS, call
from support.harness import running, warm
from support.scripted import response, scripted

if TYPE_CHECKING:
    from support.harness import Running
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

QUICK = SimConfig(tokens=3, num_parallel=8, max_loaded=4)
NATIVE = "/api/generate"
LONG = "m" * 5000
# As long a name as Ollama reads.
LONG_NAME = f"{'h' * 350}/{'n' * 80}/{'m' * 80}:{'t' * 80}"


async def ask(
    up: Running, route: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
) -> Answer:
    async with up.client() as client:
        return await client.request("POST", route, body, headers)


def told(answer: Answer, route: str) -> dict[str, Any]:
    """The fields of an error of ours, after checking the shape around them."""
    assert answer["Content-Type"] == "application/json"
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    body = answer.json
    if route.startswith("/api/"):
        fields, message = body, body["error"]
    else:
        assert set(body) == {"type", "error", "request_id"}
        assert body["type"] == "error"
        fields, message = body["error"], body["error"]["message"]
        assert fields["param"] is None
        assert fields["code"] == fields["error_code"]
        assert fields["type"] == ERRORS[ErrorCode(fields["error_code"])].error_type
        assert body["request_id"] == fields["request_id"]
    assert fields.keys() >= ERROR_FIELDS
    assert isinstance(message, str)
    assert 10 < len(message) <= 200
    assert "\n" not in message
    assert fields["request_id"] == answer["X-Request-Id"] == answer["request-id"]
    assert answer["X-LLM-Error-Code"] == fields["error_code"]
    assert answer.phrase not in {"", "OK"}
    spec = ERRORS[ErrorCode(fields["error_code"])]
    assert fields["reason"] in spec.reasons
    assert answer.get("x-should-retry") == ("false" if spec.retry is False else None)
    # A number that is said is the one that is sent.
    for seconds in re.findall(r"(?:retry|asked again) in (\d+) s", message):
        assert answer["Retry-After"] == seconds
    if fields["error_code"] in {"E_OVERLOAD_THROTTLED", "E_RATE_LIMITED"}:
        assert 1 <= int(answer["Retry-After"]) <= 30
    else:
        assert answer.get("Retry-After") is None
        assert "overloaded" not in message
    return dict(fields)


@pytest.mark.parametrize("route", DIALECTS)
@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "reason"),
    [
        (b'{"model":', {}, 400, "E_BAD_REQUEST", "bad_json"),
        (b"", {}, 400, "E_BAD_REQUEST", "bad_json"),
        (b"[1]", {}, 400, "E_BAD_REQUEST", "bad_json"),
        (b'{"model":"a","model":"b"}', {}, 400, "E_BAD_REQUEST", "ambiguous_model"),
        (b'{"model":"x"}', {"X-LLM-Role": "X" * 500}, 400, "E_BAD_REQUEST", "unknown_role"),
        (b'{"model":"x"}', {"X-LLM-No-Fallback": "?"}, 400, "E_BAD_REQUEST", "bad_header"),
        (b"\x1f\x8b", {"Content-Encoding": "gzip"}, 400, "E_BAD_REQUEST", "compressed_body"),
        (b'{"model":"cloud"}', {}, 403, "E_BUDGET_NOT_APPROVED", "no_approval"),
        (b'{"model":"planner"}', {"X-LLM-Escalate": "x"}, 403, "E_ESCALATION_DENIED",
         "unknown_condition"),
        (b'{"model":"x"}', {"Host": "evil.example"}, 403, "E_FORBIDDEN", "host_denied"),
        (b'{"model":"x"}', {"Origin": "http://evil.example"}, 403, "E_FORBIDDEN", "origin_denied"),
        (b'{"model":"x"}', {"Via": "1.1 modelsplit"}, 508, "E_LOOP", "via"),
    ],
)  # fmt: skip
async def test_a_refusal_in_every_dialect(
    route: str, body: bytes, headers: dict[str, str], status: int, code: str, reason: str
) -> None:
    async with running(QUICK) as up:
        answer = await ask(up, route, body, headers)
        assert answer.status == status
        fields = told(answer, route)
        assert (fields["error_code"], fields["reason"]) == (code, reason)
        assert up.asked == []


@pytest.mark.parametrize("route", DIALECTS)
async def test_an_upstream_that_is_away(route: str) -> None:
    async with running(QUICK) as up:
        await up.sim.stop()
        answer = await ask(up, route, call(route, "planner"))
        assert (answer.status, answer.phrase) == (502, "Ollama Unreachable")
        fields = told(answer, route)
        assert {name: fields[name] for name in ERROR_FIELDS - {"request_id"}} == {
            "error_code": "E_UNREACHABLE_LOCAL",
            "error_context": "PLANNER",
            "error_provider": "LOCAL",
            "llm_context": "PLANNER",
            "llm_role": "PLANNER",
            "llm_provider": "LOCAL",
            "llm_model": "qwen3:4b",
            "llm_attempt": 1,
            "fallback_used": False,
            "reason": "connect_refused",
        }


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_timeout(route: str) -> None:
    async with running(QUICK) as up:
        await warm(up, "qwen3:4b")
        up.sim.faults.add(Kind.HANG, path=route)
        headers = {"X-LLM-Timeout-Ms": "30", "X-LLM-No-Fallback": "1"}
        answer = await ask(up, route, call(route, "planner"), headers)
        assert (answer.status, answer.phrase) == (504, "Upstream Timeout")
        fields = told(answer, route)
        assert (fields["error_code"], fields["reason"]) == ("E_TIMEOUT_LOCAL", "role_timeout")


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_full_queue(route: str) -> None:
    async with running(QUICK, {"roles": {"PLANNER": {"max_queue": 0, "max_concurrent": 1}}}) as up:
        up.sim.faults.add(Kind.HANG, path=route)
        async with up.client() as busy:
            await busy.ask("POST", route, call(route, "planner"))
            await up.until(lambda: up.seats() == (1, 0))
            answer = await ask(up, route, call(route, "planner"))
            assert (answer.status, answer.phrase) == (503, "Queue Full")
            fields = told(answer, route)
            assert fields["reason"] == "queue_full"
            assert "overloaded" in orjson.dumps(answer.json).decode()


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_body_over_the_limit(route: str) -> None:
    async with running(QUICK, max_body_bytes=1000) as up:
        answer = await ask(up, route, call(route, "planner", x="y" * 1000))
        assert (answer.status, answer.phrase) == (413, "Body Too Large")
        assert told(answer, route)["error_code"] == "E_REQUEST_TOO_LARGE"


async def test_a_body_announced_over_the_limit_is_not_waited_for() -> None:
    async with running(QUICK, max_body_bytes=1000) as up:
        answer = await ask(up, NATIVE, b"", {"Content-Length": "1001"})
        assert answer.status == 413
        assert answer["Connection"] == "close"


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_client_that_is_too_fast(route: str) -> None:
    async with running(QUICK, {"clients": {"rate_per_s": 0.5, "burst": 1}}) as up:
        assert (await ask(up, route, call(route, "planner"))).status == 200
        answer = await ask(up, route, call(route, "planner"))
        assert answer.status == 429
        assert told(answer, route)["error_code"] == "E_RATE_LIMITED"


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_bug_of_ours_is_told_without_its_traceback(
    route: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("canary")

    async with running(QUICK) as up:
        monkeypatch.setattr(up.app.roles, "route", fail)
        answer = await ask(up, route, call(route, "planner"))
        assert (answer.status, answer.phrase) == (500, "Internal Error")
        fields = told(answer, route)
        assert (fields["error_code"], fields["reason"]) == ("E_INTERNAL", "bug")
        assert b"canary" not in answer.body
        [record] = await up.calls.wait()
        # One id in the answer, the record and the log, so that the log can be searched.
        assert record.request_id == fields["request_id"]
        assert (record.outcome, record.status) == ("E_INTERNAL", 500)
        assert any(fields["request_id"] in entry.getMessage() for entry in caplog.records)
        assert up.seats() == (0, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 405, 413, 429, 500, 501, 502, 503, 504])
async def test_the_upstreams_own_words_pass_unchanged(status: int) -> None:
    """But of a 404: who named a model that is not there is told what to do."""
    said = b'{"error":"its own words","detail":[1, 2]}'
    async with scripted(response(said, status=f"{status} Its Own Phrase")) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up:
            answer = await ask(up, NATIVE, call(NATIVE, "llama3.2:1b"))
            assert (answer.status, answer.phrase) == (status, "Its Own Phrase")
            assert answer.body == said
            assert answer["X-LLM-Role"] == "CHAT"
            [record] = await up.calls.wait()
            assert record.failure is not None
            assert answer["X-LLM-Error-Code"] == record.failure.code
            assert log_fields(record)["error"].endswith("its own words")


@pytest.mark.parametrize("route", DIALECTS)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "text/plain"),
        (b"<html>\n<h1>Bad Gateway</h1>\n</html>\n", "text/html"),
        (b'{\n  "error": "pretty"\n}\n', "application/json"),
        (b'["error"]', "application/json"),
        (b'{"message":"no error"}', "application/json"),
        (LONG.encode(), "text/plain"),
    ],
    ids=["empty", "html", "pretty", "list", "other", "long"],
)
@pytest.mark.parametrize("status", [403, 500])
async def test_words_that_no_client_can_show_are_replaced(
    route: str, body: bytes, kind: str, status: int
) -> None:
    """An empty error body makes Ollama's own client report success."""
    raw = response(body, status=f"{status} X", content_type=kind)
    async with scripted(raw) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up:
            answer = await ask(up, route, call(route, LONG_NAME))
            assert answer.status == status
            told(answer, route)
            [record] = await up.calls.wait()
            assert record.status == status


async def test_an_error_leaves_the_connection_usable() -> None:
    async with running(QUICK) as up, up.client() as client:
        for _ in range(3):
            answer = await client.request("POST", NATIVE, b"{")
            assert answer.status == 400
            answer = await client.request("POST", NATIVE, call(NATIVE, "planner"))
            assert answer.status == 200
        assert len(up.calls.records) == 6


async def test_bytes_that_are_no_request() -> None:
    async with running(QUICK) as up, up.client() as client:
        await client.send(b"BLAH\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert answer.json.keys() >= ERROR_FIELDS
        assert answer.json["error_code"] == "E_BAD_REQUEST"
        assert answer.json["reason"] == "bad_http"
        assert await client.at_eof()


async def test_a_browser_may_read_an_error() -> None:
    async with running(QUICK) as up:
        answer = await ask(up, NATIVE, b"{", {"Origin": "http://localhost:3000"})
        assert answer["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert "X-LLM-Error-Code" in answer["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("status", ["400 Bad", "429 Too Many", "500 Oops", "503 Busy", "410 Gone"])
@pytest.mark.parametrize("body", [b'{"error":"no"}', b"no"], ids=["own words", "ours"])
async def test_what_the_upstream_advises_on_asking_again_is_told_on(
    status: str, body: bytes
) -> None:
    """Also where its words are not, or not alone: they are no JSON, or of a missing model."""
    route = "/v1/chat/completions"
    for word in ("true", "false"):
        lines = ("Retry-After: 25", f"x-should-retry: {word}")
        async with scripted(response(body, *lines, status=status)) as upstream:
            target = Address("127.0.0.1", upstream.port)
            async with running(upstream=target) as up, up.client() as client:
                answer = await client.request("POST", route, call(route, "qwen3:4b"))
                assert answer.status == int(status[:3])
                assert answer.all("Retry-After") == ["25"]
                assert answer.all("x-should-retry") == [word]
