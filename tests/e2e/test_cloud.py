"""A cloud asked over its own API, seen from the client's side and from the cloud's."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from ollama import ListResponse, ShowResponse

from modelsplit_proxy.limits import egress_store
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.config import SimConfig
from modelsplit_sim.server import Sim
from support.calls import ERROR_FIELDS
from support.clouds import ASKED, ITS_NAME, MODEL, approve, cloud_policy, with_a_cloud
from support.harness import running

if TYPE_CHECKING:
    from pathlib import Path

    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

# Where an answer is nothing but text.
WITHOUT_TOOLS = ("/api/generate", "/v1/completions")
NATIVE = "/api/chat"
CANARY = "sk-ant-canary-7f3a9c1e5b"


def ask(route: str, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    return {"model": "cloud", "stream": stream} | ASKED[route] | fields


def text_of(answer: Answer) -> str:
    """What the assistant says, whole or in pieces."""
    objects = [
        orjson.loads(line.removeprefix(b"data: "))
        for line in answer.body.splitlines()
        if line.removeprefix(b"data: ").startswith(b"{")
    ]
    return "".join(map(said_in, objects))


def said_in(value: dict[str, Any]) -> str:
    """The text in one object, of whichever dialect."""
    choice = (value.get("choices") or [{}])[0]
    holder = choice.get("message") or choice.get("delta") or value.get("message") or {}
    content = holder.get("content")
    delta, output = value.get("delta", {}), value.get("output", [])
    response = value.get("response", "")
    pieces = [
        response if isinstance(response, str) else "",
        choice.get("text", ""),
        delta if isinstance(delta, str) else delta.get("text", ""),
        *(part["text"] for item in output for part in item["content"]),
        content if isinstance(content, str) else "",
        *(block.get("text", "") for block in value.get("content", [])),
    ]
    return "".join(pieces)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ASKED)
async def test_an_approved_call_is_answered_by_the_provider(
    tmp_path: Path, route: str, stream: bool
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        answer = await client.request("POST", route, ask(route, stream=stream))
        assert answer.status == 200
        assert (answer["X-LLM-Provider"], answer["X-LLM-Model"]) == ("CLOUD", MODEL)
        assert answer["RateLimit"].startswith('"cloud";r=8')
        assert text_of(answer) == "You said: hi"
        [call] = cloud.calls
        assert (call.header("x-api-key"), call.header("anthropic-version")) == (KEY, "2023-06-01")
        assert call.json["model"] == ITS_NAME
        assert up.asked == []
        [record] = await up.calls.wait()
        assert (record.usage.prompt_tokens, record.usage.output_tokens) == (12, 6)
        assert record.cost_usd == pytest.approx((12 * 15 + 6 * 75) / 1e6)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ASKED)
async def test_a_tool_is_called(tmp_path: Path, route: str, stream: bool) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(tool="add", arguments={"a": 1}))
        answer = await client.request("POST", route, ask(route, stream=stream))
        assert answer.status == 200
        assert b"add" in answer.body or route in WITHOUT_TOOLS


@pytest.mark.parametrize("route", ASKED)
async def test_without_an_approval_nothing_leaves(tmp_path: Path, route: str) -> None:
    async with with_a_cloud(tmp_path, approved=None) as (up, cloud), up.client() as client:
        answer = await client.request("POST", route, ask(route))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (403, "E_BUDGET_NOT_APPROVED")
        assert cloud.calls == []


async def test_the_tenth_call_of_a_day_is_refused(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        statuses = [(await client.request("POST", NATIVE, ask(NATIVE))).status for _ in range(10)]
        assert statuses == [200] * 9 + [429]
        assert len(cloud.calls) == 9


async def test_the_answer_is_bounded_by_what_was_reserved_for_it(tmp_path: Path) -> None:
    """An approval of one dollar at 75 dollars a million: 4096 tokens fit, and no more are asked."""
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        await client.request("POST", NATIVE, ask(NATIVE))
        await client.request("POST", NATIVE, ask(NATIVE, options={"num_predict": 7}))
        assert [call.json["max_tokens"] for call in cloud.calls] == [4096, 7]


@pytest.mark.parametrize(
    ("headers", "fields", "status", "reason"),
    [
        ({"X-LLM-Role": "CLOUD"}, {"model": "cloud"}, 200, None),
        ({"X-LLM-Role": "HEAVY", "X-LLM-Escalate": "operator"}, {"model": "heavy"}, 200, None),
        ({"X-LLM-Role": "EXECUTOR"}, {"model": MODEL}, 403, "egress_denied"),
        ({}, {"model": MODEL}, 403, "egress_denied"),
        ({}, {"model": f"Library/{MODEL}:latest"}, 403, "egress_denied"),
    ],
)
async def test_only_the_role_of_the_cloud_and_what_is_escalated_to_it_leave(
    tmp_path: Path, headers: dict[str, str], fields: dict[str, Any], status: int, reason: str | None
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        answer = await client.request("POST", NATIVE, ask(NATIVE) | fields, headers)
        assert answer.status == status
        assert answer.json.get("reason") == reason
        assert len(cloud.calls) == (status == 200)
        if status != 200:
            assert answer.json.keys() >= ERROR_FIELDS


async def test_a_policy_may_let_others_leave_or_fewer(tmp_path: Path) -> None:
    allowed = {"roles": ["EXECUTOR", "CLOUD"], "conditions": ["operator"]}
    async with with_a_cloud(tmp_path, allow_from=allowed) as (up, cloud), up.client() as client:
        executor = {"X-LLM-Role": "EXECUTOR"}
        assert (
            await client.request("POST", NATIVE, ask(NATIVE, model=MODEL), executor)
        ).status == 200
        heavy = {"X-LLM-Role": "HEAVY", "X-LLM-Escalate": "schema_failed"}
        answer = await client.request("POST", NATIVE, ask(NATIVE, model="heavy"), heavy)
        assert answer.json["reason"] == "egress_denied"
        assert len(cloud.calls) == 1


async def test_a_client_that_may_not_send_anything_out(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path, allow_from={"clients": ["kim"]}) as (up, cloud):
        async with up.client() as client:
            answer = await client.request("POST", NATIVE, ask(NATIVE))
        assert (answer.status, answer.json["reason"]) == (403, "egress_denied")
        assert cloud.calls == []


async def test_a_model_that_no_provider_lists_is_refused_with_the_line_to_add(
    tmp_path: Path,
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        role = {"X-LLM-Role": "CLOUD"}
        answer = await client.request("POST", NATIVE, ask(NATIVE, model="claude-9"), role)
        assert (answer.status, answer.json["reason"]) == (404, "no_provider")
        assert answer.json["error"] == (
            "no provider of the policy lists claude-9; "
            'add cloud.providers.anthropic.models: "claude-9": null'
        )
        assert (cloud.calls, up.asked) == ([], [])


OLLAMAS = "gpt-oss:120b-cloud"
BY_OLLAMA = {"models": {OLLAMAS: {"price": {"input": 0.0, "output": 0.0}}}}
CLOUD_ROLE = {"X-LLM-Role": "CLOUD"}


async def test_a_model_of_ollamas_own_cloud_goes_on_to_ollama(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path, overlay=BY_OLLAMA) as (up, cloud), up.client() as client:
        answer = await client.request("POST", NATIVE, ask(NATIVE, model=OLLAMAS), CLOUD_ROLE)
        assert (answer["X-LLM-Provider"], cloud.calls) == ("CLOUD", [])
        assert [sent.model for sent in up.asked] == [OLLAMAS]
        [sent] = up.asked
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        [left] = egress_store.read(db)
    assert (left.leaving.provider, left.leaving.model) == ("ollama", OLLAMAS)
    assert (left.leaving.role, left.leaving.why, left.leaving.approval) == ("CLOUD", "header", 1)
    assert (left.leaving.size, left.status) == (sent.body_size, answer.status)


@pytest.mark.parametrize("role", ["", "CHAT", "PLANNER"])
async def test_it_leaves_by_the_same_rules(tmp_path: Path, role: str) -> None:
    """Who may, an approval, and the budgets: as of a provider's model."""
    headers = {"X-LLM-Role": role} if role else {}
    async with with_a_cloud(tmp_path, overlay=BY_OLLAMA) as (up, _), up.client() as client:
        answer = await client.request("POST", NATIVE, ask(NATIVE, model=OLLAMAS), headers)
        assert (answer.status, answer.json["reason"]) == (403, "egress_denied")
        assert f"calls of {role or 'CHAT'} may not; send X-LLM-Role: CLOUD" in answer.json["error"]
        assert up.asked == []


