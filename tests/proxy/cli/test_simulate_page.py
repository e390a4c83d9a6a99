"""The report as one HTML file: all of it, and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from modelsplit_proxy.cli.main import run
from modelsplit_proxy.cli.simulate_page import page
from support.simulate_report import GAP

CURVE = [(0.5, 1.0), (0.95, 4.0), (1.0, 9.0)]
FIGURE = {"value": 2.0, "low": 1.0, "high": 3.0}
ROLE: dict[str, Any] = {
    "calls": 10.0,
    "retries": 0.0,
    "objective_s": None,
    "failures": [],
    "latency_curve": CURVE,
    **dict.fromkeys(
        (
            *("failed", "goodput", "fallback", "cost_usd"),
            *("latency_p50_s", "latency_p95_s", "latency_p99_s"),
            *("llm_queue_wait_p50_s", "llm_queue_wait_p95_s", "llm_queue_wait_p99_s"),
        ),
        FIGURE,
    ),
}


def policy(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "roles": {"PLANNER": ROLE},
        "model_loads": {},
        "seats_held": FIGURE,
        "seats": 6,
        "host_busy": FIGURE,
        "shed_s": FIGURE,
        "gates": [],
    }


REPORT: dict[str, Any] = {
    "warnings": ["little was <replayed>"],
    "summary": "planner P95 4.1 → 2.6 s",
    "seeds": 2,
    "policies": [policy("old & tried.json"), policy("new.json")],
    "differences": [GAP, GAP | {"measure": "failed", "low": None, "high": None, "told": False}],
    "coverage": {"calls": 10, "seconds": 60, "parts": {}, "left_out": {}},
    "drift": 0.0,
}


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_and_says_everything_once_more_in_words() -> None:
    text = page(REPORT)
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "planner P95 4.1 → 2.6 s" in text
    assert "little was &lt;replayed&gt;" in text
    assert "old &amp; tried.json" in text
    assert "with the 95 % interval" in text


def test_it_needs_nothing_from_elsewhere() -> None:
    assert re.findall(r"(?:src|href|url|import)\s*[=(]", page(REPORT)) == []


def test_there_is_a_curve_for_each_policy_and_a_line_for_each_difference() -> None:
    parser = Balanced()
    parser.feed(page(REPORT))
    assert parser.seen.count("polyline") == 2
    assert parser.seen.count("circle") == 2


def test_one_policy_alone_has_no_differences() -> None:
    text = page(REPORT | {"policies": [policy("new.json")], "differences": []})
    assert "What changes" not in text
    assert 'class="c1"' in text


def test_the_command_writes_it(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    flags = ["--workload", "night", "--seeds", "2", "--load", "0.5", "--html", str(file)]
    assert run(["simulate", *flags], {}) == 0
    assert capsys.readouterr().out
    parser = Balanced()
    parser.feed(file.read_text())
    assert "polyline" in parser.seen
    short = ["--workload", "night", "--seeds", "1", "--load", "0.1"]
    assert run(["simulate", *short, "--html", str(tmp_path)], {}) == 2
    assert f"{tmp_path} cannot be written" in capsys.readouterr().err
