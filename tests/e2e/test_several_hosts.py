"""Several Ollamas behind one proxy, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from modelsplit_policy.vocabulary import Host
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.fleets import MODEL, fleet_up, question

QUICK = SimConfig(tokens=1, num_parallel=4)
# Every seat is anybody's.
OPEN: dict[str, Any] = {"roles": {"PLANNER": {"reserved": 0}}}
WAITS: dict[str, Any] = {"global": {"restart_wait_ms": 1_000_000}}


async def admin(up: Any, path: str) -> Any:
    async with up.admin() as client:
        return (await client.request("GET", path)).json


# Who answers.


async def test_the_answer_the_record_and_the_log_name_the_host() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        answer = await fleet.ask()
        assert (answer.status, answer["X-LLM-Host"]) == (200, "a")
        [record] = await fleet.up.calls.wait(1)
        assert (record.host, record.attempts[0].host) == ("a", "a")
        story = await admin(fleet.up, f"/requests/{record.request_id}")
        assert story["attempts"][0]["host"] == story["host"] == "a"
        async with fleet.up.admin() as client:
            path = f"/requests/{record.request_id}?format=text"
            text = (await client.request("GET", path)).body.decode()
        assert f"attempt 1  {MODEL} at a, whose tier is the lowest\n" in text
        assert story["attempts"][0]["placed"] == "tier"
        [line] = await fleet.up.logged()
        assert line["host"] == "a"


async def test_calls_are_spread_over_hosts_and_each_has_its_own_seats() -> None:
    parallel = {"parallel": 2, "max_concurrent": 2}
    async with fleet_up(OPEN, a=(QUICK, parallel), b=(QUICK, parallel)) as fleet:
        for name in "ab":
            fleet.stall(name)
        clients = [fleet.up.client() for _ in range(4)]
        heads = [await fleet.begun(client) for client in clients]
        assert Counter(head["X-LLM-Host"] for head in heads) == {"a": 2, "b": 2}
        waiting = asyncio.ensure_future(fleet.ask())
        await fleet.up.until(lambda: fleet.up.seats() == (4, 1))
        fleet.sims["b"].faults.clear()
        await clients[[head["X-LLM-Host"] for head in heads].index("b")].close()
        assert (await waiting)["X-LLM-Host"] == "b"
        for client in clients:
            await client.close()


async def test_a_model_that_one_host_has_is_asked_of_that_one() -> None:
    only = SimConfig(models=("gemma3:12b",), tokens=1)
    rest = SimConfig(models=(MODEL,), tokens=1)
    async with fleet_up(a=(rest, {}), b=(only, {})) as fleet:
        answers = [await fleet.ask(model) for model in ("gemma3:12b", MODEL, "gemma3:12b")]
        assert [answer["X-LLM-Host"] for answer in answers] == ["b", "a", "b"]
        assert (fleet.served("a"), fleet.served("b")) == (1, 2)
        nobodys = await fleet.ask("nobody:1b")
        assert (nobodys.status, nobodys["X-LLM-Host"]) == (404, "a")


async def test_roles_and_models_go_where_the_policy_lets_them() -> None:
    big, small = {"models": ["gemma3:*", "gpt-oss:*"]}, {"models": ["qwen3:*"]}
    async with fleet_up(a=(QUICK, big), b=(QUICK, small)) as fleet:
        answers = [await fleet.ask(model) for model in ("gemma3:12b", "planner")]
        assert [answer["X-LLM-Host"] for answer in answers] == ["a", "b"]
        refused = await fleet.ask("llama3.2:3b")
        assert (refused.status, refused.json["reason"]) == (404, "not_installed")
        assert "no host takes llama3.2:3b for role CHAT" in refused.json["error"]
        assert refused.get("X-LLM-Host") is None


# Hosts that fail.


async def test_a_host_that_refuses_connections_is_left_at_once_within_the_attempt() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        await fleet.sims["a"].stop()
        answer = await fleet.ask()
        assert (answer.status, answer["X-LLM-Host"]) == (200, "b")
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("1", "false")
        [record] = await fleet.up.calls.wait(1)
        [attempt] = record.attempts
        assert len(attempt.returned) <= 1
        # Now it is known, and nobody tries it.
        assert (await fleet.ask())["X-LLM-Host"] == "b"
        assert not fleet.up.calls.records[-1].attempts[0].returned


async def test_models_of_a_host_that_is_away_are_not_said_to_be_missing() -> None:
    """Nor is anybody told to pull them onto a host that does not answer."""
    big = SimConfig(models=(MODEL, "gemma3:12b", "gpt-oss:20b"), tokens=1)
    async with fleet_up(small=(SimConfig(models=("qwen3:4b",), tokens=1), {}), big=(big, {})) as it:
        installed = it.up.app.installed
        await installed.ask()
        assert not installed.missing
        await it.sims["big"].stop()
        await it.up.until(lambda: it.is_known("big", up=False))
        while not installed.unreached:
            installed.want()
            await installed.ask()
        assert (installed.missing, set(installed.unreached.values())) == (frozenset(), {("big",)})
        async with it.up.admin() as client:
            text = (await client.request("GET", "/stats?format=text")).body.decode()
        assert "EXECUTOR cannot be served: qwen3:8b, gemma3:12b are on no host that answers" in text
        assert "not installed" not in text
        assert "ollama pull" not in text
        route = await admin(it.up, "/route?model=executor")
        assert [candidate["installed"] for candidate in route["candidates"]] == [None, None]
        assert route["not_found"] is None
        async with it.up.client() as client:
            asked = await client.request("POST", "/api/show", {"model": "executor"})
        assert (asked.status, asked.json["error_code"]) == (502, "E_UNREACHABLE_LOCAL")


async def test_a_host_that_resets_a_call_it_was_sent_is_followed_by_attempt_2_elsewhere() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        fleet.sims["a"].faults.add(Kind.RESET, path="/api/generate", times=1)
        answer = await fleet.ask("planner")
        assert (answer.status, answer["X-LLM-Host"]) == (200, "b")
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Model"]) == ("2", "qwen3:4b")
        [record] = await fleet.up.calls.wait(1)
        assert [attempt.host for attempt in record.attempts] == ["a", "b"]
        assert {attempt.model for attempt in record.attempts} == {"qwen3:4b"}


async def test_who_wants_no_second_attempt_gets_none_elsewhere() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        fleet.sims["a"].faults.add(Kind.RESET, path="/api/generate", times=1)
        async with fleet.up.client() as client:
            body = {"model": "planner", "prompt": "hi", "stream": False}
            headers = {"X-LLM-No-Fallback": "1"}
            answer = await client.request("POST", "/api/generate", body, headers)
        assert (answer.status, answer["X-LLM-Host"], answer["X-LLM-Attempt"]) == (502, "a", "1")


@pytest.mark.parametrize(
    ("kind", "stream", "words"),
    [
        (Kind.CUT_FIN, True, "Ollama on a broke off its answer: "),
        (Kind.ERROR_LINE, True, "Ollama on a failed mid-answer: "),
        (Kind.CUT_CLEAN, True, "Ollama on a ended its answer without "),
        (Kind.RESET, False, "Ollama on a at http://127.0.0.1:"),
        (Kind.STATUS, False, "Ollama on a answered 500: "),
        (Kind.GARBAGE, False, "Ollama on a at http://127.0.0.1:"),
    ],
)
async def test_a_call_that_failed_at_a_host_names_it(
    kind: Kind, words: str, *, stream: bool
) -> None:
    longer = SimConfig(tokens=4)
    async with fleet_up(a=(longer, {}), b=(longer, {"tier": 2})) as fleet:
        fleet.sims["a"].faults.add(kind, path="/api/generate", after=1)
        async with fleet.up.client() as client:
            body = question("planner", stream=stream)
            await client.request("POST", "/api/generate", body, {"X-LLM-No-Fallback": "1"})
        [record] = await fleet.up.calls.wait(1)
        assert record.failure is not None
        assert record.failure.message.startswith(words)


async def test_a_drained_host_is_told_as_what_it_is() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        for name in "ab":
            fleet.up.app.admission_queue.drain(Host(name), is_drained=True)
        refused = await fleet.ask("planner")
        assert (refused.status, refused.json["reason"]) == (503, "draining")
        story = await admin(fleet.up, f"/requests/{refused['X-Request-Id']}")
        assert story["no_fallback"] == "drained"
        async with fleet.up.admin() as client:
            text = (await client.request("GET", "/stats?format=text")).body.decode()
        assert "refused  PLANNER: draining 1 (a host or modelsplit drains)" in text
        assert "what its clients sent" not in text


async def test_a_model_that_has_just_gone_from_a_host_is_asked_of_another() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        async with fleet.up.client() as client:
            gone = {"model": MODEL}
            here = {"X-LLM-Host": "a"}
            assert (await client.request("DELETE", "/api/delete", gone, here)).status == 200
        answer = await fleet.ask()
        assert (answer.status, answer["X-LLM-Host"]) == (200, "b")


async def test_a_host_killed_under_load_cuts_only_the_streams_it_had_begun() -> None:
    parallel = {"parallel": 2, "max_concurrent": 2}
    async with fleet_up(OPEN, a=(QUICK, parallel), b=(QUICK, parallel)) as fleet:
        for name in "ab":
            fleet.stall(name, times=2)
        clients = [fleet.up.client() for _ in range(4)]
        heads = [await fleet.begun(client) for client in clients]
        waiting = [asyncio.ensure_future(fleet.ask()) for _ in range(6)]
        await fleet.up.until(lambda: fleet.up.seats() == (4, 6))
        for client, head in zip(clients, heads, strict=True):
            if head["X-LLM-Host"] == "b":
                await client.close()
        await fleet.sims["a"].stop()
        answers = await asyncio.gather(*waiting)
        assert [answer.status for answer in answers] == [200] * 6
        assert {answer["X-LLM-Host"] for answer in answers} == {"b"}
        for client, head in zip(clients, heads, strict=True):
            if head["X-LLM-Host"] == "a":
                told = b"".join([piece async for piece in client.pieces(head)])
                assert b"E_STREAM_BROKEN_LOCAL" in told
                await client.close()
        cut = [record for record in fleet.up.calls.records if record.outcome != "ok"]
        assert {record.host for record in cut} <= {"a", "b"}


async def test_a_host_that_comes_back_gets_its_share() -> None:
    one = {"parallel": 1, "max_concurrent": 1}
    async with fleet_up(OPEN, a=(QUICK, one), b=(QUICK, one)) as fleet:
        await fleet.sims["a"].stop()
        assert {(await fleet.ask())["X-LLM-Host"] for _ in range(3)} == {"b"}
        await fleet.up.until(lambda: fleet.is_known("a", up=False))
        await fleet.sims["a"].start()
        await fleet.up.until(lambda: fleet.is_known("a", up=True))
        fleet.stall("a")
        fleet.stall("b")
        clients = [fleet.up.client() for _ in range(2)]
        heads = [await fleet.begun(client) for client in clients]
        assert {head["X-LLM-Host"] for head in heads} == {"a", "b"}
        for client in clients:
            await client.close()


async def test_while_all_hosts_are_away_calls_wait_and_the_first_back_serves_them() -> None:
    async with fleet_up(WAITS, a=(QUICK, {}), b=(QUICK, {})) as fleet:
        for name in "ab":
            await fleet.sims[name].stop()
        waiting = [asyncio.ensure_future(fleet.ask()) for _ in range(4)]
        await fleet.up.until(lambda: fleet.up.seats() == (0, 4))
        await fleet.sims["b"].start()
        answers = await asyncio.gather(*waiting)
        assert [(answer.status, answer["X-LLM-Host"]) for answer in answers] == [(200, "b")] * 4


async def test_away_for_longer_calls_are_told_at_once() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        for name in "ab":
            await fleet.sims[name].stop()
        answer = await fleet.ask()
        assert (answer.status, answer.json["reason"]) == (502, "connect_refused")
        await fleet.up.until(lambda: fleet.is_known("a", up=False))
        await fleet.up.until(lambda: fleet.is_known("b", up=False))
        async with fleet.up.admin() as client:
            ready = await client.request("GET", "/readyz")
        assert (ready.status, ready.json["upstream"]["up"]) == (503, False)


async def test_one_host_that_is_away_leaves_the_service_ready() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        await fleet.sims["a"].stop()
        await fleet.up.until(lambda: fleet.is_known("a", up=False))
        async with fleet.up.admin() as client:
            assert (await client.request("GET", "/readyz")).status == 200


# What passes through.


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
async def test_a_list_is_the_union_of_all_hosts_with_the_aliases(path: str) -> None:
    near = SimConfig(models=(MODEL, "qwen3:4b"))
    far = SimConfig(models=(MODEL, "gemma3:12b"))
    async with fleet_up(a=(near, {}), b=(far, {})) as fleet:
        async with fleet.up.client() as client:
            answer = await client.request("GET", path)
        rows = answer.json.get("models") or answer.json["data"]
        names = Counter(row.get("name") or row["id"] for row in rows)
        assert {MODEL, "qwen3:4b", "gemma3:12b"} < set(names)
        assert any(name.startswith("planner") for name in names)
        assert set(names.values()) == {1}
        await fleet.sims["a"].stop()
        async with fleet.up.client() as client:
            assert (await client.request("GET", path)).status == 200


async def test_what_is_loaded_is_listed_of_all_hosts() -> None:
    near, far = SimConfig(models=(MODEL,)), SimConfig(models=("gemma3:12b",))
    async with fleet_up(a=(near, {}), b=(far, {})) as fleet:
        for model in (MODEL, "gemma3:12b"):
            await fleet.ask(model)
        async with fleet.up.client() as client:
            answer = await client.request("GET", "/api/ps")
        assert {row["name"] for row in answer.json["models"]} == {MODEL, "gemma3:12b"}


async def test_a_question_about_a_model_goes_to_a_host_that_has_it() -> None:
    near, far = SimConfig(models=(MODEL,)), SimConfig(models=("gemma3:12b",))
    async with fleet_up(a=(near, {}), b=(far, {})) as fleet, fleet.up.client() as client:
        shown = await client.request("POST", "/api/show", {"model": "gemma3:12b"})
        assert (shown.status, shown["X-LLM-Host"]) == (200, "b")
        alias = await client.request("POST", "/api/show", {"model": "heavy"})
        assert (alias.status, alias["X-LLM-Host"]) == (200, "b")
        version = await client.request("GET", "/api/version")
        assert (version.status, version["X-LLM-Host"]) == (200, "a")
        named = await client.request("GET", "/api/version", None, {"X-LLM-Host": "b"})
        assert named["X-LLM-Host"] == "b"
        assert fleet.sims["b"].calls[-1].header("x-llm-host") is None


async def test_a_change_names_its_host_or_is_refused_with_their_names() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet, fleet.up.client() as client:
        body = {"model": "mine", "from": MODEL}
        refused = await client.request("POST", "/api/create", body)
        assert (refused.status, refused.json["reason"]) == (400, "bad_header")
        assert "say which in the header X-LLM-Host: a, b" in refused.json["error"]
        wrong = await client.request("POST", "/api/create", body, {"X-LLM-Host": "c"})
        assert 'there is no host "c"' in wrong.json["error"]
        done = await client.request("POST", "/api/create", body, {"X-LLM-Host": "b"})
        assert (done.status, done["X-LLM-Host"]) == (200, "b")
        assert not [call for call in fleet.sims["a"].calls if call.path == "/api/create"]


async def test_each_host_is_learned_of_by_itself() -> None:
    async with fleet_up(a=(QUICK, {"parallel": 3}), b=(QUICK, {})) as fleet:
        admission = fleet.up.app.admission
        assert admission.host(Host("a")).parallelism.host == 3
        assert admission.host(Host("b")).parallelism.host == 6


async def test_a_conversation_goes_on_where_its_prompt_was_read() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        await fleet.load()
        fleet.stall("a", times=1)
        busy = fleet.up.client()
        assert (await fleet.begun(busy))["X-LLM-Host"] == "a"
        said = "once upon a time " * 200
        assert (await fleet.ask(prompt=said))["X-LLM-Host"] == "b"
        await busy.close()
        await fleet.up.until(lambda: fleet.up.seats() == (0, 0))
        goes_on = await fleet.ask(prompt=f"{said} and then")
        assert goes_on["X-LLM-Host"] == "b"
        assert (await fleet.ask(prompt="something else"))["X-LLM-Host"] == "a"


async def test_how_much_a_model_takes_is_known_once_it_was_loaded() -> None:
    async with fleet_up(a=(QUICK, {"memory_gb": 24}), b=(QUICK, {})) as fleet:
        seats = fleet.up.app.admission.host(Host("a"))
        file = seats.sizes[MODEL]
        await fleet.load()
        async with fleet.up.client() as client:
            here = {"X-LLM-Host": "a"}
            loaded = (await client.request("GET", "/api/ps", None, here)).json["models"]
        [size] = [row["size"] for row in loaded]
        assert seats.sizes[MODEL] == size > file


async def test_a_model_is_unloaded_where_it_is_loaded() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        async with fleet.up.admin() as admin:
            await admin.request("POST", "/hosts/a/drain")
            assert (await fleet.ask())["X-LLM-Host"] == "b"
            await admin.request("POST", "/hosts/a/undrain")
        loaded = fleet.up.app.hosts[1].loaded_models
        while not loaded.loaded(MODEL):
            await loaded.ask()
        async with fleet.up.client() as client:
            body = {"model": MODEL, "keep_alive": 0}
            answer = await client.request("POST", "/api/generate", body)
        assert (answer.status, answer["X-LLM-Host"]) == (200, "b")
