"""docs/slo.md says of every objective which gate asks for it, over which window, and what it is."""

from __future__ import annotations

import re
from pathlib import Path

from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.judge import judge
from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_policy.slo.objectives import TABLE, Objective
from modelsplit_policy.slo.report import Verdict
from modelsplit_policy.slo.samples import Samples
from modelsplit_proxy.config.policy_file import shipped
from modelsplit_proxy.records import slo_report

PAGE = (Path(__file__).parents[1] / "docs" / "slo.md").read_text(encoding="utf-8")
SLO = shipped()["slo"]
WINDOWS = {43_200: "12h", 604_800: "7d"}


def table(head: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    body = PAGE.partition(f"\n{head}")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()[2:]]


def line(row: Objective) -> list[str]:
    own = SLO.get(row.name, {})
    bound, within = own.get(row.bound), own.get("window", "5h")
    window = within if row.window_s is None else WINDOWS[row.window_s]
    return [
        f"`{row.name}`",
        f"`{row.bound}`",
        "" if bound is None else f"{row.holds} {bound:g}",
        "-" if row.gate is None else str(row.gate),
        f"{window}, any {within}" if row.sliding else window,
    ]


def test_the_table_of_objectives_gates_and_windows_is_the_codes() -> None:
    assert table("| objective | bound |") == [line(row) for row in TABLE]


def test_every_objective_is_explained() -> None:
    told = [
        word
        for row in table("| objective | what is measured |")
        for word in re.findall(r"`(\w+)`", row[0])
    ]
    assert told == list(OBJECTIVES)


def test_the_example_has_the_columns_of_a_report() -> None:
    empty = slo_report.fields(judge(Samples(), parse(shipped()).slo, 0))
    header = next(line for line in slo_report.lines(empty) if "must be" in line)
    assert f"\n    {header}\n" in PAGE


def test_every_field_of_the_json_is_explained() -> None:
    fields = slo_report.fields(judge(Samples(), parse(shipped()).slo, 0))
    told = [
        word
        for row in table("| field of an objective |")
        for word in re.findall(r"`(\w+)`", row[0])
    ]
    assert set(told) == set(fields["gates"][0]["objectives"][0])
    above = PAGE.partition("\nAs JSON")[2].partition("\n\n| field")[0]
    assert set(re.findall(r"`(\w+)`", above)) >= {*fields, *fields["gates"][0]}


def test_every_verdict_is_explained() -> None:
    assert [row[0].strip("`") for row in table("| verdict |")] == list(Verdict)
