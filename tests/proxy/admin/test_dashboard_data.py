"""The figures of the page: one snapshot for all who watch, and what the records say."""

from __future__ import annotations

import contextlib
from datetime import datetime

import orjson
import pytest

from modelsplit_proxy.admin import dashboard_data as module
from modelsplit_proxy.admin.dashboard_data import DashboardData
from modelsplit_proxy.admin.live_feed import MOST_VIEWERS
from modelsplit_sim.config import SimConfig
from support.fake_time import passes
from support.harness import Running, running
from support.wire import Client

HOSTILE = "<img src=x onerror=alert(1)>"
CALL = {"prompt": "x", "stream": False}
EVENTS = "/dashboard/events"


def data(up: Running) -> DashboardData:
    page = up.app._admin_handler.dashboard.made
    assert page is not None
    return page.data


async def event(client: Client) -> tuple[int, dict[str, object]]:
    """The next snapshot that a viewer is sent, and its number."""
    assert client.reader is not None
    number = 0
    while True:
        line = await client.reader.readline()
        assert line
        if line.startswith(b"id: "):
            number = int(line[4:])
        if line.startswith(b"data: "):
            return number, orjson.loads(line[6:])


async def watching(up: Running, stack: contextlib.AsyncExitStack, count: int) -> list[Client]:
    """So many viewers, each with its head."""
    clients = [await stack.enter_async_context(up.admin()) for _ in range(count)]
    for client in clients:
        await client.ask("GET", EVENTS)
        assert (await client.head()).status == 200
    return clients


async def test_a_snapshot_says_who_waits_and_why_as_queue_and_stats_do() -> None:
    sim = SimConfig(tokens=10**6, token_rate=200, num_parallel=4, max_loaded=4)
    overlay = {"roles": {"HEAVY": {"max_concurrent": 1}}}
    async with running(sim, overlay) as up, up.admin() as admin:
        body = {"model": "heavy", "prompt": "x"}
        async with up.client() as first, up.client() as second:
            await first.ask("POST", "/api/generate", body)
            await up.until(lambda: up.seats()[0] == 1)
            await second.ask("POST", "/api/generate", body)
            await up.until(lambda: up.seats() == (1, 1))
            now = (await admin.request("GET", "/dashboard/snapshot")).json
            queue = (await admin.request("GET", "/queue")).json
            stats = (await admin.request("GET", "/stats")).json
        [waiter] = now["queue"]["waiting"]
        assert waiter["why"] == queue["waiting"][0]["why"]
        assert waiter["request_id"] == queue["waiting"][0]["request_id"]
        assert now["queue"]["oldest_ms"].keys() == {"HEAVY"}
        assert (now["queue"]["waiting_in_all"], now["queue"]["running_in_all"]) == (1, 1)
        assert now["roles"] == stats["roles"]
        assert now["health"] == stats["health"]
        assert now["level_seen_since"] <= now["at"]


async def test_a_hostile_name_is_text_in_what_is_no_markup() -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client, up.admin() as admin:
        await client.request("POST", "/api/generate", CALL | {"model": HOSTILE})
        await client.request("POST", "/api/generate", CALL | {"model": "planner"})
        await up.calls.wait(2)
        calls = await admin.request("GET", "/dashboard/calls")
        history = await admin.request("GET", "/dashboard/history?span=15m")
        for answer in (calls, history):
            assert answer["Content-Type"] == "application/json"
            assert answer["X-Content-Type-Options"] == "nosniff"
        assert HOSTILE in [call["requested_model"] for call in calls.json["calls"]]
        assert history.json["roles"]["PLANNER"]["calls"] == 1
        assert history.json["calls"] == 2
        named = (await admin.request("GET", "/dashboard/calls?role=planner")).json["calls"]
        assert [call["llm_role"] for call in named] == ["PLANNER"]
        failed = (await admin.request("GET", "/dashboard/calls?failed=1")).json["calls"]
        assert [call["requested_model"] for call in failed] == [HOSTILE]


