"""Changing models through the proxy: passed, denied by the policy, or refused for an alias."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from support.harness import running

pytestmark = pytest.mark.flowing_time

DENIED = {"management": {"deny": ["pull", "delete", "blobs"]}}


async def test_models_are_copied_and_deleted_as_at_ollama() -> None:
    async with running() as up, up.client() as client:
        copy = {"source": "qwen3:4b", "destination": "mine:1"}
        answer = await client.request("POST", "/api/copy", copy)
        assert (answer.status, answer["Content-Length"]) == (200, "0")
        names = [m["name"] for m in (await client.request("GET", "/api/tags")).json["models"]]
        assert "mine:1" in names
        answer = await client.request("DELETE", "/api/delete", {"model": "mine:1"})
        assert answer.status == 200
        answer = await client.request("DELETE", "/api/delete", {"model": "mine:1"})
        assert (answer.status, answer.json) == (404, {"error": "model 'mine:1' not found"})


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/api/pull", {"model": "qwen3:4b"}),
        ("DELETE", "/api/delete", {"model": "qwen3:4b"}),
        ("DELETE", "/api/%64elete", {"model": "qwen3:4b"}),
        ("POST", "/api/blobs/sha256:0", b"blob"),
    ],
)
async def test_what_the_policy_denies_never_reaches_ollama(
    method: str, target: str, body: Any
) -> None:
    async with running(None, DENIED) as up, up.client() as client:
        answer = await client.request(method, target, body)
        assert (answer.status, answer.phrase) == (403, "Management Denied")
        assert answer.json["error_code"] == answer["X-LLM-Error-Code"] == "E_FORBIDDEN"
        assert "management.deny" in answer.json["error"]
        assert answer["x-should-retry"] == "false"
        assert not any(call.path == target for call in up.sim.calls)


async def test_a_denied_upload_is_not_waited_for() -> None:
    async with running(None, DENIED) as up, up.client() as client:
        await client.ask("POST", "/api/blobs/sha256:0", b"x", {"Content-Length": "1000000"})
        answer = await client.answer()
        assert (answer.status, answer["Connection"]) == (403, "close")


async def test_what_is_not_denied_still_goes_through() -> None:
    digest = hashlib.sha256(b"blob").hexdigest()
    async with running(None, DENIED) as up, up.client() as client:
        copy = {"source": "qwen3:4b", "destination": "mine:1"}
        assert (await client.request("POST", "/api/copy", copy)).status == 200
        # To ask whether a blob is there changes nothing.
        assert (await client.request("HEAD", f"/api/blobs/sha256:{digest}")).status == 404


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/api/pull", {"model": "planner"}),
        ("POST", "/api/pull", {"model": "", "name": "Planner:latest"}),
        ("POST", "/api/push", {"name": "planner"}),
        ("POST", "/api/create", {"model": "planner", "from": "qwen3:4b"}),
        ("POST", "/api/create", {"model": "mine", "from": "planner"}),
        ("POST", "/api/copy", {"source": "planner", "destination": "x"}),
        ("POST", "/api/copy", {"source": "qwen3:4b", "destination": "planner"}),
        ("DELETE", "/api/delete", {"model": "planner"}),
        ("DELETE", "/api/delete", {"NAME": "planner"}),
        ("POST", "/api/pull", {"model": "cloud"}),
    ],
)
async def test_an_alias_is_not_changed_as_if_it_were_a_model(
    method: str, target: str, body: dict[str, str]
) -> None:
    async with running() as up, up.client() as client:
        answer = await client.request(method, target, body)
        assert (answer.status, answer.phrase) == (403, "Is An Alias")
        assert "is an alias for" in answer.json["error"]
        assert not any(call.path == target for call in up.sim.calls)
        assert (await client.request("GET", "/api/version")).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model":"planner"} and more', 403),
        (b'{"model":"planner","x":"\\ud800"}', 403),
        (b'{"system":"%b","model":"planner"}' % (b"x" * 2**21), 403),
        (b'{"model":"planner","x":%b%b}' % (b"[" * 5000, b"]" * 5000), 403),
        (b'{"model":"planner","x":%b%b}' % (b"[" * 12_000, b"]" * 12_000), 400),
        (b'{"model":"x","y":"%b"}' % (b"x" * 2**22), 413),
    ],
    ids=["more behind it", "half a pair", "large", "deep", "too deep", "too large"],
)
async def test_no_body_hides_what_it_changes(body: bytes, status: int) -> None:
    async with running(max_body_bytes=3 * 2**20) as up, up.client() as client:
        answer = await client.request("POST", "/api/create", body)
        assert answer.status == status
        assert answer.json["error_code"]
        assert not any(call.path == "/api/create" for call in up.sim.calls)


async def test_bodies_that_cannot_be_read_are_ollamas_to_refuse() -> None:
    async with running() as up, up.client() as client:
        for body in (b"", b"{bad", b'["planner"]'):
            answer = await client.request("DELETE", "/api/delete", body)
            assert answer.status == 400
            assert "error_code" not in answer.json
