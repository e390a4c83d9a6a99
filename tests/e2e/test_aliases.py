"""Aliases look installed: every list has them, every question about one is answered."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest
from ollama import AsyncClient

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import Running, running
from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

TAGS, MODELS, SHOW = "/api/tags", "/v1/models", "/api/show"
ALIASES = ["planner:latest", "executor:latest", "heavy:latest"]


async def both(up: Running, *request: Any) -> tuple[Answer, Answer]:
    """What the proxy answers, and what Ollama itself does."""
    async with up.client() as client, Client(up.sim.port) as direct:
        return await client.request(*request), await direct.request(*request)


async def test_the_list_is_ollamas_with_the_aliases_behind_it() -> None:
    async with running() as up:
        ours, theirs = await both(up, "GET", TAGS)
        assert ours.body.startswith(theirs.body[:-2] + b",{")
        assert ours["Content-Type"] == theirs["Content-Type"]
        assert ours["Content-Length"] == str(len(ours.body))
        listed = ours.json["models"]
        assert [m["name"] for m in listed[4:]] == ALIASES
        target = next(m for m in listed if m["name"] == "qwen3:4b")
        digest = hashlib.sha256(f"alias:planner:{target['digest']}".encode()).hexdigest()
        assert listed[4] == target | {"name": ALIASES[0], "model": ALIASES[0], "digest": digest}
        assert len({m["digest"] for m in listed}) == len(listed)


async def test_openais_list_too() -> None:
    async with running() as up:
        ours, theirs = await both(up, "GET", MODELS)
        assert ours.body.startswith(theirs.body[:-3] + b",{")
        assert ours.body.endswith(b"]}\n")
        assert ours["Content-Type"] == theirs["Content-Type"] == "application/json"
        assert [m["id"] for m in ours.json["data"][4:]] == ALIASES


async def test_a_head_tells_the_length_of_the_list_with_the_aliases() -> None:
    async with running() as up, up.client() as client:
        whole = await client.request("GET", TAGS)
        head = await client.request("HEAD", TAGS)
        assert (head.status, head.body) == (200, b"")
        assert head["Content-Length"] == whole["Content-Length"]
        # Another method is Ollama's own affair.
        ours, theirs = await both(up, "HEAD", MODELS)
        assert (ours.status, ours["Allow"]) == (theirs.status, theirs["Allow"]) == (405, "GET")


@pytest.mark.parametrize("named", ["planner", "PLANNER:latest", "library/Planner"])
@pytest.mark.parametrize("key", ["model", "name", "Model"])
async def test_an_alias_shows_its_model(named: str, key: str) -> None:
    async with running() as up, up.client() as client, Client(up.sim.port) as direct:
        ours = await client.request("POST", SHOW, {key: named, "verbose": False})
        theirs = await direct.request("POST", SHOW, {"model": "qwen3:4b"})
        assert (ours.status, ours.body) == (200, theirs.body)
        assert ours["Content-Type"] == theirs["Content-Type"]
        names = {"model": "qwen3:4b"} | ({"name": "qwen3:4b"} if key == "name" else {})
        assert orjson.loads(up.asked[0].body) == names | {"verbose": False}


async def test_one_model_of_openais_answers_under_the_name_it_was_asked_by() -> None:
    async with running() as up:
        for name in ("planner", "Planner:latest", "planner%3Alatest"):
            ours, _ = await both(up, "GET", f"{MODELS}/{name}")
            _, theirs = await both(up, "GET", f"{MODELS}/qwen3:4b")
            assert ours.body == theirs.body.replace(b"qwen3:4b", name.replace("%3A", ":").encode())


async def test_what_is_no_alias_is_shown_byte_for_byte_as_asked() -> None:
    async with running() as up, up.client() as client:
        for body in (b' {"name" : "qwen3:8b"}', b"{bad", b"", b"[]", b'{"model":"nosuch"}'):
            async with Client(up.sim.port) as direct:
                theirs = await direct.request("POST", SHOW, body)
            ours = await client.request("POST", SHOW, body)
            assert (ours.status, ours.body) == (theirs.status, theirs.body)
            assert up.asked[-1].body == body


async def test_a_body_too_large_to_look_into_passes_unread() -> None:
    body = orjson.dumps({"model": "planner", "system": "x" * 2**20})
    chunked = {"Transfer-Encoding": "chunked"}
    wire = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:9], body[9:])) + b"0\r\n\r\n"
    async with running() as up, up.client() as client:
        for sent, headers in ((body, {}), (wire, chunked)):
            answer = await client.request("POST", SHOW, sent, headers)
            assert answer.status == 404
            assert up.passed_on[-1].body_size == len(body)
        expects = {"Expect": "100-continue", "Content-Length": "19"}
        await client.ask("POST", SHOW, b"", expects)
        assert (await client.head()).status == 100
        await client.send(b'{"model":"planner"}')
        assert (await client.answer()).status == 200


# Targets that are not there.


async def test_where_only_the_fallback_is_installed_the_alias_stands_for_it() -> None:
    async with running(SimConfig(models=("qwen3:8b",))) as up, up.client() as client:
        listed = (await client.request("GET", TAGS)).json["models"]
        assert [m["name"] for m in listed] == ["qwen3:8b", "planner:latest", "executor:latest"]
        assert (await client.request("POST", SHOW, {"model": "planner"})).status == 200
        assert (await client.request("GET", f"{MODELS}/planner")).status == 200
        answer = await client.request("POST", "/api/generate", call("/api/generate", "planner"))
        assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")


async def test_an_alias_of_nothing_says_so_and_is_never_a_404() -> None:
    async with running(SimConfig(models=("mine:1",))) as up, up.client() as client:
        listed = (await client.request("GET", TAGS)).json["models"]
        assert [m["name"] for m in listed] == ["mine:1"]
        for method, target, body in [
            ("POST", SHOW, {"model": "planner"}),
            ("GET", f"{MODELS}/planner", None),
        ]:
            answer = await client.request(method, target, body)
            assert (answer.status, answer.phrase) == (502, "Alias Target Missing")
            said = answer.json["error"]
            said = said if isinstance(said, str) else said["message"]
            assert said == (
                '"planner" stands for qwen3:4b, which is not installed; '
                f"try `{up.pull('qwen3:4b')}`"
            )


async def test_an_alias_of_the_cloud_is_listed_if_ollama_lists_its_model() -> None:
    async with running() as up, up.client() as client:
        for method, target, body in [
            ("POST", SHOW, {"model": "cloud"}),
            ("GET", f"{MODELS}/cloud", None),
        ]:
            answer = await client.request(method, target, body)
            assert (answer.status, answer.phrase) == (502, "Alias Target Missing")
            assert b"claude-3-opus, which is not installed" in answer.body
    models = SimConfig(models=("kimi:cloud",))
    price = {"kimi:cloud": {"price": {"input": 1, "output": 1}}}
    overlay = {"roles": {"CLOUD": {"primary": "kimi:cloud"}}, "models": price}
    async with running(models, overlay) as up, up.client() as client:
        listed = (await client.request("GET", TAGS)).json["models"]
        assert [m["name"] for m in listed] == ["kimi:cloud", "cloud:latest"]
        assert (await client.request("POST", SHOW, {"model": "cloud"})).status == 200
        # An approval is asked for where something would be sent.
        answer = await client.request("POST", "/api/chat", call("/api/chat", "cloud"))
        assert (answer.status, answer.json["reason"]) == (403, "no_approval")


async def test_an_installed_model_of_the_same_name_is_listed_once_as_the_alias() -> None:
    models = SimConfig(models=("planner", "qwen3:4b"))
    async with running(models) as up, up.client() as client:
        listed = (await client.request("GET", TAGS)).json["models"]
        assert [m["name"] for m in listed] == ["qwen3:4b", "planner:latest"]
        ids = [m["id"] for m in (await client.request("GET", MODELS)).json["data"]]
        assert ids == ["qwen3:4b", "planner:latest"]


# An Ollama that is not at its best.


async def test_an_ollama_that_is_not_there_is_a_502() -> None:
    async with running() as up, up.client() as client:
        assert (await client.request("GET", TAGS)).status == 200
        await up.sim.stop()
        for target in (TAGS, MODELS, f"{MODELS}/planner"):
            answer = await client.request("GET", target)
            assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UNREACHABLE_LOCAL")
        await up.sim.start(up.sim.port)


async def test_a_slow_ollama_is_answered_for_by_what_was_true_a_moment_ago() -> None:
    async with running() as up, up.client() as client:
        before = await client.request("GET", TAGS)
        up.sim.faults.add(Kind.HANG, path=TAGS)
        now = await client.request("GET", TAGS)
        assert now.body == before.body
        assert (now["Age"], now["Content-Length"]) == ("0", before["Content-Length"])
        assert now["Content-Type"] == before["Content-Type"]
        # The question that was given up does not go on.
        await up.sim.wait_for(lambda sim: all(c.ended_at is not None for c in sim.calls))
        assert before.get("Age") is None


async def test_nor_by_what_was_true_before_a_change() -> None:
    async with running() as up, up.client() as client:
        await client.request("GET", TAGS)
        app = up.app
        assert (await client.request("DELETE", "/api/delete", {"model": "planner"})).status == 403
        assert app.last_good.recall(TAGS, app.clock.now()) is not None
        assert (await client.request("DELETE", "/api/delete", {"model": "qwen3:8b"})).status == 200
        assert app.last_good.recall(TAGS, app.clock.now()) is None


async def test_an_error_of_ollamas_is_ollamas() -> None:
    async with running() as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, path=TAGS, status=500, body='{"error":"no list"}')
        answer = await client.request("GET", TAGS)
        assert (answer.status, answer.body) == (500, b'{"error":"no list"}')


async def test_lists_come_at_once_while_every_seat_is_taken() -> None:
    overlay = {"roles": {"PLANNER": {"max_queue": 0}}}
    async with running(SimConfig(token_rate=5, tokens=500), overlay) as up:
        busy = [up.client() for _ in range(2)]
        for client in busy:
            await client.ask("POST", "/api/chat", call("/api/chat", "planner", stream=True))
        await up.until(lambda: up.seats() == (2, 0))
        async with up.client() as client:
            assert (await client.request("GET", TAGS)).status == 200
            assert (await client.request("POST", SHOW, {"model": "planner"})).status == 200
        for client in busy:
            await client.close()


async def test_ollamas_own_client_takes_them_for_models() -> None:
    async with running() as up, AsyncClient(host=up.url, trust_env=False) as client:
        listed = [m.model for m in (await client.list()).models]
        assert listed[4:] == ALIASES
        shown = await client.show("planner")
        assert shown.capabilities == ["completion", "tools", "thinking"]
        assert shown.details is not None
        assert shown.details.family == "qwen3"
