"""Changes of models that are done on several hosts, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_sim.config import SimConfig
from support.fleets import MODEL, FleetUp, fleet_up

HERE = SimConfig(models=(MODEL, "gemma3:12b"))
OTHER = SimConfig(models=(MODEL, "qwen3:4b"))


def done(fleet: FleetUp, path: str) -> dict[str, int]:
    """How many such requests each host was sent."""
    return {name: sum(call.path == path for call in sim.calls) for name, sim in fleet.sims.items()}


async def test_a_pull_runs_on_every_host_that_takes_the_model_and_is_told_as_one() -> None:
    rows: dict[str, Any] = {"models": ["gemma3:*", "gpt-oss:*", "qwen3:*"]}
    async with (
        fleet_up(a=(HERE, rows), b=(HERE, rows), c=(HERE, {"models": ["llama*"]})) as fleet,
        fleet.up.client() as client,
    ):
        answer = await client.request("POST", "/api/pull", {"model": MODEL})
        assert (answer.status, answer["Content-Type"]) == (200, "application/x-ndjson")
        assert answer.lines[-1] == {"status": "success"}
        assert [line["status"] for line in answer.lines].count("success") == 1
        assert done(fleet, "/api/pull") == {"a": 1, "b": 1, "c": 0}


async def test_a_pull_without_a_stream_has_one_word() -> None:
    async with fleet_up(a=(HERE, {}), b=(OTHER, {})) as fleet, fleet.up.client() as client:
        answer = await client.request("POST", "/api/pull", {"model": MODEL, "stream": False})
        assert (answer.status, answer.json) == (200, {"status": "success"})


async def test_a_pull_that_fails_on_one_host_says_where() -> None:
    async with fleet_up(a=(HERE, {}), b=(OTHER, {})) as fleet, fleet.up.client() as client:
        await fleet.sims["b"].stop()
        answer = await client.request("POST", "/api/pull", {"model": MODEL})
        assert answer.status == 200
        assert answer.lines[-1]["error"].startswith("b: connection refused")
        assert answer.lines[-1]["error"].endswith("done on a")
        whole = await client.request("POST", "/api/pull", {"model": MODEL, "stream": False})
        assert (whole.status, "b: connection refused" in whole.json["error"]) == (500, True)
        await fleet.sims["a"].stop()
        for stream in (True, False):
            body = {"model": MODEL, "stream": stream}
            nowhere = await client.request("POST", "/api/pull", body)
            assert (nowhere.status, nowhere.json["reason"]) == (502, "connect_refused")


async def test_a_model_is_deleted_wherever_it_is() -> None:
    async with fleet_up(a=(HERE, {}), b=(OTHER, {})) as fleet, fleet.up.client() as client:
        assert (await client.request("DELETE", "/api/delete", {"model": MODEL})).status == 200
        assert done(fleet, "/api/delete") == {"a": 1, "b": 1}
        assert (await client.request("DELETE", "/api/delete", {"model": "qwen3:4b"})).status == 200
        assert done(fleet, "/api/delete") == {"a": 1, "b": 2}
        gone = await client.request("DELETE", "/api/delete", {"model": "nobody:1b"})
        assert gone.status == 404


@pytest.mark.parametrize("stopped", ["a", "ab"])
async def test_a_deletion_that_a_host_did_not_hear_of_is_no_success(stopped: str) -> None:
    async with fleet_up(a=(HERE, {}), b=(OTHER, {})) as fleet, fleet.up.client() as client:
        for name in stopped:
            await fleet.sims[name].stop()
        answer = await client.request("DELETE", "/api/delete", {"model": MODEL})
        assert answer.status == 502
        assert "connection refused" in answer.json["error"]
        if stopped == "a":
            assert answer.json["error"].endswith("done on 1 of 2 hosts")


async def test_a_named_host_is_the_only_one() -> None:
    async with fleet_up(a=(HERE, {}), b=(OTHER, {})) as fleet, fleet.up.client() as client:
        headers = {"X-LLM-Host": "b"}
        answer = await client.request("DELETE", "/api/delete", {"model": MODEL}, headers)
        assert (answer.status, answer["X-LLM-Host"]) == (200, "b")
        assert done(fleet, "/api/delete") == {"a": 0, "b": 1}


async def test_an_alias_is_no_model_to_change_on_any_host() -> None:
    async with fleet_up(a=(HERE, {}), b=(OTHER, {})) as fleet, fleet.up.client() as client:
        refused = await client.request("DELETE", "/api/delete", {"model": "planner"})
        assert (refused.status, refused.json["reason"]) == (403, "is_alias")
        assert done(fleet, "/api/delete") == {"a": 0, "b": 0}
