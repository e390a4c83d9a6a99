"""Pages of browsers: what they may ask, and read."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.http import cors
from modelsplit_proxy.http.headers import RESPONSE_NAMES
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import running
from support.wire import Client

pytestmark = pytest.mark.flowing_time

PAGE = "http://localhost:3000"
ASKS = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
# Of the answer to OPTIONS, observed at Ollama.
PREFLIGHT = (
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
    "Access-Control-Max-Age",
    "Vary",
)


def test_without_a_page_nothing_is_said() -> None:
    assert cors.lines(None) == []


def test_a_page_may_read_every_header_of_ours() -> None:
    allow, vary, expose = cors.lines(PAGE)
    assert allow == b"Access-Control-Allow-Origin: http://localhost:3000\r\n"
    assert vary == b"Vary: Origin\r\n"
    names = expose.strip().partition(b": ")[2].split(b", ")
    assert names == [*RESPONSE_NAMES, b"x-should-retry", b"Via"]


@pytest.mark.parametrize("target", ["/api/chat", "/v1/messages", "/nope", "/api/tags", "*"])
async def test_a_preflight_is_ollamas_and_allows_more_headers(target: str) -> None:
    async with running() as up, up.client() as client, Client(up.sim.port) as direct:
        ours = await client.request("OPTIONS", target, None, ASKS)
        theirs = await direct.request("OPTIONS", "/api/chat", None, ASKS)
        assert (ours.status, ours.phrase, ours.body) == (204, "No Content", b"")
        for name in PREFLIGHT:
            assert ours.all(name) == theirs.all(name)
        allowed = ours["Access-Control-Allow-Headers"].split(",")
        known = theirs["Access-Control-Allow-Headers"].split(",")
        assert allowed[: len(known)] == known
        lowered = {name.lower() for name in allowed}
        assert {"x-llm-role", "x-api-key", "anthropic-version", "x-request-id"} <= lowered
        assert ours.get("Content-Length") is None
        assert (await client.request("GET", "/")).status == 200


@pytest.mark.parametrize(
    ("asked", "added"),
    [
        (
            ["x-stainless-helper,openai-project,baggage"],
            "x-stainless-helper,openai-project,baggage",
        ),
        (["Content-Type, X-New ,x-new,,X-LLM-Role"], "x-new"),
        (["a", "b, c"], "a,b,c"),
        (["*"], ""),
        (['no space,quo"te,sl/ash,b(rackets),\xe9,co:lon'], ""),
        (["x" * 65], ""),
        ([",".join(f"h{number}" for number in range(100))], ",".join(f"h{n}" for n in range(64))),
        ([], ""),
    ],
)
async def test_a_preflight_allows_what_the_page_asks_to_send(asked: list[str], added: str) -> None:
    """SDKs add headers faster than a list can follow; what is no field name is not repeated."""
    lines = [f"{name}: {value}" for name, value in ASKS.items()]
    lines += [f"Access-Control-Request-Headers: {value}" for value in asked]
    head = "\r\n".join(["OPTIONS /v1/responses HTTP/1.1", "Host: localhost", *lines, "", ""])
    async with running() as up, up.client() as client:
        await client.send(head.encode("latin-1"))
        answer = await client.answer()
        assert answer.status == 204
        allowed = answer["Access-Control-Allow-Headers"].split(",")
        assert allowed[: len(cors.ALLOWED_HEADERS)] == [n.decode() for n in cors.ALLOWED_HEADERS]
        assert ",".join(allowed[len(cors.ALLOWED_HEADERS) :]) == added


async def test_a_preflight_of_another_page_is_refused() -> None:
    async with running() as up, up.client() as client:
        answer = await client.request(
            "OPTIONS", "/api/chat", None, {"Origin": "https://evil.example"}
        )
        assert (answer.status, answer.json["reason"]) == (403, "origin_denied")
        assert answer.get("Access-Control-Allow-Origin") is None


async def test_an_options_without_a_page_is_ollamas_own_affair() -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("OPTIONS", "/api/chat")
        assert (answer.status, answer["Allow"]) == (405, "POST")


async def test_every_answer_can_be_read_by_the_page() -> None:
    async with running(allow_origins=("https://*.ui.example",)) as up, up.client() as client:
        chat = call("/api/chat", "planner")
        up.sim.faults.add(Kind.STATUS, path="/api/embed", status=500)
        for page in (PAGE, "https://a.ui.example"):
            cases: list[tuple[str, str, Any, int]] = [
                ("POST", "/api/chat", chat, 200),
                ("POST", "/v1/chat/completions", call("/v1/chat/completions", "planner"), 200),
                ("POST", "/api/chat", b"{", 400),
                ("POST", "/api/embed", call("/api/embed", "qwen3:4b"), 500),
                ("GET", "/api/tags", None, 200),
                ("POST", "/api/show", {"model": "planner"}, 200),
                ("POST", "/api/show", {"model": "nosuch"}, 404),
                ("POST", "/api/pull", {"model": "planner"}, 403),
                ("GET", "/v1/models/planner", None, 200),
                ("GET", "/nope", None, 404),
            ]
            for method, target, body, status in cases:
                answer = await client.request(method, target, body, {"Origin": page})
                assert answer.status == status, target
                assert answer["Access-Control-Allow-Origin"] == page
                assert answer["Vary"] == "Origin"
                assert "X-LLM-Role" in answer["Access-Control-Expose-Headers"]
        assert not any(call.header("origin") for call in up.sim.calls)


async def test_without_a_page_no_answer_speaks_of_one() -> None:
    async with running() as up, up.client() as client:
        for method, target in [("GET", "/api/tags"), ("GET", "/nope"), ("POST", "/api/chat")]:
            answer = await client.request(method, target)
            names = {name.lower() for name, _ in answer.headers}
            assert not any(name.startswith("access-control") for name in names)
            assert "vary" not in names