async def test_of_very_many_calls_the_last_are_looked_through_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client, up.admin() as admin:
        for model in ("planner", "executor", "executor"):
            await client.request("POST", "/api/generate", CALL | {"model": model})
        await up.calls.wait(3)
        whole = (await admin.request("GET", "/dashboard/calls")).json
        assert whole["all_since_us"] is None
        assert [call["llm_role"] for call in whole["calls"]] == ["EXECUTOR", "EXECUTOR", "PLANNER"]
        monkeypatch.setattr(module, "_LOOKED_THROUGH", 2)
        last = (await admin.request("GET", "/dashboard/calls?model=planner")).json
        assert (last["calls"], last["looked_through"]) == ([], 2)
        began = datetime.fromisoformat(whole["calls"][1]["started_at"])
        assert abs(last["all_since_us"] / 1e6 - began.timestamp()) < 0.001


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("history?span=1y", 'span "1y" is unknown; use 15m, 5h, 24h, 7d'),
        ("history?since=1h", '"since" is unknown here; use span'),
        ("calls?role=boss", 'role "boss"'),
        ("calls?limit=7", '"limit" is unknown here'),
    ],
)
async def test_what_it_does_not_know_is_told(path: str, error: str) -> None:
    async with running() as up, up.admin() as admin:
        answer = await admin.request("GET", f"/dashboard/{path}")
        assert answer.status == 400
        assert error in answer.json["error"]


@pytest.mark.flowing_time
@pytest.mark.parametrize("viewers", [1, 20])
async def test_however_many_watch_a_snapshot_is_made_once(viewers: int) -> None:
    async with running() as up, contextlib.AsyncExitStack() as stack:
        clients = await watching(up, stack, viewers)
        feed = data(up).feed
        await up.until(lambda: feed.viewers == viewers)
        told: dict[int, object] = {}
        for client in clients:
            for _ in range(3):
                number, snapshot = await event(client)
                # Under one number everybody is told the same.
                assert told.setdefault(number, snapshot) == snapshot
        assert max(told) <= feed.made
        assert 3 <= len(told) <= feed.made
        await stack.aclose()
        await up.until(lambda: feed.viewers == 0)


@pytest.mark.flowing_time
async def test_while_nobody_watches_nothing_is_made() -> None:
    async with running() as up, up.admin() as admin:
        async with up.admin() as viewer:
            await viewer.ask("GET", EVENTS)
            head = await viewer.head()
            assert head["Content-Type"] == "text/event-stream"
            assert head["X-Accel-Buffering"] == "no"
            assert head["Cache-Control"] == "no-store"
            await event(viewer)
        feed = data(up).feed
        await up.until(lambda: feed.viewers == 0)
        await up.until(lambda: feed._task is not None and feed._task.done())
        made = feed.made
        await passes(30)
        assert feed.made == made
        assert (await admin.request("HEAD", EVENTS)).status == 200
        assert feed.viewers == 0


@pytest.mark.flowing_time
async def test_who_comes_when_the_house_is_full_asks_now_and_then_instead() -> None:
    async with running() as up, contextlib.AsyncExitStack() as stack:
        await watching(up, stack, MOST_VIEWERS)
        await up.until(lambda: data(up).feed.is_full)
        async with up.admin() as late:
            answer = await late.request("GET", EVENTS)
            assert answer.status == 503
            assert (await late.request("GET", "/dashboard/snapshot")).status == 200


async def test_a_drain_ends_what_is_watched() -> None:
    async with running() as up, up.admin() as viewer:
        await viewer.ask("GET", EVENTS)
        await viewer.head()
        await event(viewer)
        await up.app.stop()
        assert viewer.reader is not None
        with contextlib.suppress(ConnectionError):
            while await viewer.reader.readline():
                pass


async def test_what_other_routes_say_is_made_once_for_all_who_watch() -> None:
    async with running() as up, up.admin() as admin:
        for name in ("slo", "experiments", "jobs"):
            told = [(await admin.request("GET", f"/dashboard/{name}")).json for _ in range(3)]
            assert told[0] == told[1] == told[2]
            assert type(told[0]) is type((await admin.request("GET", f"/{name}")).json)
        assert data(up)._shared.made == 3
        assert (await admin.request("GET", "/dashboard/slo?gate=1")).status == 400
