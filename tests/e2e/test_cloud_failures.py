"""What becomes of a cloud's failure, in each client's dialect, over real sockets.

The refusals by status stand in ``test_cloud``; here is what breaks off, and what never came.
"""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from modelsplit_proxy.limits import egress_store
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.records.slo_data import SloData
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim
from support.clouds import ASKED as EVERY
from support.clouds import MODEL, approve, cloud_policy, with_a_cloud
from support.harness import running
from support.stores import opened

if TYPE_CHECKING:
    from pathlib import Path

    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

ASKED = {
    route: EVERY[route]
    for route in ("/api/generate", "/api/chat", "/v1/chat/completions", "/v1/messages")
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FORM: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
FORMS: dict[str, dict[str, Any]] = {
    "/api/chat": {"format": SCHEMA},
    "/v1/chat/completions": {"response_format": FORM},
}
HELD = {"roles": {"CLOUD": {"validate": True, "validate_streams": "hold"}}}
LONG = "a long answer indeed, and longer"
BROKEN = "E_STREAM_BROKEN_CLOUD"


def ask(route: str, *, stream: bool, **more: Any) -> dict[str, Any]:
    return {"model": "cloud", "stream": stream, **ASKED[route], **more}


def told(answer: Answer, route: str) -> dict[str, Any]:
    """The fields of an error that is the whole answer."""
    body: dict[str, Any] = answer.json
    return body if route.startswith("/api/") else body["error"]


# Streams that break.


@pytest.mark.parametrize("fault", ["error", "cut", "reset"])
@pytest.mark.parametrize("route", ASKED)
async def test_a_stream_that_breaks_is_settled_with_what_was_told_and_a_guess(
    tmp_path: Path, route: str, fault: str
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text=LONG, fault=fault))
        answer = await client.request("POST", route, ask(route, stream=True))
        assert (answer.status, BROKEN.encode() in answer.body) == (200, True)
        [record] = await up.calls.wait()
        usage, cost = record.usage, record.cost_usd
        # It told of 12 and of its first token; 14 bytes of text came, a token for three each.
        assert (usage.prompt_tokens, usage.output_tokens, usage.estimated) == (12, 5, True)
        assert cost is not None
        assert cost == pytest.approx((12 * 15 + 5 * 75) / 1e6)
        assert up.app.budget_keeper.approved()[1] == pytest.approx(5.0 - cost, abs=1e-9)
        assert up.app.budget_keeper.standing()[1].calls == 1


@pytest.mark.parametrize("fault", ["error", "cut", "reset"])
@pytest.mark.parametrize("route", FORMS)
async def test_a_held_stream_that_breaks_is_a_status(
    tmp_path: Path, route: str, fault: str
) -> None:
    """The client has seen nothing of it yet."""
    async with with_a_cloud(tmp_path, overlay=HELD) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text=LONG, fault=fault, error_kind="api_error"))
        answer = await client.request("POST", route, ask(route, stream=True, **FORMS[route]))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, BROKEN)
        error = told(answer, route)
        assert answer["X-LLM-Provider"] == "CLOUD"
        assert str(error["error"] if route == "/api/chat" else error["message"]).startswith(
            "anthropic broke off its answer: "
        )
        [record] = await up.calls.wait()
        assert record.usage.estimated


@pytest.mark.parametrize("held", [False, True])
async def test_a_cut_before_any_text_is_of_an_answer_that_had_begun(
    tmp_path: Path, held: bool
) -> None:
    """It was reached, and computes: that is no provider that cannot be reached."""
    overlay = HELD if held else {}
    async with with_a_cloud(tmp_path, overlay=overlay) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text=LONG, fault="cut", after=0))
        body = ask("/api/chat", stream=True, **(FORMS["/api/chat"] if held else {}))
        answer = await client.request("POST", "/api/chat", body)
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, BROKEN)
        assert answer.json["reason"] == "truncated"
        [record] = await up.calls.wait()
        assert record.usage.prompt_tokens == 12


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("invalid_request_error", 400, "E_BAD_REQUEST"),
        ("authentication_error", 502, "E_UPSTREAM_CLOUD"),
        ("permission_error", 502, "E_UPSTREAM_CLOUD"),
        ("not_found_error", 404, "E_MODEL_NOT_FOUND"),
        ("request_too_large", 413, "E_REQUEST_TOO_LARGE"),
        ("rate_limit_error", 503, "E_OVERLOAD_THROTTLED"),
        ("api_error", 500, "E_UPSTREAM_CLOUD"),
        ("overloaded_error", 503, "E_OVERLOAD_THROTTLED"),
        ("a kind of tomorrow", 500, "E_UPSTREAM_CLOUD"),
    ],
)
async def test_an_error_event_before_any_text_is_told_as_its_status_would_have_been(
    tmp_path: Path, kind: str, status: int, code: str
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text="never", fault="error", after=0, error_kind=kind))
        answer = await client.request("POST", "/api/chat", ask("/api/chat", stream=True))
        assert answer["X-LLM-Error-Code"] == code
        assert answer.status == status


