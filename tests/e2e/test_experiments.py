"""An experiment at work: who is asked, and where one can see it afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.records.values import log_fields
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running, warm
from support.records import routing

pytestmark = pytest.mark.flowing_time

SIM = SimConfig(max_loaded=4, tokens=4)
ROUTE = "/api/generate"
ARMS = [
    {"name": "small", "model": "qwen3:4b", "weight": 1},
    {"name": "large", "model": "gemma3:12b", "weight": 1, "options": {"temperature": 0.25}},
]


def trial(**changes: Any) -> dict[str, Any]:
    test = {"name": "t", "role": "PLANNER", "arms": ARMS, "sticky": "job", "enabled": True}
    return {"experiments": [test | changes]}


async def test_an_arm_is_asked_with_its_options_and_named_everywhere() -> None:
    only = trial(arms=[ARMS[1]])
    async with running(SIM, only) as up, up.client() as client, up.admin() as admin:
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), {"Origin": "app://x"})
        [record] = await up.calls.wait()
        metrics = (await admin.request("GET", "/metrics")).body.decode()
    assert (answer["X-LLM-Variant"], answer["X-LLM-Route-Reason"]) == ("large", "experiment")
    assert answer["X-LLM-Model"] == "gemma3:12b"
    assert "X-LLM-Variant" in answer["Access-Control-Expose-Headers"]
    assert up.asked[0].model == "gemma3:12b"
    assert record.applied == ("pinned temperature 0.25",)
    line = log_fields(record)
    assert (line["experiment"], line["variant"], line["route_reason"]) == (
        *("t", "large"),
        "experiment",
    )
    assert (
        'modelsplit_experiment_requests_total{arm="large",experiment="t",outcome="ok"} 1.0'
        in metrics
    )


async def test_all_calls_of_a_job_get_one_arm_and_jobs_are_dealt_out() -> None:
    async with running(SIM, trial()) as up, up.client() as client:
        seen: dict[str, set[str]] = {}
        for job in map(str, range(8)):
            for _ in range(2):
                headers = {"X-LLM-Job-Id": job}
                answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), headers)
                seen.setdefault(job, set()).add(answer["X-LLM-Variant"])
    assert all(len(arms) == 1 for arms in seen.values())
    assert set.union(*seen.values()) == {"small", "large"}


async def test_a_call_that_falls_back_still_belongs_to_its_arm() -> None:
    async with running(SIM, trial(arms=[ARMS[1]])) as up, up.client() as client:
        up.sim.faults.add("status", status=500, body="died", model="gemma3:12b", times=1)
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        [record] = await up.calls.wait()
    assert (answer["X-LLM-Variant"], answer["X-LLM-Route-Reason"]) == ("large", "fallback")
    assert answer["X-LLM-Model"] == "qwen3:8b"
    assert log_fields(record)["variant"] == "large"
    assert record.applied == (), "the arm's options are not the fallback's"


@pytest.mark.parametrize(
    ("model", "headers"),
    [
        ("qwen3:4b", {"X-LLM-Role": "PLANNER"}),
        ("planner", {"X-LLM-Retry-Level": "1"}),
        ("qwen3:8b", {}),
    ],
)
async def test_a_call_that_takes_no_part_shows_nothing_of_it(
    model: str, headers: dict[str, str]
) -> None:
    async with running(SIM, trial()) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, model), headers)
        [record] = await up.calls.wait()
    assert answer.status == 200
    assert answer.get("X-LLM-Variant") is None
    assert "variant" not in log_fields(record)


async def test_a_call_that_only_loads_means_the_primary_where_each_is_dealt_by_itself() -> None:
    async with running(SIM, trial(arms=[ARMS[1]])) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, {"model": "planner"})
        [record] = await up.calls.wait()
    assert (answer["X-LLM-Model"], routing(record).variant) == ("qwen3:4b", None)


async def test_a_loaded_fallback_does_not_take_the_place_of_an_arm() -> None:
    overlay = {**trial(arms=[ARMS[1]]), "roles": {"PLANNER": {"prefer_resident_fallback": True}}}
    async with running(SIM, overlay) as up, up.client() as client:
        await warm(up, "qwen3:8b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
    assert answer["X-LLM-Model"] == "gemma3:12b"


async def test_a_dry_run_tells_the_arms_and_with_a_key_the_arm() -> None:
    async with running(SIM, trial()) as up, up.admin() as admin, up.client() as client:
        open_ = (await admin.request("GET", "/route?model=planner")).json
        told = (await admin.request("GET", "/route?model=planner&key=7")).json
        headers = {"X-LLM-Job-Id": "7"}
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), headers)
    assert (open_["experiment"], open_["variant"], open_["route_reason"]) == ("t", None, "alias")
    assert [arm["share"] for arm in open_["arms"]] == [0.5, 0.5]
    assert told["route_reason"] == "experiment"
    assert told["variant"] == answer["X-LLM-Variant"]
    assert told["candidates"][0]["model"] == answer["X-LLM-Model"]
