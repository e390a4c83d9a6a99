"""``/slo`` on the admin port."""

from __future__ import annotations

import pytest

from modelsplit_proxy.admin.slo import read_gates, read_window_s
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_sim.config import SimConfig
from support.harness import running

PLANNER = {"model": "planner", "prompt": "x", "stream": False}


async def test_what_a_fresh_process_knows_is_not_enough() -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client, up.admin() as admin:
        assert (await client.request("POST", "/api/generate", PLANNER)).status == 200
        told = (await admin.request("GET", "/slo")).json
        assert told["verdict"] == "not enough data"
        assert [gate["gate"] for gate in told["gates"]] == [0, 1, 2, 3, 4, None]
        [waits] = [
            found
            for found in told["gates"][1]["objectives"]
            if found["objective"] == "llm_queue_wait_ms"
        ]
        # The call that has just ended is in it.
        assert (waits["n"], waits["verdict"]) == (1, "not enough data")
        assert told["timeouts"][0]["llm_role"] == "PLANNER"


async def test_one_gate_as_text_and_as_markdown() -> None:
    async with running() as up, up.admin() as admin:
        text = (await admin.request("GET", "/slo?gate=2&since=24h&format=text")).body.decode()
        assert text.startswith("SLO not enough data, ")
        assert "gate 2  not enough data" in text
        assert "gate 3" not in text
        asked = await admin.request("GET", "/slo?gate=2", headers={"Accept": "text/plain"})
        assert asked.body.decode().startswith("SLO ")
        markdown = (await admin.request("GET", "/slo?format=markdown")).body.decode()
        assert markdown.startswith("# SLO: not enough data\n")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("gate=5", 'gate "5" is unknown; the gates are 0, 1, 2, 3, 4'),
        ("since=soon", 'since "soon" is neither'),
        ("gates=2", '"gates" is unknown here'),
        ("format=xml", 'format "xml" is unknown; use text, markdown or json'),
    ],
)
async def test_what_cannot_be_read_is_a_400(query: str, words: str) -> None:
    async with running() as up, up.admin() as admin:
        answer = await admin.request("GET", f"/slo?{query}")
    assert answer.status == 400
    assert words in answer.json["error"]


def test_a_window_begins_in_the_past() -> None:
    assert read_gates(None) is None
    assert read_window_s({}, 100.0) is None
    assert read_window_s({"since": "2m"}, 1000.0) == 120
    with pytest.raises(QueryError, match="is not in the past"):
        read_window_s({"since": "2099-01-01"}, 1000.0)