@pytest.mark.parametrize("kind", [Kind.CUT_RST, Kind.CUT_FIN])
async def test_a_whole_answer_that_is_cut(tmp_path: Path, kind: Kind) -> None:
    async with Sim() as gateway:
        row = {"dialect": "openai", "base_url": gateway.url, "models": {MODEL: "qwen3:4b"}}
        policy = {"cloud": {"providers": {"gateway": row}}}
        environ = {"ANTHROPIC_API_KEY": KEY}
        gateway.faults.add(kind, path="/v1/chat/completions", after=1)
        async with running(overlay=policy, state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client:
                answer = await client.request("POST", "/api/chat", ask("/api/chat", stream=False))
            assert (answer.status, answer["X-LLM-Error-Code"]) == (502, BROKEN)
            [record] = await up.calls.wait()
            assert record.failure is not None


EARLY = {"roles": {"CLOUD": {"early_headers_after_ms": 1}}}


@pytest.mark.parametrize("route", ASKED)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "E_UPSTREAM_CLOUD"),
        (404, "E_MODEL_NOT_FOUND"),
        (500, "E_UPSTREAM_CLOUD"),
        (529, "E_OVERLOAD_THROTTLED"),
    ],
)
async def test_a_refusal_after_an_early_head_is_told_in_the_stream(
    tmp_path: Path, route: str, status: int, code: str
) -> None:
    go = asyncio.Event()
    async with with_a_cloud(tmp_path, overlay=EARLY) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(status=status, fault="late", go=go))
        await client.ask("POST", route, ask(route, stream=True))
        head = await client.head()
        assert head.status == 200
        go.set()
        body = b"".join([piece async for piece in client.pieces(head)])
        assert code.encode() in body
        assert (b"$ANTHROPIC_API_KEY" in body) == (status == 401)
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert record.failure.code == code


# Who is busy says for how long.


@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("120", 120, 120),
        ("0", 2, 2),
        ("soon", 2, 2),
        ("a date", 86_400, 9 * 86_400),
        (None, 2, 2),
    ],
)
async def test_a_client_is_never_told_to_come_back_sooner(
    tmp_path: Path, status: int, said: str | None, least: int, most: int
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        if said == "a date":
            said = format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True)
        headers = () if said is None else (("retry-after", said),)
        cloud.scripts.append(Script(status=status, headers=headers))
        answer = await client.request("POST", "/api/chat", ask("/api/chat", stream=False))
        assert (answer.status, answer.json["reason"]) == (503, "upstream_busy")
        assert least <= int(answer["Retry-After"]) <= most


# Who was never reached.


@pytest.mark.parametrize("route", ASKED)
@pytest.mark.parametrize("trouble", ["name", "connection", "authority"])
async def test_a_provider_that_cannot_be_reached(tmp_path: Path, route: str, trouble: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    async with Cloud(tls=tls) as cloud:
        url = {
            "name": "https://no-such-host.invalid",
            "connection": "http://127.0.0.1:9",
            "authority": cloud.url.replace("127.0.0.1", "localhost"),
        }[trouble]
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=cloud_policy(url), state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client:
                answer = await client.request("POST", route, ask(route, stream=True))
            assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UNREACHABLE_CLOUD")
            assert answer["X-LLM-Provider"] == "CLOUD"
            reason = {"name": "dns", "connection": "connect_refused", "authority": "protocol"}
            assert told(answer, route)["reason"] == reason[trouble]
            # Nothing was sent, so nothing is owed.
            assert up.app.budget_keeper.standing()[1].calls == 0
            assert cloud.calls == []
    # Whoever counts what leaves says the same.
    with opened(tmp_path) as store:
        [call] = SloData(Recorder(store).read).calls(0, 2**62)
    assert (call.provider, call.sent) == ("CLOUD", False)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        [left] = egress_store.read(db)
    assert left.status == egress_store.NOT_SENT
