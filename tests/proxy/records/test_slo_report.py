"""Reports as somebody reads them: on 80 columns, in Markdown. The weeks are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.judge import judge
from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_policy.slo.objectives import TABLE
from modelsplit_policy.slo.samples import Samples
from modelsplit_proxy.records import slo_report
from support.slo_history import EMPTY, NOW_US, History, breaching, passing, planner

SLO = parse(json.loads((Path(__file__).parents[3] / "config/model-policy.json").read_text())).slo


def told(history: History, **asked: Any) -> dict[str, Any]:
    return slo_report.fields(judge(history.samples(), SLO, NOW_US, **asked))


WELL, ILL = told(passing()), told(breaching())
NOTHING = slo_report.fields(judge(Samples(), SLO, NOW_US))


@pytest.mark.parametrize("fields", [WELL, ILL, NOTHING], ids=["passing", "breaching", "empty"])
def test_no_line_is_longer_than_a_terminal(fields: dict[str, Any]) -> None:
    assert max(len(line) for line in slo_report.lines(fields)) <= 80
    assert orjson.loads(orjson.dumps(fields)) == fields


def test_the_first_lines_say_what_is_wrong() -> None:
    assert list(slo_report.lines(ILL))[:12] == [
        "SLO BREACH, 2026-11-23 00:29:00 UTC",
        "  gate 0   BREACH           memory growth, planner failures",
        "  gate 1   BREACH           timeouts, queue wait P95, errors in full, planner",
        "                            failures",
        "  gate 2   BREACH           planner P95, schema errors, fallbacks, planner",
        "                            failures",
        "  gate 3   BREACH           executor jobs, job success, hallucinated, planner",
        "                            failures",
        "  gate 4   BREACH           timeouts, job P99, cloud calls sent, uptime",
        "  targets  BREACH           llm latency P95, event loop lag, job P95",
        "  records cover 7 d of 7 d",
        "  baseline: a made-up month (26 timeouts in 5 h, planner P95 10 s)",
    ]


def test_a_gate_that_passes() -> None:
    text = "\n".join(slo_report.lines(WELL))
    assert (
        """
gate 2  pass  a fast planner, right at once
                            observed  must be  interval          n  used    burn
  pass    planner P95            2 s  < 5 s    2s..2s          150    0%     0/0
  pass    schema errors          0 %  < 1 %    0..2.5          150    0%     0/0
  pass    fallbacks              0 %  < 10 %   0..2.46         152    0%     0/0
  pass    planner failures       0 %  <= 1 %   0..2.5          150    0%     0/0
  150 planner calls in 5 h: 150 answered, 0 refused
"""
        in text
    )
    assert "modelsplit requests ID" not in text


def test_a_breach_names_calls_and_what_of_its_budget_is_used() -> None:
    text = "\n".join(slo_report.lines(ILL))
    assert (
        """
  BREACH  planner P95            9 s  < 5 s    9s..9s          119  252% 3.6/2.5
          worst: plan-9996 plan-9980 plan-9964 plan-9948 plan-9932
"""
        in text
    )
    assert "150 planner calls in 5 h: 119 answered, 15 timed out, 16 refused" in text
    assert "15 in 5 h, 10 per 100 calls; baseline 26 in 5 h (a made-up month)" in text
    assert "worst: 2026-11-21 18:29 UTC" in text
    assert text.endswith(
        "\n\nWhat became of a job:\n  modelsplit jobs job-10075\n\nSLO BREACH 0 1 2 3 4 targets"
    )


def test_the_last_line_tells_it_again_of_several_gates() -> None:
    assert [*slo_report.lines(WELL)][-1] == ("SLO pass 0 1 2 3 4 targets")
    one = told(passing(days=1), gates={2})
    assert [*slo_report.lines(one)][-1].startswith("  EXECUTOR")


def test_what_is_missing_is_said_in_words() -> None:
    text = "\n".join(slo_report.lines(NOTHING))
    assert "          not enough data: no client sends X-LLM-Job-Id\n" in text
    assert "  targets  not enough data  llm latency P95, event loop lag, job P95\n" in text
    assert "  records cover 0 s of 7 d\n  baseline: the shipped figures (26 timeouts" in text


def test_what_to_do_next_is_said() -> None:
    text = "\n".join(slo_report.lines(NOTHING))
    assert (
        "\n\nVerdicts on answers are given with:\n  modelsplit slo review\n\nSLO not enough data"
        in text
    )
    bare = slo_report.fields(judge(Samples(jobs=passing().jobs), SLO, NOW_US, gates={3}))
    assert "  modelsplit baseline record" in [*slo_report.lines(bare)]


def test_what_is_not_judged_is_named_so() -> None:
    slo = {**SLO, "fallback_rate": None}
    fields = slo_report.fields(judge(passing(days=1).samples(), slo, NOW_US, gates={2}))
    text = "\n".join(slo_report.lines(fields))
    assert "  -       fallbacks\n          not judged\n" in text


def test_timeouts_by_role_stand_at_the_end() -> None:
    late = planner("late", NOW_US - 60_000_000, 15_000, "E_TIMEOUT_LOCAL")
    fields = told(History((*passing(days=1).calls, late)))
    text = "\n".join(slo_report.lines(fields))
    assert "timeouts by role in 5 h\n  PLANNER   1 of 151 calls" in text
    assert "1 in 5 h, 0.66 per 100 calls" in text


def test_every_objective_has_a_title() -> None:
    titles = {row.name: slo_report.title(row) for row in TABLE}
    assert set(titles) == set(OBJECTIVES)
    assert slo_report.title(TABLE[0]) == "records cover"


def test_markdown_has_a_table_for_each_gate() -> None:
    text = "\n".join(slo_report.markdown(ILL))
    assert text.startswith("# SLO: BREACH\n\n2026-11-23T00:29:00")
    assert text.count("\n## gate ") == 5
    assert "\n## targets: BREACH\n" in text
    assert "\nBaseline: a made-up month (26 timeouts in 5 h, planner P95 10 s).\n" in text
    row = (
        "| planner P95 | BREACH | 9 s | < 5 s | 9s..9s | 119 | 252% | 3.6/2.5 | 5 h | worst `plan-"
    )
    assert row in text
    assert "worst 2026-11-21T18:29Z" in text
    assert "\n\n150 planner calls in 5 h: 119 answered, 15 timed out, 16 refused.\n\n" in text
    assert "\n## timeouts by role in 5 h\n" in text
    assert "\n| PLANNER | 150 | 15 | 15 | 10 |" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_tables_of_markdown_have_as_many_cells_in_each_row() -> None:
    named = {**ILL, "baseline": {**ILL["baseline"], "source": "a | b"}}
    for table in "\n".join(slo_report.markdown(named)).split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_nothing_at_all_can_be_told() -> None:
    assert told(EMPTY)["timeouts"] == []
