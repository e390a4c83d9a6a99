"""The arithmetic behind bench/RESULTS.md: a wrong ratio would be published as a measured one."""

from __future__ import annotations

from typing import Any

import pytest

from speed import report
from speed.figures import NOTHING, Figure, Figures, number
from speed.watch import Lag


def row(cell: str, target: str, turn: int, **told: Any) -> dict[str, Any]:
    return {"cell": cell, "target": target, "round": turn, "told": told}


def figures(*rows: dict[str, Any]) -> Figures:
    return Figures(list(rows))


def test_a_ratio_is_formed_within_each_round() -> None:
    # The machine is three times slower in the second round; what ours costs is not.
    found = figures(
        row("requests", "nginx", 0, cpu_us_each=10.0),
        row("requests", "ours", 0, cpu_us_each=20.0),
        row("requests", "nginx", 1, cpu_us_each=30.0),
        row("requests", "ours", 1, cpu_us_each=60.0),
        row("requests", "nginx", 2, cpu_us_each=10.0),
        row("requests", "ours", 2, cpu_us_each=21.0),
    ).ratio("requests", "ours", "cpu_us_each", "nginx")
    assert found is not None
    assert found.rounds == (2.0, 2.0, 2.1)
    assert found.value == 2.0
    assert found.marks == ""


def test_a_round_that_lacks_either_side_is_left_out() -> None:
    found = figures(
        row("requests", "nginx", 0, per_s=10.0),
        row("requests", "ours", 0, per_s=5.0),
        row("requests", "ours", 1, per_s=500.0),
    )
    ratio = found.ratio("requests", "ours", "per_s", "nginx")
    assert ratio is not None
    assert ratio.rounds == (0.5,)
    assert found.ratio("requests", "ours", "per_s", "envoy") is None
    assert found.plain("open", "ours", "per_s") is None


def test_what_is_nothing_is_a_figure_and_what_is_not_told_is_none() -> None:
    found = figures(row("rest", "nginx", 0, cpu_ms_per_s=0))
    assert found.plain("rest", "nginx", "cpu_ms_per_s") == Figure((0.0,))
    assert found.plain("rest", "nginx", "rss_mib") is None


def test_rounds_far_apart_are_marked() -> None:
    assert Figure((100.0, 101.0, 128.0)).marks == ""
    assert Figure((100.0, 101.0, 140.0)).marks == "~"
    assert Figure((-100.0, -101.0, -140.0)).marks == "~"


def test_a_figure_is_marked_as_disturbed_if_most_of_its_rounds_were() -> None:
    def told(noise: float) -> dict[str, Any]:
        return {"per_s": 1.0, "foreign_cores": noise}

    rows = [row("requests", "ours", turn, **told(0.5 if turn else 0.0)) for turn in range(3)]
    noisy = figures(*rows).plain("requests", "ours", "per_s")
    assert noisy is not None
    assert str(noisy) == "1.00!"
    quiet = figures(rows[0], rows[0] | {"round": 1}, rows[2]).plain("requests", "ours", "per_s")
    assert quiet is not None
    assert str(quiet) == "1.00"


def test_noise_of_the_base_disturbs_the_ratio() -> None:
    found = figures(
        row("requests", "nginx", 0, per_s=10.0, foreign_cores=1.0),
        row("requests", "ours", 0, per_s=5.0, foreign_cores=0.0),
    )
    assert str(found.ratio("requests", "ours", "per_s", "nginx")) == "0.50!"
    assert str(found.plain("requests", "ours", "per_s")) == "5.00"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (-12.34, "-12.3")],
)
def test_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_lag_is_told_as_the_bucket_that_holds_the_share() -> None:
    before = Lag({"0.001": 5.0, "0.005": 5.0, "+Inf": 5.0})
    lag = Lag({"0.001": 95.0, "0.005": 104.0, "+Inf": 105.0}).since(before)
    assert lag.counts == {"0.001": 90.0, "0.005": 99.0, "+Inf": 100.0}
    assert lag.bound_ms(0.9) == 1
    assert lag.bound_ms(0.99) == 5
    assert lag.bound_ms(1.0) == float("inf")


def whole_run() -> report.Run:
    never = {"never_stream": 0, "never_prefill": 3, "never_whole": 1}
    aborted = {"gone_stream_p50_us": 700.0, "gone_whole_p50_us": 900.0, **never}
    rows = [
        row("requests", "nginx", 0, per_s=100.0, cpu_us_each=10.0, latency_p50_us=1.0),
        row("requests", "modelsplit", 0, per_s=50.0, cpu_us_each=31.0, latency_p50_us=2.0),
        row("aborts", "modelsplit", 0, **aborted),
        row("unpaced", "nginx", 0, tokens_per_s=7.0, faults={"i/o timeout": 2}),
    ]
    return report.Run("then", 60.0, "- a machine", {"nginx": "1.2.3"}, {"caddy": "no caddy"}, rows)


def lines(start: str) -> list[list[str]]:
    text = report.text(whole_run())
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(start)
    ]


def test_the_report_says_who_was_left_out_and_why() -> None:
    assert "- without caddy: no caddy" in report.text(whole_run())
    assert "- nginx: 1.2.3" in report.text(whole_run())


def test_a_proxy_has_a_line_where_something_is_known() -> None:
    requests, aborts = lines("| modelsplit")
    assert requests[1:6] == ["50.0", "0.50", "31.0", "3.10", "2.00"]
    assert requests[6:] == [NOTHING, NOTHING]
    assert aborts[1:] == ["0.70", "**never**", "0.90 (never: 1)"]


def test_a_goal_is_met_missed_or_not_measured() -> None:
    goals = {line[0]: line[1:] for line in lines("| c") + lines("| C")}
    assert goals["CPU a request ÷ nginx"] == ["≤ 2.90", "3.10", "no"]
    assert goals["cancel, mid-stream, p50"] == ["≤ 2.00 ms", "0.70 ms", "yes"]
    assert goals["cancel, before the first byte, p50"][2] == "no"
    assert goals["CPU a token @64 ÷ nginx"] == ["≤ 1.30", NOTHING, NOTHING]


def test_faults_are_told() -> None:
    assert lines("| unpaced") == [["unpaced", "nginx", "i/o timeout", "2"]]


def test_the_ticks_that_reading_makes_late_are_taken_out() -> None:
    told = Lag({"0.001": 100.0, "0.025": 102.0, "+Inf": 102.0})
    by_reading = Lag({"0.001": 1.0, "0.025": 2.0, "+Inf": 2.0})
    assert told.since(by_reading).counts == {"0.001": 99.0, "0.025": 100.0, "+Inf": 100.0}
    assert told.since(by_reading).bound_ms(0.99) == 1
