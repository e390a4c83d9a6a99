"""The front door: who is let in, and what is said when something is wrong behind it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from modelsplit_proxy.handler import refused_request
from modelsplit_proxy.http.request import Request
from modelsplit_proxy.http.request_head import flaw_of_error
from modelsplit_sim.config import SimConfig
from support.calls import DIALECTS, ERROR_FIELDS, call
from support.harness import Running, running
from support.serving import serving
from support.wire import Answer

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream

pytestmark = pytest.mark.flowing_time

TAGS = "/api/tags"


def inner(route: str, answer: Answer) -> dict[str, object]:
    """The error's fields, wherever the dialect puts them."""
    fields: dict[str, object] = answer.json
    if route.startswith("/v1/"):
        assert fields["type"] == "error"
        assert fields["request_id"] == answer["X-Request-Id"]
        nested = fields["error"]
        assert isinstance(nested, dict)
        assert nested["code"] == nested["error_code"]
        return nested
    assert isinstance(fields["error"], str)
    return fields


@pytest.mark.parametrize("route", [*DIALECTS, TAGS, "/v1/models"])
async def test_a_refusal_speaks_the_dialect_of_its_path(route: str) -> None:
    async with running() as up, up.client() as client:
        headers = {"Origin": "http://evil.example", "X-Request-Id": "abc-1"}
        answer = await client.request("POST", route, b"{}", headers)
        assert (answer.status, answer.phrase) == (403, "Origin Denied")
        fields = inner(route, answer)
        assert fields.keys() >= ERROR_FIELDS
        assert fields["error_code"] == answer["X-LLM-Error-Code"] == "E_FORBIDDEN"
        assert fields["request_id"] == answer["X-Request-Id"] == answer["request-id"] == "abc-1"
        assert answer["x-should-retry"] == "false"
        assert answer["Via"] == "1.1 modelsplit"
        assert answer.body.count(b"\n") == 1
        assert answer.body.endswith(b"\n")
        # The connection goes on.
        assert (await client.request("GET", TAGS)).status == 200


async def test_a_refusal_of_a_head_request_has_no_body() -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("HEAD", "/", None, {"Host": "evil.example"})
        assert answer.status == 403
        assert int(answer["Content-Length"]) > 0
        assert (await client.request("GET", TAGS)).status == 200


async def test_a_refusal_does_not_wait_for_the_body() -> None:
    async with running() as up, up.client() as client:
        headers = {"Host": "evil.example", "Content-Length": "1000000"}
        await client.ask("POST", "/api/generate", b"begin", headers)
        answer = await client.answer()
        assert (answer.status, answer["Connection"]) == (403, "close")


async def test_an_allowed_page_can_read_our_errors() -> None:
    async with running() as up, up.client() as client:
        headers = {"Origin": "http://localhost:3000", "Via": "1.1 modelsplit"}
        answer = await client.request("GET", TAGS, None, headers)
        assert answer.status == 508
        assert answer["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert answer["Vary"] == "Origin"


async def test_hosts_and_origins_can_be_allowed() -> None:
    hosts, origins = ("ai.example",), ("https://ui.example",)
    async with (
        running(allow_hosts=hosts, allow_origins=origins) as up,
        up.client() as client,
    ):
        for host in ("ai.example", "AI.example:8080"):
            assert (await client.request("GET", TAGS, None, {"Host": host})).status == 200
        assert (await client.request("GET", TAGS, None, {"Host": "x.ai.example"})).status == 403
        # Ollama alone would refuse this origin; it has been judged, and is not passed on.
        answer = await client.request("GET", TAGS, None, {"Origin": "https://ui.example"})
        assert answer.status == 200
        assert answer["Access-Control-Allow-Origin"] == "https://ui.example"


def break_pool(up: Running) -> None:
    async def acquire() -> None:
        raise ZeroDivisionError

    up.app.pool.acquire = acquire  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("route", [*DIALECTS, TAGS])
async def test_our_own_bug_is_a_500_without_a_trace(
    route: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as up, up.client() as client:
        break_pool(up)
        method, body = ("GET", None) if route == TAGS else ("POST", call(route, "planner"))
        with caplog.at_level(logging.ERROR):
            answer = await client.request(method, route, body)
        assert answer.status == 500
        assert inner(route, answer)["error_code"] == "E_INTERNAL"
        assert b"ZeroDivisionError" not in answer.body
        assert "ZeroDivisionError" in caplog.text
        assert up.seats() == (0, 0)
        assert up.app.lifecycle.active == 0


async def test_our_own_bug_in_mid_stream_breaks_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("modelsplit_proxy.protocol.stream_end.Tail.lines", judge)
    async with running(SimConfig(tokens=3)) as up, up.client() as client:
        with caplog.at_level(logging.ERROR):
            body = call("/api/generate", "planner", stream=True)
            answer = await client.request("POST", "/api/generate", body)
        assert (answer.status, answer.whole) == (200, False)
        assert up.seats() == (0, 0)
        async with up.client() as other:
            assert (await other.request("GET", TAGS)).status == 200


@pytest.mark.parametrize("raw", [b"/\xff\xfe", b"/api/%ff%fe", b"/api/generate\xc3\xa9", b"/?\xff"])
async def test_a_target_of_any_bytes_passes_or_is_refused_and_breaks_nothing(raw: bytes) -> None:
    async with running() as up, up.client() as client:
        for method in (b"GET", b"POST"):
            line = b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            await client.send(line % (method, raw))
            answer = await client.answer()
            assert answer.status in {200, 400, 404, 405}
            if answer.get("Connection") == "close":
                await client.close()
                client.writer = None
        assert up.app.lifecycle.active == 0


async def test_what_is_no_request_gets_one_line_of_json() -> None:
    """However long and many-lined the parser's own words."""

    async def serve(request: Request, down: Downstream) -> None:
        del request
        error = BadHttpMessage("bad\nthing \udcff" * 100)
        refused_request(down, flaw_of_error(error, b"", in_first_line=True), "/")

    async with serving(serve) as up, up.client() as client:
        answer = await client.request("GET", "/")
        assert (answer.status, answer["Connection"]) == (400, "close")
        assert answer.body.count(b"\n") == 1
        assert answer.json.keys() >= ERROR_FIELDS
        assert len(answer.json["error"]) <= 200


async def test_what_fails_after_a_whole_answer_does_not_break_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(kind: str, status: int) -> None:
        raise ZeroDivisionError(f"{kind} {status}")

    async with running() as up, up.client() as client:
        monkeypatch.setattr(up.app.metrics, "passed", fails)
        for _ in range(2):
            answer = await client.request("GET", TAGS, None, {"X-Request-Id": "abc-1"})
            assert (answer.status, answer.whole) == (200, True)
            assert answer.json["models"]
    assert "request abc-1 GET /api/tags failed" in caplog.messages