async def test_it_needs_an_approval_too(tmp_path: Path) -> None:
    async with (
        with_a_cloud(tmp_path, overlay=BY_OLLAMA, approved=None) as (up, _),
        up.client() as client,
    ):
        answer = await client.request("POST", NATIVE, ask(NATIVE, model=OLLAMAS), CLOUD_ROLE)
        assert (answer.status, answer.json["reason"]) == (403, "no_approval")
        assert up.asked == []


async def test_what_is_taken_out_does_not_reach_ollamas_cloud_either(tmp_path: Path) -> None:
    """Also where the policy names no provider at all."""
    redact = [{"name": "phone", "pattern": r"\+49[0-9 ]+", "replacement": "[phone]"}]
    overlay = {"cloud": {"redact": redact}, **BY_OLLAMA}
    messages = [{"role": "user", "content": "call +49 30 123456"}]
    async with running(overlay=overlay, state=tmp_path) as up, up.client() as client:
        approve(tmp_path)
        body = ask(NATIVE, model=OLLAMAS, messages=messages)
        await client.request("POST", NATIVE, body, CLOUD_ROLE)
        await client.request("POST", NATIVE, ask(NATIVE, model="qwen3:4b", messages=messages))
        left, stayed = up.asked
        assert b"[phone]" in left.body
        assert b"+49" not in left.body
        assert b"+49 30 123456" in stayed.body
        form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
        head = CLOUD_ROLE | {"Content-Type": "multipart/form-data; boundary=b"}
        route = "/v1/audio/transcriptions"
        refused = await client.request("POST", route, form % OLLAMAS.encode(), head)
        assert (refused.status, refused.json["error"]["reason"]) == (400, "untranslatable")
        assert len(up.asked) == 2
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        [row] = egress_store.read(db)
    assert row.leaving.redacted == 1


