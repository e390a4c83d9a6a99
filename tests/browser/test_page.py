"""The page in a real browser: what it shows, that axe finds nothing, that it works by keyboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelsplit_sim.config import SimConfig
from support.browsers import PROGRAMS, driven
from support.harness import running
from support.page_seed import HOSTILE, seed

VIEWS = [
    {"width": 1440, "scheme": "light"},
    {"width": 390, "scheme": "dark"},
    {"width": 2560, "scheme": "dark"},
]


@pytest.mark.tools(*PROGRAMS)
async def test_the_page_in_every_width_and_scheme(driver: Path, output: Path) -> None:
    async with running(SimConfig(tokens=2)) as up:
        await seed(up)
        host = f"127.0.0.1:{up.admin_port}"
        found = await driven("page.mjs", driver, f"http://{host}/", output, json.dumps(VIEWS))
    assert [view["view"] for view in found["views"]] == VIEWS
    for view in found["views"]:
        assert view["title"] == "[LLM OBSERVABILITY]"
        assert (view["page"], view["call"], view["job"]) == ([], [], [])
        assert (view["errors"], view["hosts"], view["sideways"]) == ([], [host], 0)
        # What somebody calls a model is text, whatever it looks like.
        assert HOSTILE in view["models"]
        assert view["images"] == 0
        assert view["planner"][0].startswith("PLANNER")
        assert (view["address"], view["closed"], view["linked"]) == (True, True, True)
        assert view["begun"]
        assert (len(view["failed"]), view["filtered"]) == (2, 2)
        assert view["unknown"] == 'no call has the request id "nobody-has-this"'
    assert "stats?format=text" in found["noscript"]
