"""What the page has the state file asked: whatever it is, it goes by an index and has an end.

Nothing here lists the queries: the page's own scripts say what it asks for, and SQLite says
which statements that runs.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from modelsplit_proxy.admin import dashboard
from modelsplit_proxy.records.history import SPANS
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.page_seed import EXPERIMENT, seed
from support.stores import execute, opened

STATIC = Path(dashboard.__file__).parent / "static"
SCRIPTS = "".join(path.read_text() for path in STATIC.glob("*.js") if path.name != "uplot.js")
FORM = (STATIC / "index.html").read_text().partition('<form id="filter"')[2].partition("</form>")[0]
# What the scripts put into the paths that they ask.
FILTERS = {
    "role": "PLANNER",
    "outcome": "ok",
    "model": "qwen3:4b",
    "job": "build-17",
    "client": "127.0.0.1",
    "failed": "1",
}
IDS = ("build-17", "nobody-has-this", "{call}", "{call:.6}")
FILLED = {
    "${span}": tuple(SPANS),
    "${words()}": tuple(
        urlencode(dict(chosen))
        for count in range(3)
        for chosen in itertools.combinations(FILTERS.items(), count)
    ),
    "${encodeURIComponent(id)}": IDS,
}
# Tables that grow with the calls.
LONG = (
    *("calls", "attempts", "jobs", "job_tools", "heartbeats", "reviews"),
    *("budget_charges", "egress"),
)


def paths() -> Iterator[str]:
    """What the page's scripts ask for, with every value that they may put into it."""
    asked = set(re.findall(r"""[`"]((?:dashboard|requests|jobs)/[^`"]*)[`"]""", SCRIPTS))
    bases = set(re.findall(r"const path = `(.*?)`", SCRIPTS))
    asked |= {f"{base}?format=text" for base in bases}
    for path in sorted(asked - {"dashboard/events"}):
        holes = re.findall(r"\$\{.*?\}+|\$\{.*?\)\}", path)
        assert len(holes) <= 1, path
        for value in FILLED[holes[0]] if holes else ("",):
            yield path.replace(holes[0], value) if holes else path


def test_every_filter_of_the_page_is_tried() -> None:
    assert set(re.findall(r'name="(\w+)"', FORM)) | {"failed"} == set(FILTERS)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each statement that SQLite runs for anybody, its values in it, as it comes."""
    out: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **options)
        db.set_trace_callback(out.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    return out


async def test_every_query_of_the_page_goes_by_an_index_and_has_an_end(
    statements: list[str], tmp_path: Path
) -> None:
    async with running(SimConfig(tokens=2), EXPERIMENT, state=tmp_path) as up, up.admin() as admin:
        await seed(up)
        [call, *_] = up.calls.records
        statements.clear()
        for path in paths():
            answer = await admin.request("GET", "/" + path.format(call=call.request_id))
            assert answer.status in {200, 404}, (path, answer.body)
        ran = {text.strip() for text in statements if re.match(r"\s*(SELECT|WITH)", text)}
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        plans = {text: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")] for text in ran}
    asked = {table for plan in plans.values() for step in plan for table in LONG if table in step}
    assert asked >= {"calls", "attempts", "jobs", "job_tools", "heartbeats", "reviews"}
    assert {text: plan for text, plan in plans.items() if not all(is_by_index(plan))} == {}
    assert {text: plan for text, plan in plans.items() if not has_end(text, plan)} == {}


def of_long_tables(plan: list[str]) -> list[str]:
    """The steps that look through a table which grows with the calls."""
    found = (re.match(r"(?:SCAN|SEARCH) (\w+)", step) for step in plan)
    names = (match and {"first": "attempts"}.get(match[1], match[1]) for match in found)
    return [step for step, name in zip(plan, names, strict=True) if name in LONG]


def is_by_index(plan: list[str]) -> Iterator[bool]:
    for step in of_long_tables(plan):
        # A table with a key of numbers is looked up by it; its least and greatest, too.
        yield "INDEX" in step or "KEY" in step or step.startswith("SEARCH")


def has_end(text: str, plan: list[str]) -> bool:
    """Whether it stops after so many rows, or looks between bounds alone."""
    scans = [step for step in of_long_tables(plan) if step.startswith("SCAN")]
    return re.search(r"\bLIMIT \d+", text) is not None or not scans


@pytest.mark.parametrize(
    ("text", "by_index", "ends"),
    [
        ("SELECT * FROM calls", False, False),
        ("SELECT * FROM calls WHERE model = 'x' LIMIT 3", False, True),
        ("SELECT * FROM calls ORDER BY started_us", True, False),
        ("SELECT * FROM calls WHERE started_us > 5", True, True),
        ("SELECT max(id) FROM calls", True, True),
        ("SELECT count(*) FROM attempts", False, False),
    ],
)
def test_a_query_that_does_not_is_known(
    text: str, by_index: bool, ends: bool, tmp_path: Path
) -> None:
    with opened(tmp_path):
        plan = [row[3] for row in execute(tmp_path, f"EXPLAIN QUERY PLAN {text}")]
    assert (all(is_by_index(plan)), has_end(text, plan)) == (by_index, ends)
