"""Traces drawn from a seed, and the files that describe hosts and traffic."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from modelsplit_sim.virtual_traffic import SCENARIOS, read_scenario


def test_the_same_seed_gives_the_same_calls() -> None:
    traffic = read_scenario("fierce").traffic
    assert traffic.trace(100, 7) == traffic.trace(100, 7)
    assert traffic.trace(100, 7) != traffic.trace(100, 8)


def test_seed_seven_is_the_traffic_that_was_recorded_before_a_real_ollama() -> None:
    roles = Counter(arrival.role for arrival in read_scenario("fierce").traffic.trace(200, 7))
    assert roles == {"PLANNER": 55, "EXECUTOR": 25, "HEAVY": 4, "CHAT": 22}


def test_how_fast_calls_are_does_not_change_who_calls() -> None:
    traffic = read_scenario("fierce").traffic
    plain, spread = traffic.trace(100, 3), traffic.trace(100, 3, spread=0.1)
    assert [a[:4] for a in plain] == [a[:4] for a in spread]
    assert {arrival.pace for arrival in plain} == {1.0}
    assert len({arrival.pace for arrival in spread}) > 10


def test_bursts_are_a_gap_apart() -> None:
    times = [a.at for a in read_scenario("fierce").traffic.trace(400, 1) if a.role == "PLANNER"]
    gaps = [round(b - a, 6) for a, b in itertools.pairwise(times)]
    assert gaps.count(0.2) > 5


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.json")), ids=lambda file: file.stem)
def test_every_shipped_scenario_can_be_read_and_is_called_as_its_file(file: Path) -> None:
    assert read_scenario(file).host.name == file.stem


def test_a_file_that_is_no_scenario_says_what_is_wrong(tmp_path: Path) -> None:
    raw = json.loads((SCENARIOS / "fierce.json").read_bytes())
    raw["host"]["speed"] = 3
    file = tmp_path / "own.json"
    file.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="speed"):
        read_scenario(file)


def test_a_neighbour_may_be_on_the_host(tmp_path: Path) -> None:
    raw = json.loads((SCENARIOS / "fierce.json").read_bytes())
    raw["host"]["neighbour"] = {"busy_s": 4, "idle_s": 4, "slowdown": 2}
    file = tmp_path / "own.json"
    file.write_text(json.dumps(raw))
    neighbour = read_scenario(file).host.neighbour
    assert neighbour is not None
    assert neighbour.slowdown == 2
