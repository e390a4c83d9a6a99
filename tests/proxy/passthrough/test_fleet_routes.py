"""Lists of several hosts put together, and what is asked where."""

from __future__ import annotations

from modelsplit_proxy.passthrough.fleet_routes import _union
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.routes import Routes
from modelsplit_sim.config import SimConfig
from support.fleets import MODEL, fleet_up


def test_rows_of_one_name_are_told_once_as_the_first_host_has_them() -> None:
    lists = [{"models": [{"name": "m", "of": "a"}]}, {"models": [{"name": "m"}, {"name": "n"}]}]
    assert _union(lists, "models", "name") == [{"name": "m", "of": "a"}, {"name": "n"}]


def test_rows_that_may_come_twice_and_lists_of_another_form() -> None:
    lists: list[dict[str, object]] = [
        {"models": [{"name": "m"}]},
        {"models": None},
        {"models": [{"name": "m"}, 1]},
    ]
    assert _union(lists, "models", None) == [{"name": "m"}, {"name": "m"}, 1]


def test_the_lists_are_routes_of_ollamas() -> None:
    known = Routes(ENDPOINTS)
    for path in ("/api/tags", "/v1/models", "/api/ps"):
        assert known.classify("GET", path).label == path


async def test_without_any_host_there_is_no_list() -> None:
    here = SimConfig(models=(MODEL,))
    async with fleet_up(a=(here, {}), b=(here, {})) as fleet:
        for name in "ab":
            await fleet.sims[name].stop()
            await fleet.up.until(lambda name=name: fleet.is_known(name, up=False))  # type: ignore[misc]
        async with fleet.up.client() as client:
            answer = await client.request("GET", "/api/tags")
        assert (answer.status, answer.json["reason"]) == (502, "connect_refused")
        for sim in fleet.sims.values():
            assert f"127.0.0.1:{sim.port}" in answer.json["error"]


async def test_one_model_of_the_list_is_asked_of_a_host_that_has_it() -> None:
    near, far = SimConfig(models=(MODEL,)), SimConfig(models=("gemma3:12b",))
    async with fleet_up(a=(near, {}), b=(far, {})) as fleet, fleet.up.client() as client:
        answer = await client.request("GET", "/v1/models/gemma3:12b")
        assert (answer.status, answer["X-LLM-Host"]) == (200, "b")