async def test_embeddings_are_refused_and_cost_nothing(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        answer = await client.request("POST", "/api/embed", {"model": "cloud", "input": "hi"})
        assert (answer.status, answer.json["reason"]) == (400, "untranslatable")
        assert "/api/embed" in answer.json["error"]
        assert cloud.calls == []
        assert up.app.budget_keeper.standing()[1].calls == 0


async def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    options = {"seed": 7, "temperature": 1.5}
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        answer = await client.request("POST", NATIVE, ask(NATIVE, options=options, think=True))
        told = "think, options.temperature=1.5 (sent as 1), options.seed"
        assert sorted(answer["X-LLM-Untranslated"].split(", ")) == sorted(told.split(", "))
        assert cloud.calls[0].json["temperature"] == 1.0
        [line] = [entry for entry in await up.logged() if entry.get("untranslated")]
        assert len(line["untranslated"]) == 3


async def test_a_form_comes_as_the_text_of_the_answer(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        for stream in (False, True):
            cloud.scripts.append(Script(arguments={"a": 1}))
            body = ask(NATIVE, stream=stream, format=schema)
            answer = await client.request("POST", NATIVE, body)
            assert text_of(answer) == '{"a":1}'
            last = orjson.loads(answer.body.splitlines()[-1])
            assert (last["done_reason"], last["message"].get("tool_calls")) == ("stop", None)


async def test_loading_is_answered_here_and_costs_nothing(tmp_path: Path) -> None:
    """As ``ollama run cloud`` begins, and ``ollama stop cloud``."""
    async with with_a_cloud(tmp_path, approved=None) as (up, cloud), up.client() as client:
        loaded = await client.request("POST", "/api/generate", {"model": "cloud"})
        chat = await client.request("POST", NATIVE, {"model": "cloud", "messages": []})
        stopped = await client.request("POST", NATIVE, {"model": "cloud", "keep_alive": 0})
        reasons = [answer.json["done_reason"] for answer in (loaded, chat, stopped)]
        assert reasons == ["load", "load", "unload"]
        assert (cloud.calls, up.asked) == ([], [])
        assert up.app.budget_keeper.standing()[1].calls == 0


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "code", "told", "reason"),
    [
        (400, "E_BAD_REQUEST", 400, "upstream_rejected"),
        (401, "E_UPSTREAM_CLOUD", 502, "provider_credential"),
        (403, "E_UPSTREAM_CLOUD", 502, "provider_credential"),
        (404, "E_MODEL_NOT_FOUND", 404, "not_installed"),
        (413, "E_REQUEST_TOO_LARGE", 413, "upstream_rejected"),
        (429, "E_OVERLOAD_THROTTLED", 503, "upstream_busy"),
        (500, "E_UPSTREAM_CLOUD", 500, "status"),
        (529, "E_OVERLOAD_THROTTLED", 503, "upstream_busy"),
    ],
)
@pytest.mark.parametrize("route", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_refusal_of_the_providers(
    tmp_path: Path, route: str, status: int, code: str, told: int, reason: str
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(status=status, headers=(("retry-after", "17"),)))
        answer = await client.request("POST", route, ask(route, stream=True))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (told, code)
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert record.failure.reason == reason
        assert KEY not in answer.body.decode()
        if reason == "upstream_busy":
            assert answer["Retry-After"] == "17"
        if reason == "provider_credential":
            assert answer["x-should-retry"] == "false"
            assert "$ANTHROPIC_API_KEY" in answer.body.decode()
        # Nothing was computed, so nothing is owed: but for a 500, of which nobody knows.
        given_back = status != 500
        assert up.app.budget_keeper.standing()[1].calls == (0 if given_back else 1)
        assert (await client.request("POST", route, ask(route))).status == 200


async def test_the_limits_of_a_provider_are_told_on(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        headers = (("anthropic-ratelimit-requests-remaining", "0"), ("retry-after", "3"))
        cloud.scripts.append(Script(status=429, headers=headers))
        answer = await client.request("POST", NATIVE, ask(NATIVE))
        told = [value for name, value in answer.headers if name == "RateLimit"]
        assert told == ['"cloud";r=9', '"anthropic-requests";r=0']


async def test_a_wrong_key_stops_nobody_else(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path, key="sk-wrong-0123456789") as (up, _), up.client() as client:
        for _ in range(7):
            answer = await client.request("POST", NATIVE, ask(NATIVE))
            assert answer.json["reason"] == "provider_credential"
            assert "sk-wrong" not in answer.body.decode()


async def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path, key="") as (up, cloud), up.client() as client:
        answer = await client.request("POST", NATIVE, ask(NATIVE))
        assert (answer.status, answer.json["reason"]) == (502, "provider_credential")
        assert "$ANTHROPIC_API_KEY" in answer.json["error"]
        assert cloud.calls == []


@pytest.mark.parametrize("route", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize(
    ("fault", "reason"), [("cut", "truncated"), ("reset", "truncated"), ("error", "error_line")]
)
async def test_an_answer_that_breaks_off_is_told_in_the_stream(
    tmp_path: Path, route: str, fault: str, reason: str
) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text="a long answer indeed, and longer", fault=fault))
        answer = await client.request("POST", route, ask(route, stream=True))
        assert answer.status == 200
        assert text_of(answer).startswith("a long")
        assert b"E_STREAM_BROKEN_CLOUD" in answer.body
        assert answer.body.count(b'"error"') <= 2
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert record.failure.reason in {reason, "reset", "protocol"}
        # What it said until then is charged, and marked as reckoned.
        assert record.usage.prompt_tokens == 12
        assert record.usage.estimated
        assert record.cost_usd is not None
        assert 0 < record.cost_usd < 0.01


