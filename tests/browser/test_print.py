"""The page on paper, printed by a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelsplit_sim.config import SimConfig
from support.browsers import PROGRAMS, driven
from support.harness import running
from support.page_seed import seed

WHITE, DARK = "rgb(255, 255, 255)", "rgb(27, 34, 48)"
A4 = (842, 595)


def papers(path: Path) -> set[tuple[int, int]]:
    """The sizes of the pages of a PDF, in points."""
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", path.read_bytes())
    return {(round(float(width)), round(float(height))) for width, height in boxes}


@pytest.mark.tools(*PROGRAMS)
async def test_it_prints_whole_and_dark_on_white(driver: Path, output: Path) -> None:
    async with running(SimConfig(tokens=2)) as up:
        await seed(up)
        url = f"http://127.0.0.1:{up.admin_port}/"
        found = await driven("print.mjs", driver, url, output)
    assert found["errors"] == []
    for view in (found["whole"], found["explained"]):
        assert (view["color"], view["backgroundColor"]) == (DARK, WHITE)
        assert (view["cut"], view["sideways"], view["controls"]) == ([], 0, [])
        # The screen is as it was.
        assert view["theme"] == "dark"
        assert view["told"].startswith("As it stood at ")
        assert url in view["told"]
    assert {"verdict", "roles", "queue", "charts", "models", "requests"} <= {
        *found["whole"]["sections"]
    }
    assert (found["whole"]["rows"], found["whole"]["charts"]) == (4, 4)
    # Of what is explained, only that.
    assert found["explained"]["sections"] == []
    for name in ("page.pdf", "explained.pdf"):
        assert papers(output / name) == {A4}
