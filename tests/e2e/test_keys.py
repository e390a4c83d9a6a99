"""Keys of clients, seen from outside: who is let in, as whom, for what, and what Ollama sees."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.limits.client_keys import Key, Keyring, digest_of
from modelsplit_sim.config import SimConfig
from support.calls import DIALECTS, ERROR_FIELDS, call
from support.harness import running
from support.process import ollama, serving, spawned
from support.wire import Answer

pytestmark = pytest.mark.flowing_time

LAPTOP = "ms-the-key-of-the-laptop"
BATCH = "ms-the-key-of-the-batch"
RING = Keyring(
    [
        Key("laptop", digest_of(LAPTOP), frozenset(Role), manage_models=True),
        Key(
            "batch",
            digest_of(BATCH),
            frozenset({Role.HEAVY, Role.CHAT}),
            limits={"max_concurrent": 1},
        ),
    ]
)
AS_LAPTOP = {"Authorization": f"Bearer {LAPTOP}"}
AS_BATCH = {"x-api-key": BATCH}
GENERATE = "/api/generate"


def reason(answer: Answer) -> str:
    error = answer.json["error"]
    return str((answer.json if isinstance(error, str) else error)["reason"])


# --- Who is let in ------------------------------------------------------------------------------


@pytest.mark.parametrize("route", DIALECTS)
@pytest.mark.parametrize(
    ("headers", "why"), [({}, "no_key"), ({"x-api-key": "unused"}, "wrong_key")]
)
async def test_a_call_without_a_key_is_told_so_in_its_own_dialect(
    route: str, headers: dict[str, str], why: str
) -> None:
    async with running(keyring=RING) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "qwen3:4b"), headers)
        assert (answer.status, reason(answer)) == (401, why)
        assert answer["WWW-Authenticate"] == "Bearer"
        assert answer["x-should-retry"] == "false"
        assert answer["X-LLM-Error-Code"] == "E_UNAUTHORIZED"
        assert answer["X-Request-Id"] == answer["request-id"]
        said = answer.json
        if route.startswith("/v1/"):
            said = said["error"]
            assert said["type"] == "authentication_error"
        assert said.keys() >= ERROR_FIELDS
        assert up.asked == []
        (record,) = up.calls.records
        assert (record.outcome, record.status) == ("E_UNAUTHORIZED", 401)
        assert (record.routing, record.attempts) == (None, [])
        # The connection is as good as before: with a key, the call goes through.
        answer = await client.request("POST", route, call(route, "qwen3:4b"), AS_LAPTOP)
        assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/version"),
        ("GET", "/api/tags"),
        ("POST", "/api/show"),
        ("GET", "/v1/models"),
        ("DELETE", "/api/delete"),
        ("GET", "/not/yet/known"),
        ("OPTIONS", "/api/chat"),
    ],
)
async def test_what_passes_through_needs_a_key_too(method: str, target: str) -> None:
    async with running(keyring=RING) as up, up.client() as client:
        assert (await client.request(method, target)).status == 401
        assert up.passed_on == []
        assert (await client.request(method, target, headers=AS_LAPTOP)).status != 401
        assert [seen.path for seen in up.passed_on] == [target]


async def test_whether_anybody_is_there_may_be_asked_by_anybody() -> None:
    async with running(keyring=RING) as up, up.client() as client:
        assert (await client.request("HEAD", "/")).status == 200
        answer = await client.request("GET", "/")
        assert (answer.status, answer.body) == (200, b"Ollama is running")
        assert (await client.request("GET", "/", headers={"x-api-key": "wrong"})).status == 200


async def test_a_browsers_preflight_carries_no_key() -> None:
    preflight = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    async with running(keyring=RING) as up, up.client() as client:
        answer = await client.request("OPTIONS", "/api/chat", headers=preflight)
        assert answer.status == 204
        # And a page may read why it was refused.
        refused = await client.request(
            "POST", "/api/chat", call("/api/chat", "m"), {"Origin": "http://localhost:3000"}
        )
        assert refused.status == 401
        assert refused["Access-Control-Allow-Origin"] == "http://localhost:3000"


async def test_a_body_that_nobody_read_does_not_become_the_next_request() -> None:
    smuggled = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with running(keyring=RING) as up, up.client() as client:
        answer = await client.request("POST", "/api/pull", smuggled * 3)
        assert answer.status == 401
        assert up.passed_on == []


async def test_off_by_default() -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("POST", GENERATE, call(GENERATE, "qwen3:4b"))
        assert answer.status == 200
        (seen,) = up.asked
        assert "authorization" not in {name.lower() for name, _ in seen.headers}


# --- What Ollama sees ---------------------------------------------------------------------------


def credentials(headers: Any) -> list[tuple[str, str]]:
    pairs = [(name.lower(), value) for name, value in headers]
    return [pair for pair in pairs if pair[0] in {"authorization", "x-api-key"}]


@pytest.mark.parametrize("target", [GENERATE, "/api/show"])
async def test_the_key_stops_here_and_other_credentials_pass(target: str) -> None:
    theirs = {"Authorization": "Bearer of-the-cloud-behind-ollama"}
    async with running(keyring=RING) as up, up.client() as client:
        body = call(GENERATE, "qwen3:4b")
        for headers in (AS_LAPTOP, AS_BATCH | theirs, AS_BATCH | AS_LAPTOP):
            assert (await client.request("POST", target, body, headers)).status == 200
        assert [credentials(seen.headers) for seen in up.asked] == [
            [],
            [("authorization", theirs["Authorization"])],
            [],
        ]
        await client.request("GET", "/", headers=AS_LAPTOP)
        assert credentials(up.passed_on[-1].headers) == []


# --- As whom, and for what ----------------------------------------------------------------------


async def test_the_name_of_the_key_is_the_client() -> None:
    async with running(keyring=RING) as up, up.client() as client:
        answer = await client.request("POST", GENERATE, call(GENERATE, "qwen3:4b"), AS_LAPTOP)
        (record,) = await up.calls.wait()
        assert record.client == "laptop"
        request_id = answer["X-Request-Id"]
        async with up.admin() as admin:
            seen = (await admin.request("GET", f"/requests/{request_id}")).json
        assert seen["client"] == "laptop"
        (line,) = await up.logged()
        assert line["client"] == "laptop"
        assert LAPTOP not in json.dumps(line)


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_role_that_the_key_is_not_for(route: str) -> None:
    async with running(keyring=RING) as up, up.client() as client:
        refused = await client.request("POST", route, call(route, "planner"), AS_BATCH)
        assert (refused.status, reason(refused)) == (403, "role_denied")
        assert refused["X-LLM-Role"] == "PLANNER"
        assert refused["x-should-retry"] == "false"
        (record,) = await up.calls.wait()
        assert (record.client, record.outcome) == ("batch", "E_FORBIDDEN")
        assert up.asked == []
        allowed = await client.request("POST", route, call(route, "heavy"), AS_BATCH)
        assert (allowed.status, allowed["X-LLM-Role"]) == (200, "HEAVY")


@pytest.mark.parametrize("role", ["", "EXECUTOR", "HEAVY"])
@pytest.mark.parametrize("model", ["gpt-oss:20b:cloud", "glm-4.6:Cloud ", "claude-3-opus"])
async def test_a_model_of_the_cloud_needs_a_key_for_it_whichever_role_is_said(
    role: str, model: str
) -> None:
    ring = Keyring([Key("batch", digest_of(BATCH), frozenset(Role) - {Role.CLOUD})])
    headers = AS_BATCH | ({"X-LLM-Role": role} if role else {})
    async with running(keyring=ring) as up, up.client() as client:
        for route in DIALECTS:
            refused = await client.request("POST", route, call(route, model), headers)
            assert (refused.status, reason(refused)) == (403, "role_denied")
        assert up.asked == []


async def test_escalation_is_no_way_around() -> None:
    headers = {"x-api-key": BATCH, "X-LLM-Role": "EXECUTOR", "X-LLM-Escalate": "operator"}
    async with running(keyring=RING) as up, up.client() as client:
        answer = await client.request("POST", GENERATE, call(GENERATE, "m:1b"), headers)
        assert answer["X-LLM-Role"] == "HEAVY"
        headers["X-LLM-Role"] = "HEAVY"
        answer = await client.request("POST", GENERATE, call(GENERATE, "m:1b"), headers)
        assert (answer.status, reason(answer)) == (403, "role_denied")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:00"),
        ("POST", "/api/%70ull"),
    ],
)
async def test_changing_models_is_a_right_of_its_own(method: str, target: str) -> None:
    async with running(keyring=RING) as up, up.client() as client:
        body: dict[str, Any] = {"model": "m:1b"}
        refused = await client.request(method, target, body, AS_BATCH)
        assert (refused.status, reason(refused)) == (403, "management_denied")
        assert up.passed_on == []
    async with running(keyring=RING) as up, up.client() as client:
        allowed = await client.request(method, target, body, AS_LAPTOP)
        assert allowed.get("X-LLM-Error-Code") is None


async def test_a_key_has_limits_of_its_own() -> None:
    overlay = {"clients": {"rate_per_s": 0.1}}
    slow = Key("slow", digest_of("ms-the-slow-one-s-key"), frozenset(Role))
    free = Key(
        "free", digest_of("ms-the-free-one-s-key"), frozenset(Role), False, {"rate_per_s": None}
    )
    async with running(overlay=overlay, keyring=Keyring([slow, free])) as up:
        body = call(GENERATE, "qwen3:4b")
        async with up.client() as client:
            for name, statuses in (("slow", [200, 429, 429]), ("free", [200, 200, 200])):
                headers = {"x-api-key": f"ms-the-{name}-one-s-key"}
                got = [
                    (await client.request("POST", GENERATE, body, headers)).status for _ in statuses
                ]
                assert got == statuses
        assert {record.client for record in up.calls.records} == {"slow", "free"}


async def test_clients_are_told_apart_by_their_keys_not_by_their_address() -> None:
    endless = SimConfig(tokens=10**6, token_rate=500, num_parallel=4, max_loaded=4)
    short = call(GENERATE, "qwen3:4b", options={"num_predict": 2})
    async with running(endless, keyring=RING) as up, up.client() as held, up.client() as client:
        await held.ask("POST", GENERATE, call(GENERATE, "heavy", stream=True), AS_BATCH)
        assert (await held.head()).status == 200
        busy = await client.request("POST", GENERATE, short, AS_BATCH)
        assert (busy.status, reason(busy)) == (429, "client_concurrency")
        assert busy.json["error"].startswith("client batch already has 1 calls here")
        other = await client.request("POST", GENERATE, short, AS_LAPTOP)
        assert other.status == 200
        held.reset()


# --- The process --------------------------------------------------------------------------------


def key_file(path: Path, mode: int = 0o600, **more: Any) -> Path:
    entry = {"name": "laptop", "key": LAPTOP, **more}
    path.write_text(json.dumps({"version": 1, "keys": [entry]}))
    path.chmod(mode)
    return path


@pytest.mark.parametrize("how", ["flag", "variable", "credential"])
async def test_a_process_with_keys(tmp_path: Path, how: str) -> None:
    path = key_file(tmp_path / "modelsplit-keys")
    options, env = {
        "flag": (["--keys", str(path)], {}),
        "variable": ([], {"MODELSPLIT_KEYS": str(path)}),
        "credential": ([], {"CREDENTIALS_DIRECTORY": str(tmp_path)}),
    }[how]
    body = call(GENERATE, "qwen3:4b")
    async with ollama() as (upstream, _), serving(upstream, tmp_path, *options, env=env) as process:
        async with process.client() as client:
            assert (await client.request("POST", GENERATE, body)).status == 401
            answer = await client.request("POST", GENERATE, body, AS_LAPTOP)
            assert answer.status == 200
        line = await process.said('"client":"laptop"')
        async with process.admin() as admin:  # the admin port wants no key
            assert (await admin.request("GET", "/healthz")).status == 200
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        for text in (line, *(file.read_bytes().decode("latin-1") for file in _state(tmp_path))):
            assert LAPTOP not in text


def _state(directory: Path) -> list[Path]:
    files = list(directory.glob("modelsplit.sqlite3*"))
    assert files
    return files


async def test_it_says_that_keys_are_on(tmp_path: Path) -> None:
    path = key_file(tmp_path / "keys.json")
    options = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state")
    async with spawned("modelsplit_proxy", *options, str(tmp_path), "--keys", str(path)) as process:
        line = await process.talk("keys ")
        assert line == f"modelsplit: keys {path} (1): nobody is served without one\n"


@pytest.mark.parametrize(
    ("mode", "more", "said"),
    [
        (0o644, {}, "others may read it; chmod 600 it"),
        (0o600, {"roles": ["BOSS"]}, "$.keys[0].roles[0]: must be"),
    ],
)
async def test_a_bad_file_of_keys_is_78(
    tmp_path: Path, mode: int, more: dict[str, Any], said: str
) -> None:
    path = key_file(tmp_path / "keys.json", mode, **more)
    async with spawned("modelsplit_proxy", "serve", "--keys", str(path)) as process:
        code, out, talk = await process.outcome()
        assert (code, out) == (78, "")
        assert talk.startswith(f"modelsplit: {path}: ")
        assert said in talk
        assert LAPTOP not in talk


async def test_the_demo_needs_no_key(tmp_path: Path) -> None:
    path = key_file(tmp_path / "keys.json")
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    env = {"MODELSPLIT_KEYS": str(path)}
    async with spawned("modelsplit_proxy", "demo", "--once", *ports, env=env) as process:
        code, out, _ = await process.outcome()
        assert code == 0
        assert " 401 " not in out