async def test_an_error_before_anything_is_a_refusal(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text="never", fault="error", after=0))
        answer = await client.request("POST", NATIVE, ask(NATIVE, stream=True))
        assert (answer.status, answer.json["reason"]) == (503, "upstream_busy")


async def test_events_in_no_order_are_read_as_far_as_they_make_sense(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(text="abc", fault="disorder"))
        answer = await client.request("POST", NATIVE, ask(NATIVE, stream=True))
        assert (answer.status, text_of(answer)) == (200, "abc")


async def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        await cloud.stop()
        answer = await client.request("POST", NATIVE, ask(NATIVE))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UNREACHABLE_CLOUD")
        assert answer.json["reason"] == "connect_refused"
        assert up.app.budget_keeper.standing()[1].calls == 0


async def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    policy = cloud_policy("https://no-such-host.invalid")
    environ = {"ANTHROPIC_API_KEY": KEY}
    async with (
        running(overlay=policy, state=tmp_path, environ=environ) as up,
        up.client() as client,
    ):
        approve(tmp_path)
        answer = await client.request("POST", NATIVE, ask(NATIVE))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UNREACHABLE_CLOUD")


async def test_silence_ends_with_the_roles_time(tmp_path: Path) -> None:
    role = {"roles": {"CLOUD": {"timeout_ms": 200}}}
    async with with_a_cloud(tmp_path, overlay=role) as (up, cloud), up.client() as client:
        cloud.scripts.append(Script(fault="late"))
        answer = await client.request("POST", NATIVE, ask(NATIVE))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (504, "E_TIMEOUT_CLOUD")
        assert answer.json["reason"] == "role_timeout"
        await cloud.wait_for(lambda cloud: cloud.calls[0].left_at is not None)


