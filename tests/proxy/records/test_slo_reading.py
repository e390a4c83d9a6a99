"""A state file judged: fast or gently, and where it holds nothing."""

from __future__ import annotations

import json
from pathlib import Path

from modelsplit_policy.config.parser import parse
from modelsplit_proxy.records.slo_reading import report_of, report_of_nothing
from support.slo_history import NOW_US, passing, write
from support.stores import opened

SLO = parse(json.loads((Path(__file__).parents[3] / "config/model-policy.json").read_text())).slo


class Clock:
    """The wall says the end of the made-up week."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return NOW_US / 1e6


def test_it_is_the_same_read_fast_or_gently(tmp_path: Path) -> None:
    write(tmp_path, passing(days=1))
    with opened(tmp_path) as store:
        fast = report_of(store.read, SLO, Clock())
        assert report_of(store.read, SLO, Clock(), check=lambda: None) == fast


def test_of_nothing_it_says_what_it_says_of_an_empty_file(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        empty = report_of(store.read, SLO, Clock())
    assert report_of_nothing(SLO, NOW_US).gates == empty.gates