async def test_a_connection_is_kept_for_the_next_call(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        for _ in range(3):
            assert (await client.request("POST", NATIVE, ask(NATIVE))).status == 200
        assert {call.connection for call in cloud.calls} == {1}


async def test_nothing_of_the_clients_head_goes_along(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer mine", "Cookie": "a=b", "X-LLM-Job-Id": "j1"}
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        assert (await client.request("POST", NATIVE, ask(NATIVE), headers)).status == 200
        sent = {name.lower(): value for name, value in cloud.calls[0].headers}
        assert sent.keys() <= {
            *("host", "x-api-key", "anthropic-version", "content-type", "content-length"),
            *("accept", "accept-encoding", "user-agent", "via"),
        }


async def test_betas_of_a_client_of_the_same_dialect_go_along(tmp_path: Path) -> None:
    more = {"betas": ["ours-1"]}
    async with with_a_cloud(tmp_path, provider=more) as (up, cloud), up.client() as client:
        theirs = {"anthropic-beta": "theirs-2"}
        await client.request("POST", "/v1/messages", ask("/v1/messages"), theirs)
        await client.request("POST", NATIVE, ask(NATIVE), theirs)
        told = [call.header("anthropic-beta") for call in cloud.calls]
        assert told == ["ours-1,theirs-2", "ours-1"]


async def test_what_the_policy_takes_out_does_not_leave(tmp_path: Path) -> None:
    redact = [{"name": "phone", "pattern": r"\+49[0-9 ]+", "replacement": "[phone]"}]
    async with with_a_cloud(tmp_path, redact=redact) as (up, cloud), up.client() as client:
        messages = [{"role": "user", "content": "call +49 30 123456, or +49 1"}]
        answer = await client.request("POST", NATIVE, ask(NATIVE, messages=messages))
        assert text_of(answer) == "You said: call [phone], or [phone]"
        assert b"+49" not in cloud.calls[0].body
        [line] = [entry for entry in await up.logged() if entry.get("redacted")]
        assert line["redacted"] == {"phone": 2}


# The key.


def left_behind(state: Path) -> list[bytes]:
    """What other processes see of us, and what is on disk."""
    listing = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, check=False).stdout
    return [listing, *(path.read_bytes() for path in state.rglob("*") if path.is_file())]


async def test_the_key_is_nowhere_but_in_the_request(tmp_path: Path) -> None:
    """In answers, logs, records, metrics, the policy that is shown, errors and their causes."""
    async with Cloud(key=CANARY) as cloud:
        policy = cloud_policy(cloud.url)
        environ = {"ANTHROPIC_API_KEY": CANARY}
        seen: list[bytes] = []
        async with running(overlay=policy, state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client, up.admin() as admin:
                for script in (
                    Script(),
                    Script(status=401, message=f"invalid x-api-key {CANARY}"),
                    Script(status=400, message=f"bad {CANARY}"),
                    Script(status=500, message=f"worse {CANARY}"),
                    Script(text="a long answer indeed", fault="cut"),
                ):
                    cloud.scripts.append(script)
                    answer = await client.request("POST", NATIVE, ask(NATIVE, stream=True))
                    seen += [answer.body, repr(answer.headers).encode()]
                for page in ("/metrics", "/stats", "/policy", "/requests", "/"):
                    answer = await admin.request("GET", page)
                    seen += [answer.body, repr(answer.headers).encode()]
            seen.append(repr(vars(up.app)).encode())
        seen += up.lines
    seen += await asyncio.to_thread(left_behind, tmp_path)
    assert len(cloud.calls) == 5
    assert all(call.header("x-api-key") == CANARY for call in cloud.calls)
    assert not [piece for piece in seen if CANARY.encode() in piece]


def test_a_process_without_a_cloud_loads_nothing_of_it() -> None:
    code = (
        "import sys, modelsplit_proxy.app, modelsplit_proxy.cli.serve;"
        "print([m for m in sys.modules if m.startswith('modelsplit_proxy.providers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


# What looks installed.


async def test_the_alias_of_the_cloud_looks_installed(tmp_path: Path) -> None:
    """``ollama run cloud`` asks what it is before it chats; other clients look into the lists."""
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        tags = (await client.request("GET", "/api/tags")).json["models"]
        [entry] = [entry for entry in tags if entry["name"] == "cloud:latest"]
        assert (entry["remote_model"], entry["remote_host"]) == (ITS_NAME, cloud.url)
        assert len(entry["digest"]) == 64
        listed = ListResponse.model_validate({"models": tags})
        assert "cloud:latest" in [model.model for model in listed.models]
        ids = [row["id"] for row in (await client.request("GET", "/v1/models")).json["data"]]
        assert "cloud:latest" in ids
        one = await client.request("GET", "/v1/models/cloud")
        assert (one.status, one.json["id"]) == (200, "cloud")
        shown = await client.request("POST", "/api/show", {"model": "cloud"})
        assert (shown.status, shown.json["remote_model"]) == (200, ITS_NAME)
        assert "tools" in shown.json["capabilities"]
        ShowResponse.model_validate(shown.json)
        assert cloud.calls == []


# What is written down of what leaves.


async def test_what_has_left_is_written_down(tmp_path: Path) -> None:
    escalated = {"X-LLM-Role": "HEAVY", "X-LLM-Escalate": "operator", "X-Request-Id": "r1"}
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        assert (await client.request("POST", NATIVE, ask(NATIVE), escalated)).status == 200
        cloud.scripts.append(Script(status=529))
        await client.request("POST", NATIVE, ask(NATIVE), {"X-Request-Id": "r2"})
        await client.request("POST", NATIVE, ask(NATIVE, model=MODEL))  # did not leave
        sizes = [call.body_size for call in cloud.calls]
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        first, second = egress_store.read(db)
    assert first.leaving.request_id == "r1"
    assert (first.leaving.why, first.leaving.condition) == ("escalation", "operator")
    assert (first.leaving.approval, first.leaving.provider) == (1, "anthropic")
    assert [first.leaving.size, second.leaving.size] == sizes
    assert (first.status, first.prompt_tokens, first.output_tokens) == (200, 12, 6)
    assert first.usd == pytest.approx((12 * 15 + 6 * 75) / 1e6)
    assert (second.leaving.request_id, second.status, second.usd) == ("r2", 529, 0.0)


# Versions and other APIs.


async def test_a_later_version_is_asked_without_what_it_does_not_have(tmp_path: Path) -> None:
    later = {"version": "2026-10-21"}
    async with with_a_cloud(tmp_path, provider=later) as (up, cloud), up.client() as client:
        options = {"temperature": 0.5, "top_p": 0.9, "top_k": 3}
        answer = await client.request("POST", NATIVE, ask(NATIVE, options=options))
        told = {"options.temperature", "options.top_p", "options.top_k"}
        assert (answer.status, set(answer["X-LLM-Untranslated"].split(", "))) == (200, told)
        assert cloud.calls[0].header("anthropic-version") == "2026-10-21"


async def test_a_client_of_the_same_dialect_is_asked_for_by_its_own_version(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        route = "/v1/messages"
        for version in ("2026-10-21", "no version"):
            head = {"anthropic-version": version}
            assert (await client.request("POST", route, ask(route), head)).status == 200
        await client.request("POST", NATIVE, ask(NATIVE), {"anthropic-version": "2026-10-21"})
        told = [call.header("anthropic-version") for call in cloud.calls]
        assert told == ["2026-10-21", "2023-06-01", "2023-06-01"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ASKED)
async def test_a_provider_that_speaks_chat_completions(
    tmp_path: Path, route: str, stream: bool
) -> None:
    """Which a second Ollama does."""
    async with Sim(SimConfig(tokens=4)) as provider:
        row = {"dialect": "openai", "base_url": provider.url, "models": {MODEL: "qwen3:4b"}}
        bound = {MODEL: {"max_output_tokens": 4}}
        policy = {"cloud": {"providers": {"gateway": row}}, "models": bound}
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=policy, state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client:
                fields = {"max_tokens": 4} if route == "/v1/messages" else {}
                answer = await client.request("POST", route, ask(route, stream=stream, **fields))
                assert (answer.status, answer["X-LLM-Model"]) == (200, MODEL)
                assert text_of(answer)
            [asked] = [call for call in provider.calls if call.method == "POST"]
            assert asked.path == "/v1/chat/completions"
            assert asked.header("authorization") == f"Bearer {KEY}"
            [record] = await up.calls.wait()
            assert record.usage.output_tokens == 4
            assert record.cost_usd is not None
            assert up.asked == []
